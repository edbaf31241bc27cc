"""Summaries of what `mechvit.analysis.study` measures: performance, lens and attention, clean against shifted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def study_summaries(
    tables: Mapping[str, pd.DataFrame], bootstrap: Mapping[str, Any] | None = None
) -> dict[str, pd.DataFrame]:
    """Return first_correct, per image, and the summaries performance_summary, lens_summary, attention_summary and, if
    some image is right at some layer, first_correct_summary.

    Args:
        tables: performance, lens and attention of all models, as in `StudyTables`.
        bootstrap: arguments resamples, level and seed of every interval; the defaults when None.
    """
    from mechvit import analysis

    settings = bootstrap or {}
    first = analysis.first_correct(tables["lens"])
    found = {
        "first_correct": first,
        "performance_summary": analysis.performance_summary(tables["performance"], **settings),
        "lens_summary": analysis.lens_summary(tables["lens"], **settings),
        "attention_summary": analysis.attention_summary(tables["attention"], **settings),
    }
    if len(first):
        base = "base" if "base" in set(first["model"]) else None  # None if the base is never right
        found["first_correct_summary"] = analysis.first_correct_summary(first, base=base, **settings)
    return found
