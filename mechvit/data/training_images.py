"""Images that a checkpoint was trained on: their record beside it, and comparisons without them.

An image is recognised by the hash of its file, so that a file that was renamed, moved or copied is the same image.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mechvit.arguments import checked
from mechvit.files import write_table

from .content import HASH, picture_hashes

if TYPE_CHECKING:
    import datasets

RECORD = "training_images.parquet"
"""File beside a checkpoint: image_id, sha256 and use (`training`, or `validation` by which the epoch was chosen)."""


def record_training_images(folder: Path, training: datasets.Dataset, validation: datasets.Dataset | None) -> None:
    """Write which images a checkpoint in `folder` was trained on, and by which its epoch was chosen, if by any.

    Sets that were prepared without hashes are not recorded.
    """
    import pandas as pd

    parts = [
        pd.DataFrame({"image_id": images["image_id"][:], HASH: images[HASH][:], "use": use})
        for use, images in (("training", training), ("validation", validation))
        if images is not None and HASH in images.column_names
    ]
    if parts:
        write_table(folder / RECORD, pd.concat(parts, ignore_index=True))


def trained_on(checkpoint: str | os.PathLike[str]) -> frozenset[str]:
    """Return the hashes of what a checkpoint was trained on or its epoch chosen by; see `recorded_images`."""
    return frozenset(hashed for own in recorded_images(checkpoint).values() for hashed in own)


def recorded_images(checkpoint: str | os.PathLike[str]) -> dict[str, list[str]]:
    """Return use (`training`, `validation`) -> hashes, in order, of the images that a checkpoint's record names.

    The result is empty for a checkpoint without a record, and for one that is not a local folder.

    Raises:
        ValueError: the record cannot be read.
    """
    import pandas as pd

    path = Path(checkpoint).expanduser() / RECORD
    if not path.is_file():
        return {}
    try:
        found = pd.read_parquet(path, columns=[HASH, "use"])
        return {str(use): list(rows[HASH]) for use, rows in found.groupby("use", sort=False)}
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"{path}, the record of what the checkpoint was trained on, cannot be read ({error}): copy the checkpoint "
            "again"
        ) from error


@checked
def without_training_images(
    images: datasets.Dataset, checkpoints: Collection[str | os.PathLike[str]]
) -> tuple[datasets.Dataset, int]:
    """Return the images that no checkpoint was trained on nor its epoch chosen by, and the number left out.

    Args:
        images: prepared or raw.
        checkpoints: folders as `mechvit.finetuning.finetune` writes them; those without a record count as trained on
            none of the images.

    Raises:
        ValueError: no image is left.
    """
    if not (known := all_trained_on(checkpoints)):
        return images, 0
    seen = np.asarray([each in known for each in picture_hashes(images)])
    if seen.all():
        raise nothing_left(len(images), checkpoints)
    return (images.select(np.flatnonzero(~seen)), int(seen.sum())) if seen.any() else (images, 0)


def all_trained_on(checkpoints: Iterable[str | os.PathLike[str]]) -> frozenset[str]:
    """Return the hashes of the images that any of some checkpoints was trained on, or its epoch chosen by."""
    return frozenset().union(*(trained_on(each) for each in checkpoints))


def nothing_left(count: int, checkpoints: Iterable[str | os.PathLike[str]]) -> ValueError:
    """Return the error of a set of images that the checkpoints were trained on, all of them."""
    named = ", ".join(os.fspath(each) for each in checkpoints if trained_on(each))
    return ValueError(f"all {count:,} images are some that {named} was trained on, or its epoch chosen by: give others")
