"""The benchmark's table: what each method finds by the reading that was chosen for it, with intervals over plants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from .scores import mean_and_interval

if TYPE_CHECKING:
    import pandas as pd


def summarise(
    places: pd.DataFrame, calls: pd.DataFrame, readings: pd.DataFrame, choice: Mapping[str, Mapping[str, str]]
) -> pd.DataFrame:
    """Compute every method's scores over all plants, and over those of each kind, strength and shape.

    Args:
        places: result of `place_scores`.
        calls: result of `detection`.
        readings: the table that both are made from, for the seconds.
        choice: method -> place (branch, head) -> reading.

    Returns:
        method, place, reading, by (all, kind, strength, shape), group, quantity, n (plants), value, low, high.
        Quantities: auroc, auroc_divided (by the null), gain (the second minus the first, plant by plant), called
        (share of changes that are called), false_calls (share of plants that change no function and are called),
        seconds (of one pair).
    """
    import pandas as pd

    rows = []
    for method, chosen in choice.items():
        for place, reading in chosen.items():
            own = places[(places["method"] == method) & (places["reading"] == reading)]
            called = calls[(calls["method"] == method) & (calls["reading"] == reading)]
            seconds = readings[(readings["method"] == method) & (readings["reading"] == reading)]
            about = (method, place, reading)
            for by in ("all", "kind", "strength", "shape"):
                for group, part in own.groupby(by) if by != "all" else [("all", own)]:
                    quantities = {"auroc": part["auroc"], "auroc_divided": part["auroc_divided"]}
                    quantities["gain"] = part["auroc_divided"] - part["auroc"]
                    hits = called[called["pair"].isin(part["pair"]) & called["changes_function"].astype(bool)]
                    hits = hits if by == "all" else hits[hits[by] == group]
                    quantities["called"] = hits["called"].astype(float)
                    rows += [(*about, by, str(group), name, *_row(values)) for name, values in quantities.items()]
            nothing = called[~called["changes_function"].astype(bool)]["called"].astype(float)
            rows.append((*about, "all", "all", "false_calls", *_row(nothing)))
            each = seconds.drop_duplicates(["shape", "base_seed", "pair"])["seconds"]
            rows.append((*about, "all", "all", "seconds", *_row(each)))
    names = ["method", "place", "reading", "by", "group", "quantity", "n", "value", "low", "high"]
    return pd.DataFrame(rows, columns=names)


def _row(values: pd.Series) -> tuple[int, float, float, float]:
    mean, low, high, n = mean_and_interval(values.to_numpy(dtype=np.float64))
    return n, mean, low, high


def table_text(summary: pd.DataFrame) -> str:
    """Return the rows over all plants as a Markdown table, the highest AUROC divided by the null first."""
    whole = summary[summary["by"] == "all"].set_index(["method", "place", "reading", "quantity"])
    keys = list(dict.fromkeys(key[:3] for key in whole.index))
    keys.sort(key=lambda key: -np.nan_to_num(float(whole.loc[(*key, "auroc_divided"), "value"]), nan=-1))
    lines = [
        "| method (reading) | place | plants | AUROC | divided by the null | called | false calls | s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method, place, reading in keys:
        cells = {name: whole.loc[(method, place, reading, name)] for name in ("auroc", "auroc_divided", "called")}
        shown = [f"{c['value']:.2f} [{c['low']:.2f}, {c['high']:.2f}]" for c in cells.values()]
        false, seconds = (whole.loc[(method, place, reading, name)] for name in ("false_calls", "seconds"))
        number = "" if not false["n"] else f"{false['value']:.2f}"
        lines.append(
            f"| {method} ({reading}) | {place} | {int(cells['auroc']['n'])} | {' | '.join(shown)} | {number} | "
            f"{seconds['value']:.2f} |"
        )
    return "\n".join(lines) + "\n"
