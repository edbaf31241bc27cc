"""Where images come from: the embedded photographs, a folder, or a hub data set, all in one form."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from .files import readable_rows
from .photos import SPLITS, load_photos

if TYPE_CHECKING:
    import datasets

_PART_OF_IMAGE = (
    "train", "test", "train", "sae", "train", "validation", "train", "sae", "test", "train",
)  # fmt: skip
"""The part of an image by its place in its class: half train, two tenths test and sae, one tenth validation."""


def load_images(
    source: str,
    split: str = "test",
    *,
    limit: int | None = None,
    seed: int = 0,
    image_size: int = 64,
    bad_files: Literal["error", "skip"] = "error",
) -> datasets.Dataset:
    """Load the images of one split.

    Args:
        source: `photos` (embedded, no download), `folder:PATH` (an image folder with a sub-folder for each class), or
            a hub data set's id such as `ILSVRC/imagenet-1k` (its validation split where it has one; write
            `id@train` for another).
        split: `finetune`, `finetune_validation`, `sae`, `sae_validation` or `test`; `photos` also has `train`, the base
            model's. Images of different parts never overlap: every image of a folder or hub set belongs to one part
            only, and the crops of `photos` come from disjoint cells.
        limit: at most this many images, the first of a class-balanced order; None takes all (of photos: 1,900).
        seed: of the random order within classes, or of the crops.
        image_size: side of the crops of `photos`, in pixels; other sources keep their own sizes.
        bad_files: what to do with a file that is truncated or no image: `error` names it, `skip` leaves it out and
            warns with names and count.

    Returns:
        The columns `image` (PIL), `label` (ClassLabel), `image_id` (unique within the source) and `file`.

    Raises:
        ValueError: an unknown split, an empty folder, a bad file, a hub set without images or labels.
        ConnectionError, PermissionError: a hub set that cannot be reached, or is gated; the message says what to do.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}; got {split!r}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, or None for all; got {limit}")
    if source == "photos":
        return load_photos(split, limit=limit, seed=seed, image_size=image_size)
    if source.startswith("folder:"):
        rows = _folder(Path(source.removeprefix("folder:")).expanduser())
    else:
        from .hub import load_hub

        rows = load_hub(source)
    order = _rows_of_part(np.asarray(rows["label"]), SPLITS[split], seed)
    if len(order) == 0:
        raise ValueError(
            f"{source} has {len(rows)} images, too few to give any to the split {split!r}; ten images or more are "
            "needed, and more of each class to judge a model"
        )
    chosen = readable_rows(rows, order, limit, bad_files)
    import datasets

    return rows.select(chosen).cast_column("image", datasets.Image())


def _rows_of_part(labels: np.ndarray, part: str, seed: int) -> np.ndarray:
    """Rows of one part, classes in turn; which part a row belongs to depends on the labels and the seed alone."""
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


def _folder(root: Path) -> datasets.Dataset:
    """Every file of every class sub-folder, in sorted order, not yet decoded."""
    import datasets

    if not root.is_dir():
        raise ValueError(f"folder:{root} is not a folder; give one with a sub-folder of images for each class")
    names = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    listed = [
        (label, path)
        for label, name in enumerate(names)
        for path in sorted((root / name).rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts)
    ]
    if not listed:
        raise ValueError(f"{root} has no images: it must hold a sub-folder for each class with its images in it")
    files = [os.fspath(path) for _, path in listed]
    columns = {
        "image": [{"path": file, "bytes": None} for file in files],
        "label": [label for label, _ in listed],
        "image_id": list(range(len(listed))),
        "file": files,
    }
    features = datasets.Features(
        {
            "image": datasets.Image(decode=False),
            "label": datasets.ClassLabel(names=names),
            "image_id": datasets.Value("int64"),
            "file": datasets.Value("string"),
        }
    )
    return datasets.Dataset.from_dict(columns, features=features)


def align_labels(dataset: datasets.Dataset, id2label: Mapping[int, str]) -> datasets.Dataset:
    """Give every image the checkpoint's own class index.

    Classes are matched by name (whole, or any of ImageNet's comma-separated synonyms; case, `_` and `-` do not
    matter). Where no name matches and the checkpoint's classes are unnamed (`LABEL_3`) or the folders are WordNet ids
    or numbers, the sorted classes are taken in the checkpoint's order if there are as many (unnamed: at most as many).

    Raises:
        ValueError: classes that the checkpoint lacks; the message names them.
    """
    import datasets

    names: Sequence[str] = dataset.features["label"].names
    known: dict[str, int] = {}
    for index, label in sorted(id2label.items()):
        for synonym in (label, *label.split(",")):
            known.setdefault(_plain(synonym), index)
    found = [known.get(_plain(name), known.get(_plain(name.split(",")[0]))) for name in names]
    if all(index is None for index in found):
        unnamed = all(re.fullmatch(r"LABEL_\d+", label) for label in id2label.values())
        numbered = all(re.fullmatch(r"n\d{8}|\d+", name) for name in names)
        if (unnamed and len(names) <= len(id2label)) or (numbered and len(names) == len(id2label)):
            found = list(range(len(names)))
    lacking = [name for name, index in zip(names, found, strict=True) if index is None]
    if lacking:
        raise ValueError(
            f"{len(lacking)} of the data set's {len(names)} classes are not among the checkpoint's {len(id2label)}: "
            f"{', '.join(lacking[:5])}{', …' if len(lacking) > 5 else ''}. Name the class folders as the checkpoint's "
            f"id2label does ({', '.join(list(id2label.values())[:3])}, …)"
        )
    index_of = np.asarray(found)
    labels = index_of[np.asarray(dataset["label"])]
    features = dataset.features.copy()
    features["label"] = datasets.ClassLabel(names=_unique([id2label[i] for i in sorted(id2label)]))
    plain = dataset.remove_columns("label").add_column("label", labels.tolist())
    return plain.cast_column("label", features["label"])


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def _unique(names: list[str]) -> list[str]:
    """Names made unique, since ImageNet's id2label has two `crane`s and ClassLabel takes no name twice."""
    seen: set[str] = set()
    result = []
    for index, name in enumerate(names):
        result.append(name if name not in seen else f"{name} ({index})")
        seen.add(name)
    return result
