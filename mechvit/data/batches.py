"""Streams of image batches for analyses and training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from .pixels import unit_pixels

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True)
class ImageBatch:
    """Images in [0, 1] at the model's input size, with their labels and ids."""

    images: Float[Tensor, "batch 3 height width"]
    labels: Int[Tensor, " batch"]
    image_ids: Int[Tensor, " batch"]

    def __len__(self) -> int:
        return self.images.shape[0]


def iter_batches(
    dataset: datasets.Dataset,
    image_processor: Any = None,
    batch_size: int = 128,
    *,
    device: torch.device | str = "cpu",
    progress: str | None = None,
) -> Iterator[ImageBatch]:
    """Stream a data set in order, one `ImageBatch` at a time.

    Args:
        dataset: prepared (`pixels`, see `prepare`) or raw (`image`), with `label` and `image_id`.
        image_processor: the checkpoint's own; needed for raw images only.
        batch_size: images a batch; the last one may be smaller.
        device: where the batch is put.
        progress: the label of a progress bar; None shows none.

    Raises:
        ValueError: a column is missing, or raw images come without a processor.
    """
    from tqdm.auto import tqdm

    columns = set(dataset.column_names)
    if missing := {"label", "image_id"} - columns:
        raise ValueError(f"the data set lacks {', '.join(sorted(missing))}; load it with mechvit.data.load_images")
    if "pixels" not in columns and ("image" not in columns or image_processor is None):
        raise ValueError(
            "the data set must have the column 'pixels' (mechvit.data.prepare), or 'image' together with an image "
            f"processor; got the columns {sorted(columns)} and image_processor={image_processor!r}"
        )
    column = "pixels" if "pixels" in columns else "image"
    rows = dataset.select_columns([column, "label", "image_id"])
    if column == "pixels":
        rows = rows.with_format("numpy")
    starts = range(0, len(rows), batch_size)
    for start in tqdm(starts, desc=progress, unit="batch", disable=progress is None, leave=False):
        batch = rows[start : start + batch_size]
        pixels = batch[column] if column == "pixels" else unit_pixels(batch["image"], image_processor)
        yield ImageBatch(
            images=torch.from_numpy(np.array(pixels)).to(device).to(torch.float32).div_(255),
            labels=torch.as_tensor(batch["label"], dtype=torch.int64, device=device),
            image_ids=torch.as_tensor(batch["image_id"], dtype=torch.int64, device=device),
        )
