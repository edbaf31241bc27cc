"""PIL images to pixels at the model's input size, by the checkpoint's own image processor, without torchvision."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from mechvit.arguments import checked
from mechvit.data.sources.picture import open_picture
from mechvit.files import library_writes, new_folder
from mechvit.models.processors.pixel_values import pixel_scale, resized_bytes

from .content import HASH, picture_hashes, record_content
from .prepared import FIRST, pixel_columns, record_columns

if TYPE_CHECKING:
    import datasets


def unit_pixels(images: Sequence[Any], image_processor: Any) -> UInt8[np.ndarray, "batch 3 height width"]:
    """Run the checkpoint's resize and crop, and stop before rescaling: RGB bytes at the model's input size.

    Args:
        images: pictures as `open_picture` takes them.
        image_processor: the checkpoint's own.

    Raises:
        ValueError: a picture that cannot be read; the processor gives images of several sizes, or has a setting that
            cannot be reproduced.
    """
    pixel_scale(image_processor)  # refuses a processor that is not understood
    return resized_bytes([open_picture(image) for image in images], image_processor)


def normalize(
    images: Float[Tensor, "batch 3 height width"], image_processor: Any
) -> Float[Tensor, "batch 3 height width"]:
    """Rescale and normalise RGB in [0, 1] as the processor does, to the model's `pixel_values`.

    Without a processor the images pass unchanged.

    Raises:
        ValueError: a processor with a setting that cannot be reproduced; the message names it.
    """
    return images if image_processor is None else pixel_scale(image_processor).values(images)


@checked
def prepare(
    dataset: datasets.Dataset,
    image_processor: Any,
    *,
    path: str | os.PathLike[str] | None = None,
    batch_size: int = 64,
) -> datasets.Dataset:
    """Resize every image once, into the columns `pixels` (uint8 [3, height, width]), `label` and `image_id`.

    Other columns of text or numbers are kept (a folder's `path`, groups), except `file`; `sha256` is the hash of each
    image's file, by which it is recognised wherever it is.

    Args:
        dataset: the columns `image`, `label` and `image_id`, as `load_images` returns them.
        image_processor: the checkpoint's own; or a list of those of several models to be compared: where they resize
            differently, each gets its own column (`pixels`, `pixels_2`, ...).
        path: where to keep the result, memory-mapped, so that sets larger than memory work; in memory when None. It is
            written beside `path` and renamed; images prepared there earlier are replaced.

    Raises:
        ValueError: a file that cannot be decoded is named; something else than prepared images is at `path`.
    """
    import datasets

    from mechvit.data.sources.picture_column import opened_here

    columns, dataset = pixel_columns(image_processor), opened_here(dataset)
    hashes = picture_hashes(dataset)

    def resized(images: Sequence[Any]) -> dict[str, np.ndarray]:
        return {name: unit_pixels(images, each) for name, each in columns.items()}

    shapes = {name: pixels.shape[1:] for name, pixels in resized([dataset[0]["image"]]).items()}
    features = datasets.Features(
        {
            **{name: datasets.Array3D(shape=shape, dtype="uint8") for name, shape in shapes.items()},
            "label": dataset.features["label"],
            "image_id": datasets.Value("int64"),
            **_kept(dataset),
            HASH: datasets.Value("string"),
        }
    )
    prepared = dataset.map(
        lambda rows, places: {**resized(rows["image"]), HASH: [hashes[place] for place in places]},
        batched=True,
        with_indices=True,
        batch_size=batch_size,
        remove_columns=[c for c in dataset.column_names if c not in features],
        features=features,
        keep_in_memory=path is None,
        load_from_cache_file=False,
        new_fingerprint=datasets.fingerprint.generate_random_fingerprint(),  # hashing the function takes 0.2 s
        desc="Resizing images",
    )
    record_columns(prepared, columns, dataset)
    if path is None:
        return prepared
    with new_folder(path, "prepared images", overwrite=True) as folder, library_writes(folder):
        prepared.save_to_disk(folder)
        record_content(folder)
    return datasets.load_from_disk(path)


def _kept(dataset: datasets.Dataset) -> dict[str, Any]:
    """Return the features of the columns about an image that stay beside its pixels."""
    import datasets

    replaced = {"image", "label", "image_id", "file", HASH}
    return {
        name: feature
        for name, feature in dataset.features.items()
        if name not in replaced and not name.startswith(FIRST) and isinstance(feature, datasets.Value)
    }
