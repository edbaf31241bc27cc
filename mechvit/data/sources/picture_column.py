"""Columns of `datasets` whose pictures are decoded by `open_picture`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import datasets

from .bit_depth import checked_range
from .picture import check_ranges, decode, picture_name

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass
class PictureColumn(datasets.Image):
    """A column of pictures, decoded as `mechvit.data.open_picture` does; used like `datasets.Image`.

    images.cast_column("image", PictureColumn(pixel_range=(0, 4095)))
    """

    pixel_range: tuple[float, float] | None = None
    """Values of black and white, for pictures of more than eight bits per channel; see `open_picture`."""
    is_settled: bool = False
    """Whether 16-bit values below 4,096 are accepted, since the set has greater ones."""

    def __post_init__(self) -> None:
        self.pixel_range = checked_range(self.pixel_range)

    def decode_example(self, value: Any, token_per_repo_id: dict[str, Any] | None = None) -> Image:
        """Return an undecoded row as an upright picture in RGB."""
        found = decode(value, self.pixel_range)
        if not self.is_settled:
            check_ranges({picture_name(value): found}, self.pixel_range)
        return found.rgb


def opened_here(dataset: datasets.Dataset) -> datasets.Dataset:
    """Return a data set whose column `image` is decoded by `open_picture`, where `datasets` would decode it.

    Raises:
        ValueError: the column is to be decoded in a mode other than RGB.
    """
    feature = dataset.features.get("image")
    if type(feature) is not datasets.Image:
        return dataset
    if feature.mode not in (None, "RGB"):
        raise ValueError(
            f"the column 'image' is decoded in mode {feature.mode}, and models are shown RGB: cast it to "
            "mechvit.data.PictureColumn()"
        )
    return dataset.cast_column("image", PictureColumn())
