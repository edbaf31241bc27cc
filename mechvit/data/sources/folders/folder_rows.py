"""Rows of an image folder, and those of one part: drawn from all, or the folder's own train, val and test folders."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from mechvit.data.image_origin import with_origin
from mechvit.data.sources.class_folders import class_files
from mechvit.data.sources.class_names import as_text
from mechvit.data.sources.folder_source import FolderSource, given_parts
from mechvit.data.sources.picture import path_text

if TYPE_CHECKING:
    import datasets

PART_OF_IMAGE = (
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
_TRAIN_WITH_VALIDATION = tuple("validation" if part == "validation" else "train" for part in PART_OF_IMAGE)
"""The same where a folder gives the training images and has no folder for validation."""
_HALVES = ("test", "validation")
"""The same for a val folder that has no test folder beside it."""
_FIRST_ID = {"train": 0, "val": 100_000_000, "test": 200_000_000}
"""First image id of each given folder, so that ids are unique in all of them."""


@dataclass(frozen=True)
class ChosenRows:
    """Rows of a source that belong to one part, in a class-balanced order."""

    rows: datasets.Dataset
    """All rows of the source, or of the folder that gives the part."""
    order: np.ndarray
    """Indices of the chosen ones."""
    place: str = ""
    """Place of all rows, for the line about them: "of the folder val"; empty for all of the source."""


def folder_part(
    source: FolderSource,
    part: str,
    seed: int,
    bad_files: Literal["error", "skip"],
    *,
    groups: str | None = None,
    cluster: str | None = None,
) -> ChosenRows:
    """Choose the rows of one part of a folder, or all of them.

    The folders train, val and test are the parts where the source consists of them: training images and the SAEs'
    from train, those of validation and test from the folders of these names. Without a test folder val is divided in
    halves for both, and without a val folder a tenth of train is for validation. Any other folder is divided by
    `PART_OF_IMAGE`.

    Args:
        source: the folder.
        part: `train`, `validation`, `sae`, `test` or `all`.
        seed: seed of the order within classes.
        bad_files: see `class_files`.
        groups, cluster: see `mechvit.data.sources.folders.groups` and `clusters`.

    Raises:
        ValueError: as `class_files`; a folder of splits of which none is named, for `all`.
    """
    given = {} if part == "all" else given_parts(source)
    if not given:
        rows = folder_rows(source.of_split(), bad_files, groups=groups, cluster=cluster)
        return _chosen(rows, part, seed, None if part == "all" else PART_OF_IMAGE, source.of_split(), source)
    kind, cycle = _share_of(part, given)
    own = replace(source, split=given[kind]).of_split()
    rows = folder_rows(own, bad_files, first_id=_FIRST_ID[kind], groups=groups, cluster=cluster)
    return _chosen(rows, "train" if part == "sae" else part, seed, cycle, own, source)


def _chosen(
    rows: datasets.Dataset, part: str, seed: int, cycle: Sequence[str] | None, own: FolderSource, source: FolderSource
) -> ChosenRows:
    """Return the chosen rows with what is known of their source; `own` is the folder of the split, if any."""
    split = "" if own.root == source.root else own.root.name
    name = f"folder:{source.root.resolve().name}{f'@{split}' if split else ''}"
    order = rows_in_turn(np.asarray(rows["label"]), part, seed, cycle)
    return ChosenRows(with_origin(rows, name), order, f"of the folder {path_text(split)}" if split else "")


def _share_of(part: str, given: Collection[str]) -> tuple[str, Sequence[str] | None]:
    """Return the kind of the given folder that holds a part, and how its images are divided; None takes them all."""
    if part in ("train", "sae"):
        return "train", None if "val" in given else _TRAIN_WITH_VALIDATION
    if part == "validation" and "val" not in given:
        return "train", _TRAIN_WITH_VALIDATION
    if part == "test" and "test" in given:
        return "test", None
    return "val", None if "test" in given else _HALVES


def folder_rows(
    source: FolderSource,
    bad_files: Literal["error", "skip"],
    *,
    first_id: int = 0,
    groups: str | None = None,
    cluster: str | None = None,
) -> datasets.Dataset:
    """Return every file of every class sub-folder, in sorted order, not yet decoded; without sub-folders every file.

    The columns are image, label (-1 without sub-folders), image_id, file, path (below the folder), groups and clusters.
    """
    import datasets

    from .clusters import with_units

    names, listed = class_files(source, bad_files)
    files = [os.fspath(path) for _, path in listed]
    columns = {
        "image": [{"path": file, "bytes": None} for file in files],
        "label": [label for label, _ in listed],
        "image_id": list(range(first_id, first_id + len(listed))),
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
    rows = datasets.Dataset.from_dict(columns, features=features)
    return with_units(rows, groups, cluster, source.root.name)


def _class_names(folders: list[str], root: Path) -> list[str]:
    """Return the names of the classes in NFC (macOS stores accents separately); refuse two that coincide."""
    names = [as_text(name) for name in folders]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"{path_text(root)} has two folders called {twice[0]!r}, which differ only in how Unicode composes their "
            "letters: put their images into one"
        )
    return names


def rows_in_turn(labels: np.ndarray, part: str, seed: int, cycle: Sequence[str] | None = PART_OF_IMAGE) -> np.ndarray:
    """Return the rows of one part, classes in turn; the part of a row depends only on the labels and the seed.

    Args:
        labels: class of each row.
        part: the part.
        seed: seed of the order within classes.
        cycle: part of an image by its index in its class, repeated; None takes all rows.
    """
    rng = np.random.default_rng(seed)
    place = np.empty(len(labels), dtype=np.int64)
    depth = np.empty(len(labels))
    for label in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == label))
        place[own] = np.arange(len(own)) + label
        depth[own] = np.arange(len(own)) / len(own)
    order = np.lexsort((labels, depth))
    if cycle is None:
        return order
    parts = np.asarray(cycle)[place % len(cycle)]
    return order[parts[order] == part]
