"""Streams of image batches for analyses and training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvit.terminal import progress_bar

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
    rows: np.ndarray | None = None,
    device: torch.device | str = "cpu",
    progress: str | None = None,
) -> Iterator[ImageBatch]:
    """Stream a data set in order, one `ImageBatch` at a time.

    Args:
        dataset: prepared (`pixels`, see `prepare`) or raw (`image`), with `label` and `image_id`.
        image_processor: the checkpoint's own; needed for raw images only.
        batch_size: images a batch; the last one may be smaller.
        rows: the images to take, in this order; all in order when None.
        device: where the batch is put.
        progress: the label of a progress bar; None shows none.

    Raises:
        ValueError: a column is missing, or raw images come without a processor.
    """
    columns = set(dataset.column_names)
    if missing := {"label", "image_id"} - columns:
        raise ValueError(f"the data set lacks {', '.join(sorted(missing))}; load it with mechvit.data.load_images")
    if "pixels" not in columns and ("image" not in columns or image_processor is None):
        raise ValueError(
            "the data set must have the column 'pixels' (mechvit.data.prepare), or 'image' together with an image "
            f"processor; got the columns {sorted(columns)} and image_processor={image_processor!r}"
        )
    column = "pixels" if "pixels" in columns else "image"
    rows = np.arange(len(dataset)) if rows is None else np.asarray(rows)
    stored = dataset.select_columns([column])
    about = dataset.select_columns(["label", "image_id"]).with_format("numpy")[:]
    views = _pixel_views(dataset) if column == "pixels" else None
    for start in progress_bar(range(0, len(rows), batch_size), progress, unit="batch", leave=False):
        chosen = rows[start : start + batch_size]
        if views is not None:
            pixels = np.stack([part[row] for part, row in _places(views, chosen)])
        elif column == "pixels":
            pixels = np.array(stored.with_format("numpy")[chosen][column])
        else:
            pixels = unit_pixels(stored[chosen][column], image_processor)
        yield ImageBatch(
            images=torch.from_numpy(pixels).to(device).to(torch.float32).div_(255),
            labels=torch.as_tensor(about["label"][chosen], dtype=torch.int64, device=device),
            image_ids=torch.as_tensor(about["image_id"][chosen], dtype=torch.int64, device=device),
        )


def _pixel_views(dataset: datasets.Dataset) -> tuple[list[np.ndarray], np.ndarray] | None:
    """The parts of the column `pixels` in Arrow's own memory, and the row at which each ends.

    datasets' gather takes 0.1 ms an image, as long as a small ViT takes for it. None where rows are picked from others.
    """
    if dataset._indices is not None:
        return None
    shape = dataset.features["pixels"].shape
    parts = []
    for chunk in dataset.data.column("pixels").chunks:
        flat = chunk.storage
        for _ in shape:
            flat = flat.flatten()
        parts.append(flat.to_numpy().reshape(-1, *shape))
    return parts, np.cumsum([len(part) for part in parts])


def _places(views: tuple[list[np.ndarray], np.ndarray], rows: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """The part in which each row lies, and its place there."""
    parts, ends = views
    for row, part in zip(rows, np.searchsorted(ends, rows, side="right"), strict=True):
        yield parts[part], int(row - ends[part] + len(parts[part]))
