"""Tables as rows of text for the page: Table 1 and the quality of the SAEs."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from mechvit.visualization.figures.performance import COLUMNS, METRIC_TITLES
from mechvit.visualization.figures.saes import ARCHITECTURE_TITLES, architectures
from mechvit.visualization.figures.table_checks import pick, require
from mechvit.visualization.style import in_order, strongest_of_each, title_of, tuned_title

QUALITY = {
    "explained_variance": ("Explained variance", 3),
    "normalised_mse": ("Normalised MSE", 3),
    "l0": ("L0", 1),
    "dead_fraction": ("Dead latents", 3),
    "accuracy_recovered": ("Accuracy recovered", 3),
    "cross_entropy_recovered": ("Cross-entropy recovered", 3),
}
"""Heading and digits of each metric."""


@dataclass(frozen=True, kw_only=True)
class TableCell:
    """One number: its text, a smaller note after it, and whether it is the best of its group."""

    text: str
    note: str = ""
    best: bool = False


@dataclass(frozen=True, kw_only=True)
class RowGroup:
    """Rows under one heading: (model key, row title, cells)."""

    title: str
    rows: list[tuple[str, str, list[TableCell]]]


def table_one(summary: pd.DataFrame) -> tuple[list[str], list[RowGroup]]:
    """Return Table 1 on each family's strongest corruption: column titles, and one group per corruption.

    The note of each cell is half the width of its interval; the best value of a column in a group is marked.

    Raises:
        ValueError: a column is missing or the table is empty.
    """
    require(summary, COLUMNS, "performance_summary")
    groups = []
    for corruption in strongest_of_each(summary["corruption"]):
        part = pick(summary, corruption=corruption)
        best = {
            metric: pick(part, metric=metric)["value"].agg("min" if metric == "ece" else "max")
            for metric in METRIC_TITLES
        }
        rows = []
        for model in in_order(part["model"]):
            cells = []
            for metric in METRIC_TITLES:
                row = pick(part, model=model, metric=metric).iloc[0]
                if pd.isna(row.value):  # top-k with at most k classes
                    cells.append(TableCell(text="n/a"))
                    continue
                cells.append(
                    TableCell(
                        text=f"{row.value:.3f}",
                        note=f"± {(row.high - row.low) / 2:.3f}",
                        best=bool(row.value == best[metric]),
                    )
                )
            rows.append((model, tuned_title(model), cells))
        groups.append(RowGroup(title=f"On {title_of(corruption)}", rows=rows))
    return list(METRIC_TITLES.values()), groups


def sae_quality(quality: pd.DataFrame) -> tuple[list[str], list[RowGroup]]:
    """Return the quality of every SAE on every kind of image: column titles, and one group per architecture.

    Raises:
        ValueError: a column is missing or the table is empty.
    """
    require(quality, ("model", "architecture", "corruption", "metric", "value"), "sae_quality")
    metrics = [name for name in QUALITY if name in set(quality["metric"])]
    groups = []
    for kind in architectures(quality):
        part, rows = pick(quality, architecture=kind), []
        for model in in_order(part["model"]):
            for corruption in in_order(pick(part, model=model)["corruption"]):
                values = pick(part, model=model, corruption=corruption).set_index("metric")["value"]
                cells = [
                    TableCell(text=f"{values[name]:.{QUALITY[name][1]}f}" if name in values else "–")
                    for name in metrics
                ]
                images = "clean images" if corruption == "clean" else title_of(corruption)
                rows.append((model, f"{title_of(model, short=True)}, on {images}", cells))
        groups.append(RowGroup(title=ARCHITECTURE_TITLES[kind], rows=rows))
    return [QUALITY[name][0] for name in metrics], groups
