"""Streams of image batches for analyses and training."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvit.argument_hints import got
from mechvit.arguments import checked
from mechvit.models.processors.preprocessing import resizing_of
from mechvit.settings_checks import COUNT, check_number
from mechvit.terminal import progress_bar

from .pixels import unit_pixels
from .prepared import pixel_column, resized_by

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True)
class ImageBatch:
    """Images in [0, 1] at the model's input size, with their labels and ids."""

    images: Float[Tensor, "batch 3 height width"]
    labels: Int[Tensor, " batch"]
    image_ids: Int[Tensor, " batch"]
    resized_by: str | None = None
    """`mechvit.models.processors.preprocessing.resizing_key` of the processor that resized them; None if unknown."""
    paths: tuple[str, ...] | None = None
    """Each image's path below its folder, by which its partner in another folder is found; None if unknown."""

    def __post_init__(self) -> None:
        found = [tuple(getattr(part, "shape", ())) for part in (self.images, self.labels, self.image_ids)]
        tensors = all(isinstance(part, Tensor) for part in (self.images, self.labels, self.image_ids))
        if not tensors or len(found[0]) != 4 or found[1:] != [found[0][:1]] * 2 or not self.images.is_floating_point():
            one = ": one image is a batch too, images[None]" if len(found[0]) == 3 else ""
            raise ValueError(
                "an ImageBatch holds tensors: images in [0, 1], [batch, channel, height, width], labels [batch] and "
                f"image_ids [batch]; got {got(self.images)}, {got(self.labels)} and {got(self.image_ids)}{one}"
            )

    def __len__(self) -> int:
        return self.images.shape[0]

    def take(self, rows: slice | np.ndarray | Int[Tensor, " row"]) -> ImageBatch:
        """Return some of the images, in the order of `rows`."""
        paths = self.paths
        if paths is not None:
            chosen = rows.cpu().numpy() if isinstance(rows, Tensor) else rows
            paths = tuple(np.asarray(paths, dtype=object)[chosen])
        return ImageBatch(self.images[rows], self.labels[rows], self.image_ids[rows], self.resized_by, paths)

    def to(self, device: torch.device | str) -> ImageBatch:
        """Return the same images on a device."""
        images, labels, image_ids = (part.to(device) for part in (self.images, self.labels, self.image_ids))
        return ImageBatch(images, labels, image_ids, self.resized_by, self.paths)


@checked
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
        image_processor: the checkpoint's own; needed for raw images, and for those prepared for several models.
        batch_size: images per batch; the last one may be smaller.
        rows: the images to take, in this order; all in order when None.
        device: the batch's device.
        progress: the label of a progress bar; None shows none.

    Raises:
        ValueError: a column is missing, labels are not whole numbers, raw images come without a processor, or the
            images were prepared with other settings than the processor's (named).
    """
    columns = set(dataset.column_names)
    if missing := {"label", "image_id"} - columns:
        raise ValueError(f"the data set lacks {', '.join(sorted(missing))}; load it with mechvit.data.load_images")
    if "pixels" not in columns and ("image" not in columns or image_processor is None):
        raise ValueError(
            "the data set must have the column 'pixels' (mechvit.data.prepare), or 'image' together with an image "
            f"processor; got the columns {sorted(columns)} and image_processor={image_processor!r}"
        )
    check_number("batch_size", batch_size, COUNT)
    column = pixel_column(dataset, image_processor) if "pixels" in columns else "image"
    settings = resizing_of(image_processor) if column == "image" else resized_by(dataset)[column]
    key = None if settings is None else json.dumps(settings, sort_keys=True)
    if column == "image":
        from mechvit.data.sources.picture_column import opened_here

        dataset = opened_here(dataset)
    rows = np.arange(len(dataset)) if rows is None else np.asarray(rows)
    stored = dataset.select_columns([column])
    about = dataset.select_columns(["label", "image_id"]).with_format("numpy")[:]
    _check_labels(about["label"])
    paths = np.asarray(dataset["path"][:], dtype=object) if "path" in columns else None
    views = _pixel_views(dataset, column) if column != "image" else None
    for start in progress_bar(range(0, len(rows), batch_size), progress, unit="batch", leave=False):
        chosen = rows[start : start + batch_size]
        if views is not None:
            pixels = np.stack([part[row] for part, row in _places(views, chosen)])
        elif column != "image":
            pixels = np.array(stored.with_format("numpy")[chosen][column])
        else:
            pixels = unit_pixels(stored[chosen][column], image_processor)
        yield ImageBatch(
            images=torch.from_numpy(pixels).to(device).to(torch.float32).div_(255),
            labels=torch.as_tensor(about["label"][chosen], dtype=torch.int64, device=device),
            image_ids=torch.as_tensor(about["image_id"][chosen], dtype=torch.int64, device=device),
            resized_by=key,
            paths=None if paths is None else tuple(paths[chosen]),
        )


def _check_labels(labels: np.ndarray) -> None:
    """Refuse missing, textual and fractional labels, which would otherwise become other numbers in silence."""
    if labels.dtype.kind in "iu" and labels.ndim == 1:
        return
    if labels.dtype.kind == "f" and np.isnan(labels).any():
        raise ValueError(
            f"{np.isnan(labels).sum()} of {len(labels)} images have no label; leave them out "
            "(mechvit.data.load_images, unlabelled='skip'), or give them the label -1 where nothing asks for labels"
        )
    raise ValueError(
        f"labels must be whole numbers, one per image, the model's class ids; got {labels.dtype} in the shape "
        f"{list(labels.shape)}: map them with mechvit.data.align_labels"
    )


def _pixel_views(dataset: datasets.Dataset, column: str) -> tuple[list[np.ndarray], np.ndarray] | None:
    """Return views of a column's pixels in Arrow's memory, and the row at which each part ends.

    datasets' gather takes 0.1 ms per image, as long as a small ViT's forward pass. None where rows are a selection of
    others.
    """
    if dataset._indices is not None:
        return None
    shape = dataset.features[column].shape
    parts = []
    for chunk in dataset.data.column(column).chunks:
        flat = chunk.storage
        for _ in shape:
            flat = flat.flatten()
        parts.append(flat.to_numpy().reshape(-1, *shape))
    return parts, np.cumsum([len(part) for part in parts])


def _places(views: tuple[list[np.ndarray], np.ndarray], rows: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """Return, for each row, its part and its index there."""
    parts, ends = views
    for row, part in zip(rows, np.searchsorted(ends, rows, side="right"), strict=True):
        yield parts[part], int(row - ends[part] + len(parts[part]))
