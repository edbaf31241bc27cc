"""Sources of images: the embedded photographs, a folder, or a hub data set, all in one form."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from mechvit.arguments import checked
from mechvit.data.image_origin import with_origin
from mechvit.settings_checks import COUNT, SEED, check_number

from .bit_depth import checked_range
from .class_folders import class_files
from .class_names import as_text
from .folder_source import FolderSource
from .image_validation import readable_rows
from .label_columns import check_unlabelled, without_unlabelled
from .photos import SPLITS, load_photos
from .picture import path_text, refuse_needless

if TYPE_CHECKING:
    import datasets

_PART_OF_IMAGE = (
    "train",
    "test",
    "train",
    "sae",
    "train",
    "validation",
    "train",
    "sae",
    "test",
    "train",
)
"""Part of an image by its index in its class: half train, two tenths each test and sae, one tenth validation."""


@checked
def load_images(
    source: str,
    split: str = "test",
    *,
    limit: int | None = None,
    seed: int = 0,
    image_size: int = 64,
    bad_files: Literal["error", "skip"] = "error",
    unlabelled: Literal["error", "skip"] = "error",
    pixel_range: tuple[float, float] | None = None,
) -> datasets.Dataset:
    """Load the images of one split.

    Args:
        source: `photos` (embedded, no download), `folder:PATH` (an image folder with a sub-folder for each class;
            sub-folders called as splits are refused unless they are said to be classes, as in `folder:PATH:class=train`
            of a set of vehicles), or a hub data set's id such as `ILSVRC/imagenet-1k` (its validation split where it
            has one; write `id@train` for another). Where a hub set has several columns of images or classes, name one:
            `uoft-cs/cifar100:label=fine_label` (or `id@train:image=picture:label=species`).
        split: `finetune`, `finetune_validation`, `sae`, `sae_validation` or `test`; `photos` also has `train`, the base
            model's. Images of different parts never overlap: every image of a folder or hub set belongs to one part
            only, and the crops of `photos` come from disjoint cells.
        limit: at most this many images, the first of a class-balanced order; None takes all (of photos: 1,900).
        seed: seed of the random order within classes, or of the crops.
        image_size: side of the crops of `photos`, in pixels; other sources keep their own sizes.
        bad_files: what to do with an image that is truncated, missing or otherwise not readable: `error` names it,
            `skip` leaves it out and warns with names and count.
        unlabelled: what to do with images of a hub set that have no label (None, -1, -100): `error` counts them, `skip`
            leaves them out and warns.
        pixel_range: the values of black and white in pictures of more than eight bits per channel, where they do not
            state them; see `open_picture`, which reads every image.

    Returns:
        The columns `image` (PIL, upright, RGB), `label` (ClassLabel), `image_id` (unique within the source), `file`,
        and of a folder `path`, the file's path below it with / between its parts.

    Raises:
        ValueError: an unknown split, an empty folder or class, a folder that mixes splits and classes or holds a whole
            system, a bad file, 16-bit values of at most 4,095 without a `pixel_range`, or one for pictures of eight
            bits, images without a label, a hub set without images or classes, or with several columns of them.
        ConnectionError, PermissionError: a hub set that cannot be reached, or is gated; the message says what to do.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}; got {split!r}")
    check_number("seed", seed, SEED)
    if limit is not None:
        check_number("limit", limit, COUNT)
    if source == "photos":
        check_number("image_size", image_size, COUNT)
    pixel_range = checked_range(pixel_range)
    check_unlabelled(unlabelled)
    if source == "photos":
        refuse_needless(["photos"], 1, pixel_range)
        return with_origin(load_photos(split, limit=limit, seed=seed, image_size=image_size), source)
    if (folder := FolderSource.parse(source)) is not None:
        rows = with_origin(_folder(folder, bad_files), f"folder:{folder.root.resolve().name}")
    else:
        from .hub import load_hub

        rows = without_unlabelled(load_hub(source), unlabelled, source)
    order = _rows_of_part(np.asarray(rows["label"]), SPLITS[split], seed)
    if len(order) == 0:
        raise ValueError(
            f"{source} has {len(rows)} images, too few to give any to the split {split!r}; ten images or more are "
            "needed, and more of each class to judge a model"
        )
    chosen = readable_rows(rows, order, limit, bad_files, pixel_range)
    from .picture_column import PictureColumn

    return rows.select(chosen).cast_column("image", PictureColumn(pixel_range=pixel_range, is_settled=True))


def count_images(
    source: str, split: str, *, seed: int = 0, bad_files: Literal["error", "skip"] = "error"
) -> int | None:
    """Count the images of a folder's split from file names alone; return None for other sources.

    Raises:
        ValueError: no folder, or one without images, and what `load_images` refuses in files' names.
    """
    if (folder := FolderSource.parse(source)) is None:
        return None
    rows = _folder(folder, bad_files)
    return len(_rows_of_part(np.asarray(rows["label"]), SPLITS[split], seed))


def _rows_of_part(labels: np.ndarray, part: str, seed: int) -> np.ndarray:
    """Return the rows of one part, classes in turn; the part of a row depends only on the labels and the seed."""
    rng = np.random.default_rng(seed)
    place = np.empty(len(labels), dtype=np.int64)
    depth = np.empty(len(labels))
    for label in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == label))
        place[own] = np.arange(len(own)) + label
        depth[own] = np.arange(len(own)) / len(own)
    parts = np.asarray(_PART_OF_IMAGE)[place % len(_PART_OF_IMAGE)]
    order = np.lexsort((labels, depth))
    return order[parts[order] == part]


def _folder(source: FolderSource, bad_files: Literal["error", "skip"]) -> datasets.Dataset:
    """Return every file of every class sub-folder, in sorted order, not yet decoded."""
    import datasets

    names, listed = class_files(source, bad_files)
    files = [os.fspath(path) for _, path in listed]
    columns = {
        "image": [{"path": file, "bytes": None} for file in files],
        "label": [label for label, _ in listed],
        "image_id": list(range(len(listed))),
        "file": files,
        "path": [path.relative_to(source.root).as_posix() for _, path in listed],
    }
    features = datasets.Features(
        {
            "image": datasets.Image(decode=False),
            "label": datasets.ClassLabel(names=_class_names(names, source.root)),
            "image_id": datasets.Value("int64"),
            "file": datasets.Value("string"),
            "path": datasets.Value("string"),
        }
    )
    return datasets.Dataset.from_dict(columns, features=features)


def _class_names(folders: list[str], root: Path) -> list[str]:
    """Return the names of the classes in NFC (macOS stores accents separately); refuse two that coincide."""
    names = [as_text(name) for name in folders]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"{path_text(root)} has two folders called {twice[0]!r}, which differ only in how Unicode composes their "
            "letters: put their images into one"
        )
    return names
