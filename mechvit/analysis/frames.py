"""Tensors -> tidy pandas frames: one row an image, or an image and layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor


def check_columns(frame: pd.DataFrame, *columns: str) -> None:
    """Raise a ValueError that names the columns that a table lacks, unless it has all of these."""
    if missing := set(columns) - set(frame.columns):
        has = ", ".join(map(str, frame.columns)) or "none"
        raise ValueError(f"the table lacks the columns {', '.join(sorted(missing))}; it has {has}")


def tidy(image_id: Tensor, columns: Mapping[str, Tensor], labels: Mapping[str, str]) -> pd.DataFrame:
    """Lay tensors out as rows.

    Args:
        image_id: [images].
        columns: all [images], or all [images, layer]; the latter give one row an image and layer, with the column
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
    frame = pd.DataFrame(rows | {name: array.reshape(-1) for name, array in arrays.items()})
    for position, (name, value) in enumerate(labels.items()):
        frame.insert(position, name, value)
    return frame
