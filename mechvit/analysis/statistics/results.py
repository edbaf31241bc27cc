"""Results of analyses as they are shown: one line as text, a short table in a notebook, a summary over images."""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from .bootstrap import LEVEL, RESAMPLES, interval, resampled_means

if TYPE_CHECKING:
    import pandas as pd

SHOWN_ROWS = 20
"""Rows of a table that a notebook shows."""
LONGEST = 60
"""Longest text of one field in a line."""
Columns = tuple[tuple[str, ...], tuple[str, ...]]
"""Columns that name a row of a summary, and those whose means it holds."""


class OneLine:
    """Something whose repr is one line: its fields, arrays by their shapes."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(_parts(self))})"


class Result(OneLine, ABC):
    """A result of an analysis, whose tables are `to_frame()` and `summary()`."""

    @abstractmethod
    def to_frame(self) -> pd.DataFrame:
        """Return the tidy table."""

    def summary(self) -> pd.DataFrame:
        """Return the table that answers the question; `to_frame()` where that is summed up already."""
        return self.to_frame()

    def _repr_html_(self) -> str:
        """Return the notebook's output: the line, and the first rows of the summary."""
        return table_html(repr(self), self.summary())


class AveragedResult(Result):
    """A result with a row per image, whose summary is means over images."""

    SUMMARISED: ClassVar[Columns] = ((), ())
    """Columns of `to_frame()` that name a row of the summary, and those whose means it holds."""

    def summary(self, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0) -> pd.DataFrame:
        """Return means over images with bootstrap intervals: the columns that name a row (such as layer), quantity, n,
        value, low, high; what no image has (an accuracy without labels) is NaN, from 0 images.
        """
        return means(self.to_frame(), *self.SUMMARISED, resamples=resamples, level=level, seed=seed)


def means(
    table: pd.DataFrame, by: Sequence[str], quantities: Sequence[str], *, resamples: int, level: float, seed: int
) -> pd.DataFrame:
    """Return means over rows with bootstrap intervals: the columns of `by`, quantity, n, value, low, high.

    Args:
        table: rows of images.
        by: columns that name a row of the result.
        quantities: columns that are averaged; missing values are left out.
        resamples, level, seed: settings of the percentile bootstrap.
    """
    import pandas as pd

    rows, unknown = [], (float("nan"),) * 3
    for key, part in table.groupby(list(by), sort=False) if by else [((), table)]:
        for quantity in quantities:
            values = part[quantity].to_numpy(dtype=float, na_value=float("nan"))
            known = values[~pd.isna(values)]
            draws = resampled_means(known[:, None], resamples=resamples, seed=seed)[:, 0] if len(known) else None
            rows.append((*key, quantity, len(known), *(unknown if draws is None else interval(draws, level))))
    return pd.DataFrame(rows, columns=[*by, "quantity", "n", "value", "low", "high"])


def table_html(title: str, table: pd.DataFrame) -> str:
    """Return a title and the first rows of a table as HTML, with the number of the rows that are left out."""
    head = "".join(f"<th>{html.escape(str(name))}</th>" for name in table.columns)
    rows = (
        "".join(f"<td>{_cell(value)}</td>" for value in row) for row in table.head(SHOWN_ROWS).itertuples(index=False)
    )
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    left = len(table) - SHOWN_ROWS
    more = f"<p>{left:,} more row{'' if left == 1 else 's'} in <code>summary()</code></p>" if left > 0 else ""
    whole = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<p><code>{html.escape(title)}</code></p>{whole}{more}"


def _cell(value: object) -> str:
    """Return a table's entry as HTML; nothing for a missing one."""
    if isinstance(value, (float, np.floating)):
        return "" if value != value else f"{value:.4g}"
    return html.escape(str(value))


def _parts(result: object) -> list[str]:
    """Return each field in a few words."""
    parts = []
    for field in fields(result):  # type: ignore[arg-type]
        value = getattr(result, field.name)
        if field.name == "image_id":
            parts.append(f"{len(value):,} images")
        elif not field.name.startswith("_"):
            parts.append(f"{field.name} {_shown(value)}")
    return parts


def _shown(value: object) -> str:
    """Return a value in a few words: an array's shape, a table's rows, a collection's length."""
    if (columns := getattr(value, "columns", None)) is not None and hasattr(value, "iloc"):
        return f"{len(value):,} rows of {len(columns)} columns"  # type: ignore[arg-type]
    if (shape := getattr(value, "shape", None)) is not None and len(shape):
        return f"[{', '.join(map(str, shape))}]"
    if isinstance(value, OneLine):
        return type(value).__name__
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Collection) and not isinstance(value, str):
        return f"of {len(value)}"
    text = " ".join(str(value).split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
