"""Sources of images: the embedded photographs, a folder, or a hub data set, all in one form."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from mechvit.arguments import checked
from mechvit.data.image_origin import with_origin
from mechvit.settings_checks import COUNT, SEED, check_number
from mechvit.terminal import silent

from .bit_depth import checked_range
from .folder_source import FolderSource
from .folders.folder_rows import PART_OF_IMAGE, ChosenRows, folder_part, rows_in_turn
from .image_validation import ReadableRows, readable_rows
from .label_columns import NoLabels, check_unlabelled, without_unlabelled
from .photos import SPLITS, load_photos
from .picture import path_text, refuse_needless

if TYPE_CHECKING:
    import datasets

ALL = "all"
"""Split of all images."""


@checked
def load_images(
    source: str,
    split: str = ALL,
    *,
    limit: int | None = None,
    seed: int = 0,
    image_size: int = 64,
    bad_files: Literal["error", "skip"] = "error",
    unlabelled: Literal["error", "skip", "keep"] = "error",
    pixel_range: tuple[float, float] | None = None,
    groups: str | None = None,
    cluster: str | None = None,
    apart_from: Collection[str | os.PathLike[str]] = (),
    say: Callable[[str], None] | None = None,
) -> datasets.Dataset:
    """Load images: all of a source, or the images of one part of it.

    Args:
        source: `photos` (embedded, no download); `folder:DIR` (an image folder with a sub-folder for each class, or
            images without labels; where it has train, val or test folders one is named, as in `folder:DIR@val`, unless
            they are said to be classes, as in `folder:DIR:class=train` of a set of vehicles); or a hub data set's id
            (its validation split where it has one; write `id@train` for another, and `id:config@train` where it has
            several configs). Where a hub set has several columns of images or classes, name one:
            `uoft-cs/cifar100:label=fine_label` (or `id@train:image=picture:label=species`).
        split: `all`; or a part, `finetune`, `finetune_validation`, `sae`, `sae_validation` or `test`; `photos` also has
            `train`, the base model's, and all of it are the crops of its part `test`. Images of different parts never
            overlap: every image of a folder or hub set belongs to one part only, and the crops of `photos` come from
            disjoint cells. A folder that consists of train, val and test folders has these as its parts (`finetune` and
            `sae` are both train).
        limit: at most this many images, the first of a class-balanced order; None takes all (of photos: 1,900).
        seed: seed of the random order within classes, or of the crops.
        image_size: side of the crops of `photos`, in pixels; other sources keep their own sizes.
        bad_files: what to do with an image that is truncated, missing or otherwise not readable: `error` names it,
            `skip` leaves it out and warns with names and count.
        unlabelled: what to do with images that have no label (a folder's without sub-folders; of a hub set None, -1,
            -100): `error` counts them, `skip` leaves them out and warns, `keep` keeps them with the label -1.
        pixel_range: the values of black and white in pictures of more than eight bits per channel, where they do not
            state them; see `open_picture`, which reads every image.
        groups: what the images of a folder are grouped by, in columns of text: `parent`, a regular expression with
            named groups, or a table; see `mechvit.data.sources.folders.groups`.
        cluster: what images of a folder share that are not independent of each other (patient, scene, video), as the
            column of text `cluster`: the name of a group, `parent`, a regular expression with a group `cluster`, or a
            table with such a column; these may have a `stratum` too. The crops of `photos` have both by themselves: the
            cell that a crop lies in, and its photograph.
        apart_from: checkpoints; images that one of them was trained on, or its epoch chosen by, are left out before the
            limit counts (see `without_training_images`).
        say: receives one line on which images these are, as in "36 of 180 images: the part `test`", and one on how many
            were left out.

    Returns:
        The columns `image` (PIL, upright, RGB), `label` (ClassLabel), `image_id` (unique within the source), `file`,
        of a folder `path`, the file's path below it with / between its parts, and the groups and clusters.

    Raises:
        ValueError: an unknown split, an empty folder or class, a folder that mixes splits and classes or holds a whole
            system, a bad file, 16-bit values of at most 4,095 without a `pixel_range`, or one for pictures of eight
            bits, images without a label, a hub set without images or classes, or with several columns of them, groups
            that do not fit the images, or no image that no checkpoint was trained on. It is `NoLabels` where no image
            has a label.
        ConnectionError, PermissionError: a hub set that cannot be reached, or is gated; the message says what to do.
    """
    if split != ALL and split not in SPLITS:
        raise ValueError(f"split must be {ALL} or one of {', '.join(SPLITS)}; got {split!r}")
    check_number("seed", seed, SEED)
    if limit is not None:
        check_number("limit", limit, COUNT)
    if source == "photos":
        check_number("image_size", image_size, COUNT)
    pixel_range = checked_range(pixel_range)
    check_unlabelled(unlabelled)
    folder = FolderSource.parse(source)
    if groups is not None and folder is None:
        raise ValueError(f"groups are of the files of a folder (folder:DIR); got {source}")
    if cluster is not None and folder is None:
        own = ", whose crops have clusters of their own" if source == "photos" else ""
        raise ValueError(f"clusters are of the files of a folder (folder:DIR); got {source}{own}")
    if source == "photos":
        refuse_needless(["photos"], 1, pixel_range)
        part = "test" if split == ALL else split
        from mechvit.data.training_images import without_training_images

        photos = load_photos(part, limit=limit, seed=seed, image_size=image_size)
        photos, left_out = without_training_images(photos, apart_from)
        _say(say, f"{len(photos):,} images: crops of photographs, the part `{SPLITS[part]}`", left_out)
        return with_origin(photos, source)
    part = SPLITS.get(split, ALL)
    if folder is not None:
        found = folder_part(folder, part, seed, bad_files, groups=groups, cluster=cluster)
    else:
        found = _hub_part(source, part, seed, unlabelled)
    _check_found(found, source, split, unlabelled)
    chosen = _readable(found.rows, found.order, limit, bad_files, pixel_range, list(apart_from))
    _say(say, _line(found, part, chosen), chosen.left_out)
    from .picture_column import PictureColumn

    return found.rows.select(chosen.rows).cast_column("image", PictureColumn(pixel_range=pixel_range, is_settled=True))


@checked
def load_pictures(
    pictures: Sequence[str | os.PathLike[str]],
    *,
    limit: int | None = None,
    bad_files: Literal["error", "skip"] = "error",
    pixel_range: tuple[float, float] | None = None,
    groups: str | None = None,
    cluster: str | None = None,
    apart_from: Collection[str | os.PathLike[str]] = (),
    say: Callable[[str], None] | None = None,
) -> datasets.Dataset:
    """Load picture files, in the given order, as images without labels.

    Args:
        pictures: paths of files, each once.
        limit: at most this many, the first; None takes all.
        bad_files, pixel_range, groups, cluster, apart_from, say: as in `load_images`; `path` is the path as given.

    Returns:
        The columns image, label (-1), image_id (0, 1, ...), file, path, the groups and the clusters.

    Raises:
        ValueError: no picture, one given twice or that cannot be read, groups that do not fit, or no picture that no
            checkpoint was trained on.
    """
    import datasets

    from .folders.clusters import with_units
    from .picture_column import PictureColumn

    files = [os.path.expanduser(picture) for picture in pictures]
    if not files:
        raise ValueError("there is no picture to look at; give at least one")
    if twice := sorted({file for file in files if files.count(file) > 1}):
        raise ValueError(f"give each picture once; {path_text(twice[0])} is given several times")
    if folders := [file for file in files if Path(file).is_dir()]:
        raise ValueError(
            f"{path_text(folders[0])} is a folder, not a picture: load it as folder:{path_text(folders[0])}"
        )
    features = datasets.Features(
        {
            "image": datasets.Image(decode=False),
            "label": datasets.ClassLabel(names=[]),
            "image_id": datasets.Value("int64"),
            "file": datasets.Value("string"),
            "path": datasets.Value("string"),
        }
    )
    columns = {
        "image": [{"path": file, "bytes": None} for file in files],
        "label": [-1] * len(files),
        "image_id": list(range(len(files))),
        "file": files,
        "path": [Path(file).as_posix() for file in files],
    }
    rows = datasets.Dataset.from_dict(columns, features=features)
    rows = with_units(rows, groups, cluster, Path.cwd().name)
    if limit is not None:
        check_number("limit", limit, COUNT)
    order, pixel_range = np.arange(len(files)), checked_range(pixel_range)
    chosen = _readable(rows, order, limit, bad_files, pixel_range, list(apart_from))
    count, whole = len(chosen.rows), len(files)
    of_all = f"{count:,} of {whole:,}" if count < whole else f"{count:,}"
    first = ": the first" if chosen.is_cut else ""
    _say(say, f"{of_all} {'picture' if whole == 1 else 'pictures'}{first}, without labels", chosen.left_out)
    return rows.select(chosen.rows).cast_column("image", PictureColumn(pixel_range=pixel_range, is_settled=True))


def count_images(
    source: str, split: str, *, seed: int = 0, bad_files: Literal["error", "skip"] = "error"
) -> int | None:
    """Count a folder's images, all or those of a split, from file names alone; return None for other sources.

    Raises:
        ValueError: no folder, or one without images, and what `load_images` refuses in files' names.
    """
    if (folder := FolderSource.parse(source)) is None:
        return None
    return len(folder_part(folder, SPLITS.get(split, ALL), seed, bad_files).order)


def _hub_part(source: str, part: str, seed: int, unlabelled: Literal["error", "skip", "keep"]) -> ChosenRows:
    from .hub import load_hub

    rows, split = load_hub(source, needs_labels=unlabelled != "keep")
    rows = without_unlabelled(rows, unlabelled, source)
    order = rows_in_turn(np.asarray(rows["label"]), part, seed, None if part == ALL else PART_OF_IMAGE)
    return ChosenRows(rows, order, f"of the split {split}")


def _readable(
    rows: datasets.Dataset,
    order: np.ndarray,
    limit: int | None,
    bad_files: Literal["error", "skip"],
    pixel_range: tuple[float, float] | None,
    checkpoints: list[str | os.PathLike[str]],
) -> ReadableRows:
    """Choose rows as `readable_rows`, of images that no checkpoint was trained on; refuse a set without any."""
    from mechvit.data.training_images import all_trained_on, nothing_left

    chosen = readable_rows(rows, order, limit, bad_files, pixel_range, known=all_trained_on(checkpoints))
    if not chosen.rows:
        raise nothing_left(len(order), checkpoints)
    return chosen


def _check_found(found: ChosenRows, source: str, split: str, unlabelled: str) -> None:
    """Refuse a part without images, and a folder without labels where they are needed."""
    if len(found.order) == 0:
        raise ValueError(
            f"{source} has {len(found.rows)} images, too few to give any to the split {split!r}; ten images or more "
            "are needed, and more of each class to judge a model"
        )
    if not found.rows.features["label"].names and unlabelled != "keep":
        raise NoLabels(
            f"the {len(found.rows):,} images of {source} have no labels, which are needed here, since the folder has "
            "no sub-folders: put the images of each class into a sub-folder named after it"
        )


def _line(found: ChosenRows, part: str, chosen: ReadableRows) -> str:
    """Return in one line how many images are taken, and which."""
    labels = np.asarray(found.rows["label"], dtype=np.int64)[chosen.rows]
    whole, count, without = len(found.rows), len(labels), int((labels < 0).sum())
    images = "image" if whole == 1 else "images"
    line = f"{count:,} of {whole:,} {images}" if count < whole else f"{count:,} {images}"
    line += f" {found.place}" if found.place else ""
    if part != ALL:
        line += f": {'the first of ' if chosen.is_cut else ''}the part `{part}`"
    elif chosen.is_cut:
        line += ": the first" if without == count else ": the first, classes in turn"
    return line + ("" if not without else ", without labels" if without == count else f", {without:,} without a label")


def _say(say: Callable[[str], None] | None, line: str, left_out: int = 0) -> None:
    """Report which images are taken, and how many were left out that a model was trained on."""
    say = say or silent
    if left_out:
        say(f"left out {left_out:,} that a model was trained on, or its epoch chosen by")
    say(line)
