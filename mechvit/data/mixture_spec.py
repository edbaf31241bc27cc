"""Mixtures of conditions to train on, in a light module that command lines import without torch."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mechvit.arguments import checked

from .conditions import PAIRED, parse_condition
from .corruption_spec import CORRUPTION_FAMILIES, Condition, listed_order

LONGEST_KEY = 120
"""Most characters in a mixture's key, which names folders and files."""


@dataclass(frozen=True)
class Mixture:
    """Several conditions to train on at once: each image gets one of them in each epoch."""

    members: tuple[Condition, ...]
    """At least two, each once; clean may be among them. Kept in the order of `CORRUPTION_FAMILIES`, then by level,
    then attacks and paired images."""
    name: str = ""
    """Name in tables, folders and figures; by default the members' keys, joined by `+`."""

    def __post_init__(self) -> None:
        order = sorted(self.members, key=listed_order)
        if len(order) < 2 or len(set(order)) < len(order):
            raise ValueError(
                "a mixture needs at least two corruptions, each once, as in gaussian_blur_4+gaussian_noise_4; got "
                f"{'+'.join(c.key for c in self.members) or 'none'}"
            )
        object.__setattr__(self, "members", tuple(order))
        taken = self.name in ("base", "clean") or self.name.rpartition("_")[0] in CORRUPTION_FAMILIES
        if self.name and (taken or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", self.name)):
            raise ValueError(
                "a mixture's name starts with a letter, holds letters, digits, _ and - only, and is no corruption's; "
                f"got {self.name!r}: choose another, as in mine=clean+fog_3"
            )
        if len(self.key) > LONGEST_KEY:
            raise ValueError(
                f"a mixture's key names its folder and has at most {LONGEST_KEY} characters; this one of {len(order)} "
                f"corruptions has {len(self.key)}: give it a name, as in mine={order[0].key}+{order[1].key}+..."
            )

    @property
    def key(self) -> str:
        """The name, or `gaussian_blur_4+gaussian_noise_4`, as in file names and the `model` column of tables."""
        return self.name or "+".join(c.key for c in self.members)

    @property
    def title(self) -> str:
        """Name in prose, as in `Gaussian blur 4 + Gaussian noise 4`."""
        return self.name.replace("_", " ").capitalize() or " + ".join(c.title for c in self.members)

    @classmethod
    def parse(cls, text: str) -> Mixture:
        """Parse `a+b+c`, or with a name `mine=a+b+c`."""
        name, _, members = text.rpartition("=")
        return cls(tuple(parse_condition(key) for key in members.split("+")), name)


@checked
def parse_training(text: str) -> Condition | Mixture:
    """Parse what a model is trained on: a condition's key, or a mixture as `Mixture.parse` takes it."""
    mixed = ("+" in text or "=" in text) and not text.startswith(PAIRED)
    return Mixture.parse(text) if mixed else parse_condition(text)
