"""Matching of a data set's classes with a checkpoint's: by names, WordNet ids or class indices, else refused.

In this order: the same names in the same order are the identity; then names are compared (`class_names`); WordNet ids
are translated by the table of ImageNet-1k; numbers (or `LABEL_3`) are class indices if they are 0 to n - 1, or if the
checkpoint's classes have no names. Anything else is refused, and two classes are never merged. Inferred matches are
reported once, as an `InferredLabels` warning.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mechvit.arguments import checked
from mechvit.terminal import printable

from .class_names import Meaning, as_text, folded, meanings, synonyms, unique_names
from .label_columns import as_classes, with_classes, without_unlabelled
from .synsets import SYNSET_ID, synset_names

if TYPE_CHECKING:
    import datasets


class InferredLabels(UserWarning):
    """Warning that classes were matched by something other than exact names; the message names it."""


class UnmatchedLabels(ValueError):
    """Error: classes of a data set that match no class of the checkpoint, or not with certainty."""


@dataclass(frozen=True)
class Matching:
    """The checkpoint's class for each class of a data set."""

    classes: tuple[int | None, ...]
    """The checkpoint's class for each; None for those in `faults`. No class occurs twice."""
    faults: Mapping[str, str | None] = field(default_factory=dict)
    """Name -> why it matches no class of the checkpoint, or not with certainty; None: it is none of them."""
    inferred: tuple[str, ...] = ()
    """Matches by something other than exact names, one sentence each."""


@checked
def align_labels(
    dataset: datasets.Dataset,
    id2label: Mapping[int, object],
    *,
    unlabelled: Literal["error", "skip", "keep"] = "error",
    say: Callable[[str], None] | None = None,
) -> datasets.Dataset:
    """Replace every image's label by the checkpoint's own class index.

    Only classes that have images need to be the checkpoint's.

    Args:
        dataset: its column `label` holds classes (ClassLabel), names, or class indices.
        id2label: the checkpoint's classes, 0 to n - 1.
        unlabelled: what to do with images that have no label (None, -1, -100): `error` counts them, `skip` leaves them
            out and warns, `keep` keeps them with the label -1.
        say: receives a message for every inferred match; None warns (`InferredLabels`), once per process for each
            message.

    Raises:
        UnmatchedLabels: a ValueError; classes that the checkpoint lacks or that may be several of its; the message
            names both sides.
        ValueError: images without a label, under `error`.
    """
    labels = class_names(id2label)
    labelled = without_unlabelled(as_classes(dataset, "label"), unlabelled)
    names = [as_text(name) for name in labelled.features["label"].names]
    found = match_classes(names, dict(enumerate(labels)))
    codes = np.asarray(labelled["label"], dtype=np.int64)
    present = np.unique(codes[codes >= 0])
    _refuse([(names[i], found.faults[names[i]]) for i in present if found.classes[i] is None], names, labels)
    feature = dataset.features["label"]
    whole = type(feature).__name__ == "Value" and "int" in feature.dtype
    if whole and (other := [int(i) for i in present if found.classes[i] != i]):
        raise ValueError(
            f"the column 'label' holds whole numbers, as {other[0]}, and the checkpoint calls its class "
            f"{found.classes[other[0]]} {names[other[0]]!r}: make the column text if its numbers are names, "
            "or name the checkpoint's classes"
        )
    if whole and len(codes) and codes.min() > 0 and found.inferred and not _unnamed(labels):
        raise ValueError(
            f"the column 'label' holds whole numbers from {codes.min()} to {codes.max()}, which may be counted from 0 "
            "or from 1, and the checkpoint names its classes: make the column these names"
        )
    for sentence in found.inferred:
        (say or _warn)(sentence)
    index_of = np.asarray([*(-1 if index is None else index for index in found.classes), -1])  # the last is no label's
    return with_classes(labelled, "label", index_of[codes].tolist(), unique_names(labels))


@checked
def check_aligned(images: object, id2label: Mapping[int, str]) -> None:
    """Refuse a data set whose column `label` gives a class the exact name of another class of the checkpoint.

    Names that the checkpoint lacks pass, since labels may have been mapped by hand.

    Raises:
        ValueError: names the class and both indices.
    """
    names = getattr(getattr(images, "features", {}).get("label"), "names", None) or ()
    labels = [id2label[index] for index in sorted(id2label)]
    if list(names) == unique_names(labels):
        return
    count = Counter(labels)
    index_of = {label: index for index, label in enumerate(labels) if count[label] == 1}
    for index, name in enumerate(names):
        if index_of.get(name, index) != index:
            raise ValueError(
                f"the labels are in the data set's order: {name!r} is class {index} there and {index_of[name]} in the "
                "model: map them with mechvit.data.align_labels"
            )


def class_names(id2label: Mapping[Any, Any], where: str = "the checkpoint") -> list[str]:
    """Return a checkpoint's class names in order, as text.

    Raises:
        ValueError: the indices are not 0 to n - 1, or a name is neither text nor a number.
    """
    keys = [int(key) if str(key).isdecimal() else key for key in id2label]
    if set(keys) != set(range(len(keys))):
        raise ValueError(
            f"id2label of {where} must number its {len(keys)} classes 0 to {len(keys) - 1}; its keys are "
            f"{_some([str(key) for key in id2label])}: correct id2label in config.json"
        )
    return [as_text(name) for _, name in sorted(zip(keys, id2label.values(), strict=True))]


@checked
def config_classes(hf_config: Any, where: str = "the checkpoint") -> dict[int, str]:
    """Return the classes of a Hugging Face config, index -> name.

    Raises:
        ValueError: as `class_names`, or `label2id` gives a class of `id2label` another index.
    """
    names = class_names(hf_config.id2label or {}, where)
    for name, index in (getattr(hf_config, "label2id", None) or {}).items():
        own = [i for i, known in enumerate(names) if known == as_text(name)]
        if not str(index).isdecimal():
            raise ValueError(
                f"label2id of {where} must give every class its index; {name!r} has {index!r}: correct config.json"
            )
        if own and int(index) not in own:
            raise ValueError(
                f"id2label and label2id of {where} contradict each other: {name!r} is class {own[0]} in one and "
                f"{index} in the other: correct them in config.json"
            )
    return dict(enumerate(names))


def match_classes(names: Sequence[str], id2label: Mapping[int, str]) -> Matching:
    """Match a data set's class names with a checkpoint's; see the module for the rules.

    Raises:
        ValueError: as `class_names`.
    """
    labels, names = class_names(id2label), [as_text(name) for name in names]
    by_name = _one_to_one(names, labels, meanings(names, labels))
    if not by_name.faults or any(index is not None for index in by_name.classes):
        return by_name
    if all(SYNSET_ID.fullmatch(name) for name in names):
        return _by_synset(names, labels)
    if all(label in synset_names() for label in labels):
        return _by_name_of_synset(names, labels)
    numbers = [re.fullmatch(r"(?:LABEL_)?(\d+)", name) for name in names]
    if all(numbers):
        return _by_index(names, [int(found[1]) for found in numbers if found], labels)
    return by_name


def _one_to_one(names: Sequence[str], labels: Sequence[str], found: Sequence[Meaning]) -> Matching:
    """Keep classes that are certain and not shared by two names; record what is wrong with the rest."""
    claims: dict[int, list[str]] = defaultdict(list)
    for name, meaning in zip(names, found, strict=True):
        if len(meaning.classes) == 1:
            claims[meaning.classes[0]].append(name)
    classes: list[int | None] = []
    faults: dict[str, str | None] = {}
    rules: dict[str, list[str]] = defaultdict(list)
    for name, meaning in zip(names, found, strict=True):
        index = meaning.classes[0] if len(meaning.classes) == 1 else None
        if not meaning.classes:
            faults[name] = None
        elif meaning.rule == "taken":
            faults[name] = f"could only be {_class(meaning.classes[0], labels)}, which another name matches exactly"
        elif meaning.rule == "overlap" and index is not None:
            faults[name] = f"shares a name with {_class(index, labels)}, and each has another that the other lacks"
        elif index is None:
            faults[name] = f"could be {' or '.join(_class(i, labels) for i in meaning.classes)}"
        elif len(claims[index]) > 1:
            others = " and ".join(repr(other) for other in claims[index])
            faults[name] = f"is ambiguous: {others} would all be {_class(index, labels)}"
        classes.append(None if name in faults else index)
        if name not in faults and meaning.rule != "exact" and index is not None:
            rules[meaning.rule].append(f"{name} as {_class(index, labels)}")
    by = {"place": "position, since all others have the checkpoint's names in its order", "synonym": "synonym"}
    inferred = [f"{_classes(len(own))} matched by {by.get(rule, rule)}: {_some(own)}" for rule, own in rules.items()]
    return Matching(tuple(classes), faults, tuple(inferred))


def _by_synset(names: Sequence[str], labels: Sequence[str]) -> Matching:
    """Match WordNet ids: as class indices if the checkpoint's classes are ImageNet-1k's, else by their names."""
    table = synset_names()
    place = {synset: index for index, synset in enumerate(table)}
    about = {name: f"({table[name]})" if name in table else "(no class of ImageNet-1k)" for name in names}
    nothing = "is a WordNet id {}, which needs a checkpoint with names, or with ImageNet-1k's 1,000 classes"
    if _unnamed(labels) and len(labels) != len(table):
        return Matching((None,) * len(names), {name: nothing.format(about[name]) for name in names})
    if _unnamed(labels) or _named_as(labels, list(table.values())):
        class_of = dict(enumerate(range(len(table))))
        how = f"matched by WordNet id, the checkpoint's {len(table):,} classes being ImageNet-1k's in its order"
    else:
        class_of, how = (
            _classes_in_table(labels, list(table.values())),
            "matched by WordNet id, which gives their names",
        )
    classes = tuple(class_of.get(place.get(name, -1)) for name in names)
    faults = {
        name: f"is a WordNet id {about[name]} whose names belong to no class, or to more than one"
        for name, index in zip(names, classes, strict=True)
        if index is None
    }
    matched = sum(index is not None for index in classes)
    return Matching(classes, faults, (f"{_classes(matched)} {how}",) if matched else ())


def _by_name_of_synset(names: Sequence[str], labels: Sequence[str]) -> Matching:
    """Match names with a checkpoint whose classes are WordNet ids, through ImageNet-1k's table."""
    table = synset_names()
    found = _one_to_one(names, list(table.values()), meanings(names, list(table.values())))
    class_of = {place: labels.index(synset) for place, synset in enumerate(table) if synset in labels}
    classes = tuple(None if place is None else class_of.get(place) for place in found.classes)
    faults = {name: found.faults.get(name) for name, index in zip(names, classes, strict=True) if index is None}
    matched = len(names) - len(faults)
    how = "matched by the WordNet ids that are the checkpoint's classes"
    return Matching(classes, faults, (f"{_classes(matched)} {how}", *found.inferred) if matched else ())


def _classes_in_table(labels: Sequence[str], table: Sequence[str]) -> dict[int, int]:
    """Return index in ImageNet-1k's table -> the class that certainly means it."""
    found = _one_to_one(labels, table, meanings(labels, table))
    return {place: index for index, place in enumerate(found.classes) if place is not None}


def _by_index(names: Sequence[str], numbers: Sequence[int], labels: Sequence[str]) -> Matching:
    """Match numbers as class indices, if they are 0 to n - 1 or the checkpoint's classes have no names."""
    n = len(labels)
    numbered = any(re.fullmatch(r"(LABEL_)?\d+", label) for label in labels)
    whole = sorted(numbers) == list(range(n)) and not numbered
    if not whole and not _unnamed(labels):
        why = f"is a number, which counts as an index only if the numbers are 0 to {n - 1} and no class is a number"
        return Matching((None,) * len(names), dict.fromkeys(names, why))
    faults = {}
    for name, number in zip(names, numbers, strict=True):
        if number >= n:
            faults[name] = f"is no class index, 0 to {n - 1}"
        elif numbers.count(number) > 1:
            faults[name] = f"is the index {number}, as is another name"
    classes = tuple(None if name in faults else number for name, number in zip(names, numbers, strict=True))
    matched = len(names) - len(faults)
    return Matching(classes, faults, (f"{_classes(matched)} matched by their numbers, which are class indices",))


def _unnamed(labels: Sequence[str]) -> bool:
    """Return whether the classes have no names except their indices: LABEL_0, LABEL_1, or 0, 1."""
    return any(list(labels) == [f"{stem}{i}" for i in range(len(labels))] for stem in ("LABEL_", ""))


def _named_as(labels: Sequence[str], table: Sequence[str]) -> bool:
    """Return whether each class shares a name with the table's class of the same index."""
    return len(labels) == len(table) and all(
        {folded(part) for part in synonyms(label)} & {folded(part) for part in synonyms(names)}
        for label, names in zip(labels, table, strict=True)
    )


def _refuse(faults: Sequence[tuple[str, str | None]], names: Sequence[str], labels: Sequence[str]) -> None:
    if not faults:
        return
    lacking = "are not among" if all(why is None for _, why in faults) else "cannot be matched with"
    told = [name if why is None else f"{name!r} {why}" for name, why in faults]
    raise UnmatchedLabels(
        f"{len(faults)} of the data set's {len(names)} classes {lacking} the checkpoint's {len(labels)}: "
        f"{_some(told)}. Name the class folders as the checkpoint's id2label does ({_some(labels, 3)}), by WordNet id "
        f"(ImageNet), or by class index, all of 0 to {len(labels) - 1}"
    )


def _class(index: int, labels: Sequence[str]) -> str:
    return f"{index} ({printable(labels[index])})"


def _classes(count: int) -> str:
    return f"{count:,} {'class' if count == 1 else 'classes'}"


def _some(items: Sequence[str], count: int = 5) -> str:
    return ", ".join(map(printable, items[:count])) + (", …" if len(items) > count else "")


_SAID: set[str] = set()
"""Warnings given in this process: Python's own record is lost whenever a library changes a filter."""


def _warn(sentence: str) -> None:
    if sentence not in _SAID:
        warnings.warn(sentence, InferredLabels, stacklevel=3)
        _SAID.add(sentence)
