"""The reading of each method, chosen on development plants and frozen before test plants are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechvit.analysis.statistics.tidy_tables import check_columns
from mechvit.arguments import checked
from mechvit.experiment.runs.stages import digest
from mechvit.files.reading import read_object

if TYPE_CHECKING:
    import pandas as pd

FROZEN = Path(__file__).with_name("frozen_readings.json")
Choice = Mapping[str, Mapping[str, str]]
"""Method -> place (branch, head) -> reading."""


@checked
def choose_readings(scores: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Return, for each method and each place, the reading whose AUROC divided by the null is highest on average.

    Ties go to the higher plain AUROC, then to the first in the order of names.

    Args:
        scores: result of `place_scores`, of development plants.
    """
    check_columns(scores, "method", "place", "reading", "auroc", "auroc_divided")
    means = scores.groupby(["method", "place", "reading"])[["auroc_divided", "auroc"]].mean().reset_index()
    order = means.sort_values(["auroc_divided", "auroc", "reading"], ascending=[False, False, True], kind="stable")
    found: dict[str, dict[str, str]] = {}
    for row in order.drop_duplicates(["method", "place"]).sort_values(["method", "place"]).itertuples():
        found.setdefault(str(row.method), {})[str(row.place)] = str(row.reading)
    return found


def sealed(readings: Choice, plan: Any) -> dict[str, Any]:
    """Return what is frozen: the readings, the plan of the development plants, and the hash of both."""
    return {"readings": readings, "developed_on": plan, "sha256": digest([readings, plan])}


@checked
def frozen_readings(path: Path = FROZEN) -> dict[str, dict[str, str]]:
    """Return the frozen choice.

    Raises:
        ValueError: it is not what its hash says.
    """
    found = read_object(path, ("readings", "developed_on", "sha256"))
    if digest([found["readings"], found["developed_on"]]) != found["sha256"]:
        raise ValueError(
            f"{path} must be as it was frozen, and its hash differs: choose readings on development plants again"
        )
    readings: dict[str, dict[str, str]] = found["readings"]
    return readings
