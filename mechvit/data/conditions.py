"""Conditions by name, in a light module that command lines import without torch: what is done to an image before it is
shown.

| text | condition |
|---|---|
| `clean`, `gaussian_blur_4`, `haze_3` | nothing, a corruption, a registered function (`register_corruption`) |
| `my_file.py:haze_3`, `mymodule:haze_3` | the same, after the file or module was imported |
| `paired:FOLDER` | the picture with the same path below another folder |
| `pgd_4`, `fgsm_4`; `pgd_4@self`, `@base`, `@tuned` | an attack within 4/255, on the model that is named |
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechvit.arguments import checked
from mechvit.terminal import printable

from .corruption_spec import CORRUPTION_FAMILIES, Condition, Corruption
from .functions import function_fingerprint, load_function

if TYPE_CHECKING:
    from mechvit.models import HookedViT

PAIRED = "paired:"
VICTIMS = {"": "", "self": " on each model itself", "base": " on the base", "tuned": " on the tuned model"}
"""Models that an attack can name -> how its title does."""
ATTACKS = {"pgd": "PGD", "fgsm": "FGSM"}
_FOLDERS: dict[str, PairedImages] = {}
"""Paired images of this process by their keys, which tables hold."""


@dataclass(frozen=True)
class PairedImages(Condition):
    """The partner of each image in another folder: the picture with the same path below it."""

    root: str
    """The other folder; made absolute."""
    family: str = field(init=False, compare=False, repr=False)
    level: int = field(init=False, compare=False, repr=False)
    """The folder's number where it is called by one, as ImageNet-C's severities; else 0."""

    def __post_init__(self) -> None:
        root = os.path.abspath(os.path.expanduser(self.root))
        if not self.root.strip() or not os.path.isdir(root):
            raise ValueError(
                f"{PAIRED}{printable(self.root)} is not a folder; give one that holds a partner of each image, at the "
                "same path as below the images' own folder"
            )
        object.__setattr__(self, "root", root)
        object.__setattr__(self, "family", _paired_key(self._name, root))
        last = Path(root).name
        object.__setattr__(self, "level", int(last) if last.isdecimal() else 0)
        _FOLDERS[self.key] = self

    @property
    def _name(self) -> str:
        """The folder's name, with its parent's where it is a number, as in ImageNet-C's fog/3."""
        parts = Path(self.root).parts
        return "/".join(parts[-2:] if parts[-1].isdecimal() else parts[-1:])

    @property
    def key(self) -> str:
        """`paired_`, the folder's name, and h with six digits of its path's hash."""
        return self.family

    @property
    def series(self) -> str:
        """That of the folder above where this one is called by a number, as in ImageNet-C's fog/3; else its key."""
        above = Path(self.root).parent
        return _paired_key(above.name, os.fspath(above)) if self.level else self.key

    @property
    def title(self) -> str:
        """Name in prose, as in `Paired: night`."""
        return f"Paired: {printable(self._name)}"

    @property
    def group(self) -> str:
        """`paired`."""
        return "paired"

    def _place(self) -> tuple[Any, ...]:
        return 1, self.root, 0


def _paired_key(name: str, root: str) -> str:
    word = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:40]
    return f"paired_{word}_h{hashlib.sha256(os.fsencode(root)).hexdigest()[:6]}"


@dataclass(frozen=True)
class Attack(Condition):
    """A change of each image within an L-infinity ball that raises a model's loss.

    The target is the image's label, or the model's own clean prediction where it has none.
    """

    family: str
    """`pgd`, ten steps of a quarter of the radius from a random start (arXiv:1706.06083), or `fgsm`, one step of the
    radius (arXiv:1412.6572)."""
    level: int
    """The ball's radius in 255ths."""
    victim: str = ""
    """The model that is attacked: `self`, each that is shown the image; `base` or `tuned`, whose images all models are
    shown; empty, the only model there is, in a comparison the base, in fine-tuning the model that is trained."""
    model: HookedViT | str | None = field(default=None, compare=False, repr=False)
    """The model that is attacked, or its checkpoint, where `against` was called."""
    uses_labels: bool = field(default=True, compare=False, repr=False)
    """False takes the model's own clean prediction as the target, as where labels are not its classes."""

    def __post_init__(self) -> None:
        if self.family not in ATTACKS or self.victim not in VICTIMS or not 1 <= self.level <= 255:
            raise ValueError(
                "an attack is pgd or fgsm with a radius of 1 to 255 (255ths), and may name the model that it attacks, "
                f"self, base or tuned, as in pgd_4@base; got {printable(self.key)!r}"
            )

    @property
    def key(self) -> str:
        """Name in tables and files, as in `pgd_4` or `pgd_4@self`."""
        return f"{self.family}_{self.level}" + (f"@{self.victim}" if self.victim else "")

    @property
    def title(self) -> str:
        """Name in prose, as in `PGD 4/255 on the base`."""
        return f"{ATTACKS[self.family]} {self.level}/255{VICTIMS[self.victim]}"

    @property
    def series(self) -> str:
        """The method and the model that is attacked, as in `pgd@self`."""
        return self.family + (f"@{self.victim}" if self.victim else "")

    @property
    def group(self) -> str:
        """`attack`."""
        return "attack"

    def _place(self) -> tuple[Any, ...]:
        return 2, self.family, self.level, self.victim

    def against(self, model: HookedViT | str, *, uses_labels: bool = True) -> Attack:
        """Return the same attack on one model, an object or a checkpoint, whichever model is shown the images."""
        return replace(self, model=model, uses_labels=uses_labels)


@checked
def parse_condition(text: str) -> Condition:
    """Parse a condition as it is written on a command line, or its key.

    Raises:
        ValueError: an unknown condition, or a level that it does not have; a file or module that cannot be imported, or
            that lacks the function; no such folder.
    """
    if text.startswith(PAIRED):
        return PairedImages(text.removeprefix(PAIRED))
    if text in _FOLDERS:
        return _FOLDERS[text]
    if found := re.fullmatch(r"(pgd|fgsm)(?:_(\d{1,4}))?(?:@(\w+))?", text):
        return Attack(found[1], int(found[2] or 0), found[3] or "")
    if text.endswith(".py"):
        raise ValueError(
            f"{printable(text)} is a file: name a function of it and the level, as in {printable(text)}:haze_3"
        )
    if ":" in text:
        load_function(text)
        text = text.rpartition(":")[2]
    return Corruption.parse(text)


@checked
def as_condition(condition: Condition | str) -> Condition:
    """Return a condition unchanged, or parse it."""
    return parse_condition(condition) if isinstance(condition, str) else condition


def bound(
    condition: Condition | str, models: Mapping[str, HookedViT | str], *, plain_is_base: bool = False
) -> Condition:
    """Return a condition in which an attack knows its model: the base is the model of that name or the first, the tuned
    one that of its name or the other of two.

    Args:
        condition: any; others than attacks, and those that know their model, are returned as they are.
        models: name -> model or checkpoint.
        plain_is_base: take an attack that names no model as one on the base, as in a comparison of a pair.

    Raises:
        ValueError: several models and an attack that does not say which, or a model that is not among them.
    """
    condition = as_condition(condition)
    if not isinstance(condition, Attack) or condition.model is not None or condition.victim == "self":
        return condition
    plain = f"{condition.family}_{condition.level}"
    names = list(models)
    if not condition.victim and not plain_is_base:
        if len(names) > 1:
            raise ValueError(
                f"{plain} must say which of {len(names)} models it attacks: {plain}@self (each that is shown the "
                f"image), {plain}@base ({names[0]}) or {plain}@tuned"
            )
        return condition.against(models[names[0]], uses_labels=condition.uses_labels)
    base = "base" if "base" in names else names[0]
    others = [name for name in names if name != base]
    name = base if condition.victim != "tuned" else "tuned" if "tuned" in names else others[0] if others else ""
    if len(names) < 2 and condition.victim:
        raise ValueError(
            f"{condition.key} attacks the {condition.victim} of two models, and one is given, {names[0]}: give {plain}"
        )
    if name != "tuned" and condition.victim == "tuned" and len(others) > 1:
        raise ValueError(
            f"{condition.key} attacks the {condition.victim} of two models, and {len(names)} are given: name the "
            f"model, as in Attack({condition.family!r}, {condition.level}).against(model)"
        )
    return condition.against(models[name], uses_labels=condition.uses_labels)


def family_title(family: str) -> str:
    """Return the name in prose of conditions that differ only in their level."""
    known = CORRUPTION_FAMILIES.get(family)
    return ATTACKS.get(family, family.replace("_", " ").capitalize()) if known is None else known.title


def of_pixels(condition: Condition | str) -> Corruption:
    """Return a condition that depends on an image's pixels alone: a corruption or a registered function.

    Raises:
        ValueError: it needs a model or the image's file.
    """
    condition = as_condition(condition)
    if not isinstance(condition, Corruption):
        raise ValueError(
            f"{condition.key} is not made of an image's pixels alone, as is needed here: give a corruption such as "
            "gaussian_blur_4, or a registered function"
        )
    return condition


def fingerprints(conditions: Iterable[Condition | str]) -> dict[str, str]:
    """Return key -> `fingerprint` of those conditions that their keys do not determine."""
    known = {condition.key: fingerprint(condition) for condition in map(as_condition, conditions)}
    return {key: found for key, found in known.items() if found is not None}


def condition_record(conditions: Iterable[Condition | str]) -> dict[str, dict[str, str]]:
    """Return what a record holds of conditions besides their keys: `fingerprints` under `conditions`, or nothing."""
    found = fingerprints(conditions)
    return {"conditions": found} if found else {}


@checked
def fingerprint(condition: Condition | str) -> str | None:
    """Return a hash of what a condition does beyond its key; None for those that the key determines.

    A registered function is hashed by its source and by what it makes of fixed images, a paired folder by the names,
    sizes and times of change of its files.
    """
    condition = as_condition(condition)
    if isinstance(condition, PairedImages):
        from .sources.class_folders import fingerprint_folder

        return fingerprint_folder(Path(condition.root))[:16]
    if isinstance(condition, Corruption) and CORRUPTION_FAMILIES[condition.family].function is not None:
        return function_fingerprint(condition)
    return None
