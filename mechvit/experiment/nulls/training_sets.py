"""The images of a recipe: those of the tuned model's training, and clean ones on which divergences are measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechvit.data.content import picture_hashes
from mechvit.data.training_images import recorded_images
from mechvit.settings_checks import SettingError

from .config import NullsConfig

if TYPE_CHECKING:
    import datasets

PARTS = {"images": "finetune", "clean": "finetune_validation"}
"""Folder of the run -> part of the images."""


def prepare_sets(config: NullsConfig, hf_config: Any, processor: Any, folder: Path, say: Callable[[str], None]) -> None:
    """Write the images of the training and the clean ones, resized and with the tuned model's classes.

    Raises:
        ValueError: as in `prepared_images`, or images that the tuned model's record names are not there.
    """
    from mechvit.experiment.image_inputs import prepared_images

    record = recorded_images(config.like).get("training", [])
    limits = {"images": config.limit or len(record) or None, "clean": config.validation_limit}
    for name, part in PARTS.items():
        found = prepared_images(
            config.images,
            part,
            hf_config,
            processor,
            limit=limits[name],
            seed=config.seed,
            bad_files=config.bad_files,
            pixel_range=config.pixel_range,
            unlabelled=config.unlabelled,
            say=say,
            path=folder / name,
        )
        if name == "images" and record:
            chosen_rows(found, record, config)  # refuses images that are not there
    if not record:
        say(f"{config.like} does not record its images: the part `finetune` of {config.images} stands for them")


def training_set(config: NullsConfig, folder: Path) -> datasets.Dataset:
    """Return the images of the training, in its order where it is recorded."""
    import datasets

    images = datasets.load_from_disk(str(folder / "images"))
    record = recorded_images(config.like).get("training", [])
    return images.select(chosen_rows(images, record, config)) if record else images


def chosen_rows(images: datasets.Dataset, record: Sequence[str], config: NullsConfig) -> list[int]:
    """Return the rows of recorded images, by the hashes of their files, in the record's order.

    Raises:
        SettingError: some are not there.
    """
    places: dict[str, list[int]] = {}
    for row, found in enumerate(picture_hashes(images)):
        places.setdefault(found, []).insert(0, row)
    rows = [places[each].pop() if places.get(each) else -1 for each in record]
    if missing := rows.count(-1):
        raise SettingError(
            "images",
            f"must be those that {config.like} was trained on: {missing:,} of the {len(record):,} that it records are "
            f"not among the first {len(images):,} of the part `finetune` of {config.images} with the seed "
            f"{config.seed}; give the images, the limit and the seed of its training",
        )
    return rows
