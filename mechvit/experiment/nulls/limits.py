"""Clean-tuned nulls beside a comparison: which models they are, and the limits that they give its tables."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mechvit.files.reading import read_object
from mechvit.settings_checks import SettingError

from .config import KINDS
from .make import LIST
from .pair import identity

if TYPE_CHECKING:
    import datasets
    import pandas as pd

FEWEST = 2
"""Fewest nulls that give limits."""
PREFIX = "null-"
"""Beginning of the names of nulls in a comparison's folder."""


class NullRows(NamedTuple):
    """The difference that a table of a comparison holds, for its limits."""

    on: tuple[str, ...]
    """Columns that name a row."""
    value: str
    """Column of the difference of the tuned model, or of its own quantity beside a base that is always the same."""
    within: tuple[str, ...]
    """Columns within whose values variances are moderated."""


NULL_SECTIONS = ("behaviour", "depth", "attention", "weights", "difference", "causes", "conditions")
"""Sections that nulls are measured in; of causes, the swaps of single blocks alone."""
NULL_ROWS: dict[str, NullRows] = {
    "behaviour_summary": NullRows(
        ("head", "condition", "by", "group", "quantity"), "value", ("head", "by", "quantity")
    ),
    "residual_cosine": NullRows(("condition", "tokens", "layer"), "cosine", ("condition", "tokens")),
    "cka": NullRows(("condition", "layer_base", "layer_tuned"), "cka", ("condition",)),
    "lens": NullRows(
        ("head", "model", "corruption", "lens", "layer", "quantity"),
        "value",
        ("head", "model", "corruption", "lens", "quantity"),
    ),
    "depth_change": NullRows(
        ("head", "model", "corruption", "lens", "subset"), "change", ("head", "model", "lens", "subset")
    ),
    "attention_heads": NullRows(("condition", "layer", "head", "quantity"), "value", ("condition", "quantity")),
    "attention_layers": NullRows(("condition", "layer", "quantity"), "value", ("condition", "quantity")),
    "weight_change": NullRows(("weight",), "relative", ()),
    "weight_parts": NullRows(("part",), "relative", ()),
    "difference": NullRows(("tokens", "layer"), "norm", ("tokens",)),
    "swaps": NullRows(
        ("direction", "corruption", "kind", "part", "k", "quantity"),
        "change",
        ("direction", "corruption", "kind", "quantity"),
    ),
    "performance_summary": NullRows(("head", "model", "corruption", "metric"), "gain", ("head", "model", "metric")),
    "lens_summary": NullRows(("head", "model", "corruption", "layer"), "probability", ("head", "model", "corruption")),
    "attention_summary": NullRows(
        ("head", "model", "corruption", "layer", "quantity"), "value", ("head", "model", "corruption", "quantity")
    ),
    "first_correct_summary": NullRows(("head", "model", "corruption"), "difference", ("head", "model")),
}
"""Table -> its difference. Shares of a gain have no null: clean-tuned models gain nothing that could be shared."""


def given_nulls(folders: Sequence[str], base: str) -> dict[str, dict[str, Any]]:
    """Return name -> facts and checkpoint of the clean-tuned nulls that folders hold.

    Args:
        folders: folders that `make_nulls` wrote, or checkpoints of clean-tuned models of one's own.
        base: checkpoint of the base.

    Raises:
        ValueError: a folder is neither, its nulls are of another base, or there are fewer than two clean-tuned ones.
    """
    found: dict[str, dict[str, Any]] = {}
    for folder in folders:
        path = Path(folder).expanduser()
        if (path / LIST).is_file():
            rows = _made_nulls(path, base)
        elif (path / "config.json").is_file():
            rows = [{"name": path.resolve().name, "checkpoint": os.fspath(path), "kind": "clean"}]
        else:
            raise SettingError(
                "nulls",
                f"must be folders of null models, with a {LIST}, or checkpoints of clean-tuned models; {folder} "
                "is neither",
            )
        for row in rows:
            name = PREFIX + row["name"]
            found[name if name not in found else f"{name}-{len(found)}"] = row
    if folders and len(found) < FEWEST:
        raise SettingError("nulls", f"must hold at least {FEWEST} clean-tuned models for limits; got {len(found)}")
    return found


def _made_nulls(folder: Path, base: str) -> list[dict[str, Any]]:
    """Return the clean-tuned nulls of a folder; drift and seeds give no limits."""
    about = read_object(folder / LIST, ("nulls", "identity", "tuned"))
    if about["identity"]["base"] != identity(base):
        raise SettingError("nulls", f"must be of the base that is compared; those in {folder} are of {about['base']}")
    common = {"like": about["tuned"]}
    return [
        {**row, **common, "checkpoint": os.fspath(folder / row["name"])}
        for row in about["nulls"]
        if row["kind"] == "clean"
    ]


def null_facts(nulls: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return what a report says of the nulls: how many, the question that they answer, and each one's recipe."""
    if not nulls:
        return {}
    kind = KINDS["clean"]
    names = ("checkpoint", "seed", "steps", "divergence", "like")
    rows = [{"name": name, **{key: row.get(key) for key in names}} for name, row in nulls.items()]
    words = {"title": kind.title, "question": kind.question, "made": kind.made, "reading": kind.reading}
    return {**words, "count": len(rows), "models": rows}


def check_null(name: str, checkpoint: str, images: datasets.Dataset) -> None:
    """Refuse a null that was trained on images that are compared.

    Raises:
        SettingError: says how many.
    """
    from mechvit.data.content import picture_hashes
    from mechvit.data.training_images import trained_on

    known = trained_on(checkpoint)
    if known and (seen := sum(each in known for each in picture_hashes(images))):
        raise SettingError(
            "nulls", f"must not be trained on what is compared; {name} was on {seen:,} of these {len(images):,} images"
        )


def with_limits(
    tables: Mapping[str, pd.DataFrame], nulls: Mapping[str, pd.DataFrame], count: int
) -> dict[str, pd.DataFrame]:
    """Return a comparison's tables, those of differences with null_low, null_high, z_null and null_df.

    Args:
        tables: the tables of the tuned models.
        nulls: the same of the nulls, which the column `null` names.
        count: number of nulls; a row that not every null has, or that is not finite there, has no limits.
    """
    return {name: _limited(name, table, nulls.get(name), count) for name, table in tables.items()}


def _limited(name: str, table: pd.DataFrame, nulls: pd.DataFrame | None, count: int) -> pd.DataFrame:
    import numpy as np

    from mechvit.analysis.statistics import with_null
    from mechvit.analysis.statistics.nulls.prediction_limits import COLUMNS

    if name not in NULL_ROWS:
        return table
    rows = NULL_ROWS[name]
    known = None if nulls is None else nulls[np.isfinite(nulls[rows.value].to_numpy(dtype=np.float64))]
    if known is not None:
        known = known[known.groupby(list(rows.on), dropna=False)[rows.value].transform("size") == count]
    if known is None or known.empty:
        return table.assign(**dict.fromkeys(COLUMNS, np.nan))
    return with_null(table, known, on=rows.on, value=rows.value, within=rows.within)


def measured_sections(done: Mapping[str, Collection[str]]) -> tuple[str, ...]:
    """Return the sections that nulls are measured in: those of some tuned model."""
    return tuple(name for name in NULL_SECTIONS if any(name in sections for sections in done.values()))
