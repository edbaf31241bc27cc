"""Tensors with one row per image: joined batch by batch, and as tidy pandas frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Self

import numpy as np

from .results import AveragedResult

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

ROUNDING = 1e-3
"""Largest step by which rounding in half precision may carry a share or a cosine beyond its bounds."""


@dataclass(frozen=True, repr=False)
class PerImage(AveragedResult):
    """Tensors with one entry, or one row, per image."""

    @classmethod
    def concatenate(cls, parts: Iterable[Self]) -> Self:
        """Join batches in order."""
        import torch

        parts = list(parts)
        return cls(**{f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(cls)})


def check_columns(frame: pd.DataFrame, *columns: str) -> None:
    """Raise a ValueError that names the columns that a table lacks."""
    if missing := set(columns) - set(frame.columns):
        has = ", ".join(map(str, frame.columns)) or "none"
        raise ValueError(f"the table lacks the columns {', '.join(sorted(missing))}; it has {has}")


def check_known(frame: pd.DataFrame, *columns: str) -> None:
    """Refuse a table without rows, or with missing values in columns that name a row, which pandas would leave out.

    Raises:
        ValueError: a missing column, no rows, or rows without a name, counted.
    """
    check_columns(frame, *columns)
    if len(frame) == 0:
        raise ValueError("the table has no rows; there is nothing to summarise")
    for column in columns:
        if missing := int(frame[column].isna().sum()):
            raise ValueError(f"every row must have a {column}; {missing} of {len(frame)} have none")


def check_numbers(frame: pd.DataFrame, column: str, low: float, high: float = np.inf, *, whole: bool = False) -> None:
    """Refuse a column with another value than a number from `low` to `high`.

    Args:
        frame, column: the table and its column.
        low, high: bounds, which are allowed.
        whole: whether only whole numbers are allowed.

    Raises:
        ValueError: names the first such value.
    """
    kind = frame[column].dtype.kind
    values = frame[column].to_numpy(np.float64) if kind in "iufb" else np.full(len(frame), np.nan)
    wrong = ~((values >= low) & (values <= high)) | (whole & (values != np.floor(values)))
    if wrong.any():
        bounds = f"from {low:g} to {high:g}" if np.isfinite(high) else f"of at least {low:g}"
        raise ValueError(
            f"{column} must hold {'whole ' if whole else ''}numbers {bounds}; {int(wrong.sum())} of {len(frame)} are "
            f"others, as {frame[column].to_numpy()[int(wrong.argmax())]!r}"
        )


def tidy(image_id: Tensor, columns: Mapping[str, Tensor], labels: Mapping[str, object]) -> pd.DataFrame:
    """Return tensors as the rows of a table.

    Args:
        image_id: [images].
        columns: all [images], or all [images, layer]; the latter become one row per image and layer, with the column
            `layer`.
        labels: constant columns put first, as in `{"model": "base", "corruption": "clean"}`.
    """
    import pandas as pd

    arrays = {name: tensor.numpy(force=True) for name, tensor in columns.items()}
    shape = next(iter(arrays.values())).shape
    ids = image_id.numpy(force=True)
    rows: dict[str, np.ndarray] = {"image_id": np.repeat(ids, shape[1]) if len(shape) == 2 else ids}
    if len(shape) == 2:
        rows["layer"] = np.tile(np.arange(shape[1]), shape[0])
    return labelled(pd.DataFrame(rows | {name: array.reshape(-1) for name, array in arrays.items()}), labels)


def labelled(frame: pd.DataFrame, labels: Mapping[str, object]) -> pd.DataFrame:
    """Return a table with more columns, most often constant ones, put first in the given order."""
    return frame.assign(**labels)[[*labels, *frame.columns]]
