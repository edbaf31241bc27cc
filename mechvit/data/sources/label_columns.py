"""Class columns in one form, and images without a label."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from mechvit.terminal import printable

from .class_names import as_text

if TYPE_CHECKING:
    import datasets


class NoLabels(ValueError):
    """Error: none of the images has a label, and labels are needed."""


UNLABELLED = (-1, -100)
"""Values of a missing label, besides None: datasets' own mark, and the one that torch's losses ignore."""
_MOST_NUMBERED = 100_000


def as_classes(dataset: datasets.Dataset, column: str) -> datasets.Dataset:
    """Return the data set with a column as ClassLabel: its own names, sorted texts, or numbers.

    Integers without names are named 0, 1, … up to the highest; -1, -100 and None stay unlabelled.

    Raises:
        ValueError: no such column, or it holds neither classes nor text nor whole numbers nor truth values.
    """
    import datasets

    if column not in dataset.features:
        columns = printable(", ".join(dataset.column_names))
        raise ValueError(f"there is no column {column!r}; the columns are {columns}")
    feature = dataset.features[column]
    if isinstance(feature, datasets.ClassLabel):
        return dataset
    dtype = getattr(feature, "dtype", None) if isinstance(feature, datasets.Value) else None
    values = dataset[column][:] if is_class_column(feature) else []
    if dtype in ("string", "large_string", "string_view"):
        texts = [None if value is None else as_text(value) for value in values]
        names = sorted({text for text in texts if text is not None})
        index = {name: i for i, name in enumerate(names)}
        codes = [None if text is None else index[text] for text in texts]
    elif dtype == "bool":
        names, codes = ["False", "True"], [None if value is None else int(value) for value in values]
    elif is_class_column(feature):
        codes = [None if value in (None, *UNLABELLED) else value for value in values]
        names = _numbered([code for code in codes if code is not None], column)
    else:
        raise ValueError(
            f"the column {column!r} holds {dtype or type(feature).__name__}; classes are ClassLabel, text, whole "
            "numbers or truth values: cast it to one of these"
        )
    return with_classes(dataset, column, codes, names)


def with_classes(
    dataset: datasets.Dataset, column: str, codes: Sequence[int | None], names: Sequence[str]
) -> datasets.Dataset:
    """Return the data set with a column replaced by these classes."""
    import datasets

    added = dataset.add_column(f"new {column}", list(codes), feature=datasets.ClassLabel(names=list(names)))
    return added.remove_columns(column).rename_column(f"new {column}", column)


def is_class_column(feature: object) -> bool:
    """Return whether a feature of `datasets` can hold a class for each image."""
    import datasets

    if isinstance(feature, datasets.ClassLabel):
        return True
    dtype = str(feature.dtype) if isinstance(feature, datasets.Value) else ""
    return dtype in ("string", "large_string", "string_view", "bool") or dtype.startswith(("int", "uint"))


def _numbered(codes: list[int], column: str) -> list[str]:
    low, high = min(codes, default=0), max(codes, default=0)
    if low < 0 or high >= _MOST_NUMBERED:
        raise ValueError(
            f"the column {column!r} holds whole numbers from {low} to {high}; class indices are 0 to n - 1 "
            "(-1, -100 or None where there is no label)"
        )
    return [str(i) for i in range(high + 1)]


def check_unlabelled(unlabelled: str) -> None:
    """Refuse an unknown choice for images without a label."""
    if unlabelled not in ("error", "skip", "keep"):
        raise ValueError(f"unlabelled must be 'error', 'skip' or 'keep'; got {unlabelled!r}")


def without_unlabelled(
    dataset: datasets.Dataset, unlabelled: Literal["error", "skip", "keep"], where: str = "the data set"
) -> datasets.Dataset:
    """Return the images that have a label (the column `label`, ClassLabel), and report how many are left out.

    Under `keep` all images stay, those without a label with -1.

    Raises:
        ValueError: images without a label (None, -1, -100) under `error`, or no others; labels that are not classes;
            another word for `unlabelled`.
    """
    check_unlabelled(unlabelled)
    codes = np.asarray([-1 if label is None else label for label in dataset["label"]], dtype=np.int64)
    missing = np.isin(codes, UNLABELLED)
    n = dataset.features["label"].num_classes
    wrong = np.unique(codes[~missing & ((codes < 0) | (codes >= n))])
    if len(wrong):
        raise ValueError(f"the labels of {where} must be its classes, 0 to {n - 1}; got {wrong.tolist()[:8]}")
    if not missing.any():
        return dataset
    if unlabelled == "keep":
        return with_classes(dataset, "label", np.where(missing, -1, codes).tolist(), dataset.features["label"].names)
    count = f"{missing.sum():,} of {len(codes):,} images of {where} have no label (None, -1 or -100)"
    if unlabelled == "error" or missing.all():
        raise (NoLabels if missing.all() else ValueError)(
            f"{count}, as is common in test splits: take another split"
            + ("" if missing.all() else ", or leave them out with unlabelled='skip'")
        )
    warnings.warn(f"left out {count}", stacklevel=3)
    return dataset.select(np.flatnonzero(~missing))
