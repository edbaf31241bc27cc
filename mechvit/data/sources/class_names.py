"""Matching of class names: the checkpoint's classes that each name of a data set can mean.

The rules, from the strongest: the same whole name; the same except for case and punctuation; a synonym (names are lists
separated by commas, as ImageNet's); a synonym except for case and punctuation; all synonyms of the shorter list (lists
that each have one that the other lacks, as `lesion, benign` and `lesion, malignant`, name two things). A class that is
matched by its exact name is not available to other names, and neither is one that is certain for another name (so skunk
leaves only one class for polecat).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

_LETTER, _WORD = r"[^\W\d_]", r"[^\W_]"
_BETWEEN = re.compile(
    rf"(?<={_LETTER})[\s_\-–—,.'’`\"]+(?={_LETTER})|(?<={_WORD})[\s_]+(?={_WORD})"
    rf"|(?<={_LETTER})-(?=\d)|(?<=\d)-(?={_LETTER})"
)
"""Separators between words, which do not count. Signs at the ends or before numbers do: B- is not B, 1.5 is not 1 5."""
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)*")


@dataclass(frozen=True)
class Meaning:
    """Classes that one name can mean."""

    classes: tuple[int, ...]
    """None, one, or several that nothing distinguishes."""
    rule: str
    """Rule that decided: `exact`, `place`, `case and punctuation`, `synonym`, `taken` (exact for another name), or
    `overlap` (each has a synonym that the other lacks)."""


def as_text(name: Any) -> str:
    """Return a class's name as text in Unicode's composed form (NFC); JSON may contain numbers.

    Raises:
        ValueError: the name is neither text nor a number.
    """
    if isinstance(name, bool) or not isinstance(name, (str, int, float)):
        raise ValueError(f"a class's name must be text; got {name!r}: correct the names of the classes")
    return unicodedata.normalize("NFC", str(name))


def unique_names(names: Sequence[str]) -> list[str]:
    """Return the names, with the class's index added to repeated ones: `crane`, `drake`, `crane (2)`."""
    seen, whole, found = set[str](), set(names), list[str]()
    for index, name in enumerate(names):
        unique = name
        while unique in seen or (unique != name and unique in whole):
            unique = f"{unique} ({index})"
        seen.add(unique)
        found.append(unique)
    return found


def folded(name: str) -> str:
    """Return a name in lower case with single spaces for the punctuation between its words; numbers stay unchanged."""
    bare = name.strip()
    if _NUMBER.fullmatch(bare):
        return bare
    return unicodedata.normalize("NFC", _BETWEEN.sub(" ", bare).casefold())


def synonyms(name: str) -> tuple[str, ...]:
    """Return the parts of a name between its commas."""
    return tuple(part.strip() for part in name.split(",") if part.strip())


def meanings(names: Sequence[str], labels: Sequence[str]) -> list[Meaning]:
    """Return the `labels` (the checkpoint's names, by index) that each name can mean; all in NFC.

    The same names in the same order are the identity, even where some of them are equal.
    """
    names, labels = list(names), list(labels)
    if names in (labels, unique_names(labels)):
        return [Meaning((index,), "exact") for index in range(len(names))]
    if _same_but_doubled(names, labels):
        exact = [name == label for name, label in zip(names, labels, strict=True)]
        doubled = Counter(labels)
        return [Meaning((i,), "exact" if same and doubled[labels[i]] == 1 else "place") for i, same in enumerate(exact)]
    found = _exact(names, labels)
    taken = {meaning.classes[0] for meaning in found.values() if len(meaning.classes) == 1}
    rules = _NameRules(labels)
    left = _eliminated([found[name] if name in found else rules.meaning(name, taken) for name in names])
    return [rules.checked(name, meaning) for name, meaning in zip(names, left, strict=True)]


def _eliminated(found: list[Meaning]) -> list[Meaning]:
    """Remove classes that are another name's only candidate, until nothing changes."""
    while True:
        sure = {meaning.classes[0] for meaning in found if len(meaning.classes) == 1 and meaning.rule != "overlap"}
        left = [
            Meaning(_left(meaning.classes, sure) or meaning.classes, meaning.rule)
            if len(meaning.classes) > 1
            else meaning
            for meaning in found
        ]
        if left == found:
            return left
        found = left


def _same_but_doubled(names: list[str], labels: list[str]) -> bool:
    """Return whether all names equal the label at their index, up to suffixes of equal labels (crane2)."""
    count = Counter(labels)
    if len(names) != len(labels) or len(set(names)) < len(names) or not any(count[name] == 1 for name in names):
        return False
    return all(
        name == label or (count[label] > 1 and _has_ending(name, label, i) and name not in count)
        for i, (name, label) in enumerate(zip(names, labels, strict=True))
    )


def _has_ending(name: str, label: str, index: int) -> bool:
    """Return whether a name is a label with a suffix that is neither a word nor another class's index."""
    ending = name[len(label) :]
    index_told = re.fullmatch(r" \((\d+)\)", ending)
    return (
        name.startswith(label)
        and re.match(r"[\W\d_]", ending) is not None
        and (index_told is None or int(index_told[1]) == index)
    )


def _exact(names: list[str], labels: list[str]) -> dict[str, Meaning]:
    """Return matches of a class's whole name, or of one of several equal names with its index: `crane (517)`."""
    whole = _index((label, i) for i, label in enumerate(labels))
    written = {f"{label} ({i})": i for label, own in whole.items() if len(own) > 1 for i in own}
    told = {written[name] for name in names if name in written and name not in whole}
    found = {}
    for name in names:
        if name in whole:
            own = whole[name]
            left = tuple(i for i in own if i not in told) if len(own) > 1 else own
            found[name] = Meaning(left, "exact" if left else "taken")
        elif name in written:
            found[name] = Meaning((written[name],), "exact")
    return found


class _NameRules:
    """Matching rules below exact names; a weaker one applies only where no stronger one matches."""

    def __init__(self, labels: Sequence[str]) -> None:
        parts = [(part, i) for i, label in enumerate(labels) for part in synonyms(label)]
        self.lists = [{folded(part) for part in synonyms(label)} for label in labels]
        self.whole = _index((folded(label), i) for i, label in enumerate(labels))
        self.synonym = _index(parts)
        self.folded = _index((folded(part), i) for part, i in parts)

    def meaning(self, name: str, taken: set[int]) -> Meaning:
        """Return the classes that one name can mean; `taken` classes have an exact name in the data set already."""
        whole, synonym = self.whole.get(folded(name), ()), self.synonym.get(name.strip(), ())
        free = [i for i in whole if i not in taken]
        if free:  # Cardigan (the dog's synonym) is not cardigan (the garment) in another case
            return Meaning(_left((*free, *synonym), taken), "case and punctuation")
        common = dict.fromkeys(i for part in synonyms(name) for i in self.folded.get(folded(part), ()))
        steps = (synonym,) if whole else (synonym, self.folded.get(folded(name), ()), tuple(common))
        for classes in steps:
            if classes:
                left = _left(classes, taken)
                return self.checked(name, Meaning(left or tuple(classes), "synonym" if left else "taken"))
        return Meaning(whole, "taken") if whole else Meaning((), "")

    def checked(self, name: str, meaning: Meaning) -> Meaning:
        """Return a match by synonym as `overlap` unless the name's synonyms are among the class's, or the reverse."""
        if meaning.rule != "synonym" or len(meaning.classes) > 1:
            return meaning
        own, theirs = {folded(part) for part in synonyms(name)}, self.lists[meaning.classes[0]]
        contained = own <= theirs or theirs <= own or folded(name) in theirs
        return meaning if contained else Meaning(meaning.classes, "overlap")


def _index(pairs: Iterable[tuple[str, int]]) -> dict[str, tuple[int, ...]]:
    found: dict[str, dict[int, None]] = defaultdict(dict)
    for key, index in pairs:
        found[key][index] = None
    return {key: tuple(own) for key, own in found.items()}


def _left(classes: Iterable[int], taken: set[int]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(i for i in classes if i not in taken))
