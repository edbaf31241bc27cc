"""Prepared image sets: the column that holds the pixels of each image processor."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mechvit.models.processors.preprocessing import described, resizing_of, unequal

from .image_origin import ORIGIN, descriptions, image_origins

if TYPE_CHECKING:
    import datasets

FIRST = "pixels"
"""Column of the first image processor; those of others are `pixels_2`, `pixels_3`, and so on."""
_RECORD = "mechvit resized by"
"""Key in a set's description, which every view of it keeps, that records how its columns were resized."""
CONTENT = "content"
"""Key of the hashes of its columns (`mechvit.data.content`)."""


def pixel_columns(image_processor: Any) -> dict[str, Any]:
    """Assign a column to each image processor that does not resize like an earlier one.

    Args:
        image_processor: one, or a sequence of them.
    """
    given = image_processor if isinstance(image_processor, Sequence) else [image_processor]
    if not given:
        raise ValueError("images are resized by at least one image processor; got none")
    distinct = {json.dumps(resizing_of(each), sort_keys=True): each for each in reversed(given)}
    kept = [each for each in given if any(each is one for one in distinct.values())]
    return {FIRST if place == 0 else f"{FIRST}_{place + 1}": each for place, each in enumerate(kept)}


def record_columns(prepared: datasets.Dataset, columns: Mapping[str, Any], images: datasets.Dataset) -> None:
    """Record in a set how its columns were resized, and the sources of the images."""
    about = {name: resizing_of(image_processor) for name, image_processor in columns.items()}
    prepared.info.description = json.dumps({_RECORD: about, ORIGIN: image_origins(images)})


def resized_by(dataset: datasets.Dataset) -> dict[str, dict[str, Any] | None]:
    """Read how each column of pixels was resized; None for a set that does not record it.

    Raises:
        ValueError: the set is joined from parts that were resized differently.
    """
    names = [name for name in dataset.column_names if name == FIRST or name.startswith(f"{FIRST}_")]
    about = described_by(dataset).get(_RECORD, {})
    return {name: about.get(name) for name in names}


def described_by(dataset: datasets.Dataset) -> dict[str, Any]:
    """Read `prepare`'s entries from a set's description; empty for any other set.

    Raises:
        ValueError: the set is joined from parts that were resized differently.
    """
    found = descriptions(dataset, _RECORD)
    if any(about[_RECORD] != found[0][_RECORD] for about in found):
        raise ValueError("the images come from data sets that were resized differently: prepare them together")
    return found[0] if len(found) == 1 else {_RECORD: found[0][_RECORD]} if found else {}


def pixel_column(dataset: datasets.Dataset, image_processor: Any) -> str:
    """Return the name of a prepared set's column that holds a model's own pixels.

    Args:
        dataset: as `prepare` returns it; one without a record of its resizing is used as it is.
        image_processor: the model's; None takes the only column.

    Raises:
        ValueError: the set was resized with other settings; the message names those that differ.
    """
    known = resized_by(dataset)
    if image_processor is None:
        if len(known) == 1:
            return next(iter(known))
        raise ValueError(f"the images hold the pixels of several models, {', '.join(known)}: give an image processor")
    wanted = resizing_of(image_processor)
    for name, settings in known.items():
        if settings in (wanted, None):
            return name
    first = next(iter(known.values())) or {}
    raise ValueError(
        f"the images were resized for another model: {described(unequal(first, wanted))} (for these images, and in "
        "this model's image processor). Prepare them with this model's image processor, or a list of several models'"
    )
