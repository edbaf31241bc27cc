"""Ranges of settings, in a light module that configurations and command lines import without torch."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any


class SettingError(ValueError):
    """Error: an invalid setting, with its name and the fault. Command lines name the flag instead."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name} {problem}")
        self.name, self.problem = name, problem


@dataclass(frozen=True)
class Range:
    """Finite numbers that a setting may be."""

    least: float = -math.inf
    most: float = math.inf
    open_below: bool = False
    """Whether `least` itself is excluded."""
    open_above: bool = False
    """Whether `most` itself is excluded."""
    whole: bool = True
    """Whether only whole numbers are allowed."""

    def __contains__(self, value: Any) -> bool:
        if not self.is_number(value) or not math.isfinite(value):
            return False
        above = value > self.least if self.open_below else value >= self.least
        return bool(above and (value < self.most if self.open_above else value <= self.most))  # NumPy's too

    def is_number(self, value: Any) -> bool:
        """Return whether a value is a number of the right kind; True and False are not numbers."""
        return isinstance(value, Integral if self.whole else Real) and not isinstance(value, bool)

    def __str__(self) -> str:
        """Return the range in words, to follow `must be`."""
        if self.least == -math.inf and self.most == math.inf:
            return "finite"
        if self.most == math.inf:
            kind = "" if self.whole else "finite and "
            return f"{kind}{'above' if self.open_below else 'at least'} {self.least:g}"
        shown = [str(int(end)) if self.whole else f"{end:g}" for end in (self.least, self.most)]
        return f"in {'(' if self.open_below else '['}{shown[0]}, {shown[1]}{')' if self.open_above else ']'}"


ADDED_LATER = {"added_later": True}
"""Metadata of a setting that was added to its class later: at its default it is no part of a stage's key, so that
stages that finished before it was added stay finished."""
COUNT = Range(1)
COUNT_OR_ZERO = Range(0)
SEED = Range(0, 2**32 - 1)
"""Seeds; numpy and transformers accept no larger ones."""
RESAMPLES_RANGE = Range(1, 1_000_000)
"""Resamples of a bootstrap; more would fill the memory with draws."""
THREADS = Range(1, 1024)
FINITE = Range(whole=False)
POSITIVE = Range(0, open_below=True, whole=False)
NOT_NEGATIVE = Range(0, whole=False)
SHARE = Range(0, 1, whole=False)
SHARE_BELOW_ONE = Range(0, 1, open_above=True, whole=False)
SHARE_ABOVE_ZERO = Range(0, 1, open_below=True, whole=False)
LEVEL_RANGE = Range(0, 1, open_below=True, open_above=True, whole=False)
"""Coverage of an interval."""


def check_number(name: str, value: Any, allowed: Range) -> None:
    """Refuse a number outside its range.

    Raises:
        SettingError: names the setting, the range and the value.
    """
    if value in allowed:
        return
    if allowed.whole and isinstance(value, Real) and not isinstance(value, Integral) and math.isfinite(value):
        raise SettingError(name, f"must be a whole number; got {value}")
    raise SettingError(name, f"must be {allowed}; got {value if allowed.is_number(value) else repr(value)}")


def check(settings: object, allowed: Range, *names: str, or_none: bool = False) -> None:
    """Refuse settings outside a range; members of tuples are checked one by one.

    Args:
        settings: an object with these attributes.
        allowed: the range that each must lie in.
        names: names of the attributes.
        or_none: accept None as well.

    Raises:
        SettingError: names the first that is outside.
    """
    for name in names:
        value = getattr(settings, name)
        if or_none and value is None:
            continue
        for member in value if isinstance(value, tuple) else (value,):
            check_number(name, member, allowed)


def check_named(settings: object, *names: str) -> None:
    """Refuse empty texts and texts with a NUL character for a path, an id or a name; None is accepted.

    Raises:
        SettingError: names the first of these.
    """
    for name in names:
        value = getattr(settings, name)
        for member in value if isinstance(value, tuple) else (value,):
            if member is not None and not str(member).strip():
                raise SettingError(name, "must not be empty")
            if "\0" in str(member):
                raise SettingError(name, "must not hold a NUL character")


def check_some(settings: object, *names: str, or_none: bool = False) -> None:
    """Refuse tuples that are empty or contain a value twice.

    Args:
        settings: an object with these attributes.
        names: names of the attributes.
        or_none: accept an empty tuple and None as well.

    Raises:
        SettingError: names the first of these.
    """
    for name in names:
        values = getattr(settings, name)
        if not values and not or_none:
            raise SettingError(name, "must name at least one")
        if values and len(set(values)) < len(values):
            raise SettingError(name, f"must name each once; got {listed(values)}")


def check_choice(settings: object, **choices: Collection[str]) -> None:
    """Refuse words that are not among a setting's choices; members of tuples are checked one by one.

    Raises:
        SettingError: names the first of these.
    """
    for name, known in choices.items():
        value = getattr(settings, name)
        for member in value if isinstance(value, tuple) else (value,):
            if member not in known:
                raise SettingError(name, f"must be among {listed(known)}; got {member!r}")


def listed(values: Iterable[object]) -> str:
    """Join values with commas."""
    return ", ".join(map(str, values))


def check_seeds(settings: Any, *parts: str) -> None:
    """Refuse a seed out of range, alone or in the sum with a part's own seed, which that part uses.

    Raises:
        SettingError: names `seed`.
    """
    check(settings, SEED, "seed")
    for name in parts:
        own = getattr(settings, name).seed
        if settings.seed + own not in SEED:
            raise SettingError("seed", f"and {name}.seed ({own}) may add up to {SEED.most:.0f}; got {settings.seed}")


def check_common(settings: Any) -> None:
    """Refuse invalid settings that all commands share: empty names and paths, counts below 1, bad seeds.

    All texts are checked, and by name `limit` and names that end in `_limit`, `batch_size`, `seed`, `images`,
    `bad_files` and `pixel_range`.

    Raises:
        SettingError: names the first invalid one.
    """
    for name, value in vars(settings).items():
        members = value if isinstance(value, tuple) else (value,)
        if any(isinstance(member, (str, os.PathLike)) for member in members):
            check_named(settings, name)
        if name.endswith("limit") or name == "batch_size":
            check(settings, COUNT, name, or_none=True)
    if hasattr(settings, "seed"):
        check(settings, SEED, "seed")
    if hasattr(settings, "bad_files"):
        check_choice(settings, bad_files=("error", "skip"))
    if (ends := getattr(settings, "pixel_range", None)) is not None:
        check(settings, FINITE, "pixel_range")
        if not ends[0] < ends[1]:
            raise SettingError(
                "pixel_range", f"must be the value of black and a larger one of white; got {listed(ends)}"
            )
        shown = getattr(settings, "pictures", None) or getattr(settings, "images", None)
        if shown == "photos" and tuple(ends) != (0, 255):
            raise SettingError(
                "pixel_range", "is for pictures of more than eight bits per channel; those of photos have 8"
            )
    if str(getattr(settings, "images", "")).strip() == "folder:":
        raise SettingError("images", "must name the folder after folder:, as in folder:photos")
