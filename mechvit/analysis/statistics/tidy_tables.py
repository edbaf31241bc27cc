"""Tensors with one row per image: joined batch by batch, and as tidy pandas frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor


@dataclass(frozen=True)
class PerImage:
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
