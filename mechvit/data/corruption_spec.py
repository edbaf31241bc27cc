"""Names of corruptions, in a light module that command lines import without torch."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import total_ordering
from typing import Any

from mechvit.arguments import checked

GROUPS: tuple[str, ...] = ("noise", "blur", "weather", "digital")
"""ImageNet-C's groups of corruptions (arXiv:1903.12261, section 4.1)."""
SEVERITIES: tuple[int, ...] = (1, 2, 3, 4, 5)
"""Severities of ImageNet-C's corruptions."""


@dataclass(frozen=True)
class CorruptionFamily:
    """A family of corruptions that differ only in their level."""

    title: str
    """Name in prose."""
    group: str
    """One of `GROUPS`, or `clean`."""
    level: str = "an ImageNet-C severity"
    """Meaning and unit of the level."""
    highest: int | None = 5
    """Highest level; None where the image's size limits it. The lowest is 1. A family of level 0 alone has one
    corruption, whose key is the family's."""
    levels: tuple[int, ...] | None = None
    """The only levels, where these are not all from 1 to the highest one."""
    function: Callable[..., Any] | None = None
    """The function of a family that was registered (`register_corruption`); None for those of this package."""


CORRUPTION_FAMILIES: dict[str, CorruptionFamily] = {
    "clean": CorruptionFamily("Clean", "clean", "nothing", 0),
    "gaussian_blur": CorruptionFamily("Gaussian blur", "blur", "a deviation of at least 1 pixel", None),
    "gaussian_noise": CorruptionFamily("Gaussian noise", "noise"),
    "shot_noise": CorruptionFamily("Shot noise", "noise"),
    "impulse_noise": CorruptionFamily("Impulse noise", "noise"),
    "defocus_blur": CorruptionFamily("Defocus blur", "blur"),
    "glass_blur": CorruptionFamily("Glass blur", "blur"),
    "motion_blur": CorruptionFamily("Motion blur", "blur"),
    "zoom_blur": CorruptionFamily("Zoom blur", "blur"),
    "snow": CorruptionFamily("Snow", "weather"),
    "frost": CorruptionFamily("Frost", "weather"),
    "fog": CorruptionFamily("Fog", "weather"),
    "brightness": CorruptionFamily("Brightness", "weather"),
    "contrast": CorruptionFamily("Contrast", "digital"),
    "elastic_transform": CorruptionFamily("Elastic transform", "digital"),
    "pixelate": CorruptionFamily("Pixelate", "digital"),
    "jpeg_compression": CorruptionFamily("JPEG compression", "digital"),
    "speckle_noise": CorruptionFamily("Speckle noise", "noise"),
    "gaussian_blur_c": CorruptionFamily("Gaussian blur (ImageNet-C)", "blur"),
    "spatter": CorruptionFamily("Spatter", "weather"),
    "saturate": CorruptionFamily("Saturate", "digital"),
    "poisson_noise": CorruptionFamily("Poisson noise", "noise", "the halvings of 128 photons at full white", 6),
    "salt_and_pepper": CorruptionFamily("Salt and pepper", "noise", "a percentage of pixels", 100),
    "box_blur": CorruptionFamily("Box blur", "blur", "the reach on each side in pixels", 1000),
    "median_blur": CorruptionFamily("Median blur", "blur", "the reach on each side in pixels", 50),
    "linear_motion_blur": CorruptionFamily("Linear motion blur", "blur", "the reach on each side in pixels", 100),
    "bilateral_blur": CorruptionFamily("Bilateral blur", "blur", "a spatial deviation in pixels", 50),
    "sharpen": CorruptionFamily("Sharpen", "digital", "the multiple of the detail that is added", 1000),
}
"""Corruption families by key: clean, the paper's two, ImageNet-C's 15 and its 4 extra ones (gaussian_noise is the
paper's, too), and filters with levels of their own.
"""

IMAGENET_C: tuple[str, ...] = tuple(CORRUPTION_FAMILIES)[2:17]
"""ImageNet-C's 15 corruptions in its order; mean corruption error is taken over these."""
IMAGENET_C_EXTRA: tuple[str, ...] = ("speckle_noise", "gaussian_blur_c", "spatter", "saturate")
"""ImageNet-C's four extra corruptions, meant for validation."""


@total_ordering
class Condition(ABC):
    """Treatment of an image before it is shown: nothing, a corruption, a function, a partner's picture, an attack.

    Conditions are compared, sorted and hashed by what they are.
    """

    family: str
    """Name shared by conditions that differ only in their level."""
    level: int
    """Its strength; 0 where there is only one."""

    @property
    @abstractmethod
    def key(self) -> str:
        """Name in tables and files."""

    @property
    @abstractmethod
    def title(self) -> str:
        """Name in prose."""

    @property
    @abstractmethod
    def group(self) -> str:
        """One of `GROUPS`, or another word for conditions of one kind."""

    @property
    def series(self) -> str:
        """Name of the conditions that differ from this one in their level alone."""
        return self.family

    @abstractmethod
    def _place(self) -> tuple[Any, ...]:
        """Return what conditions are sorted by: a number for the kind, then what its members are sorted by."""

    def __lt__(self, other: object) -> bool:
        return self._place() < other._place() if isinstance(other, Condition) else NotImplemented


@dataclass(frozen=True)
class Corruption(Condition):
    """One corruption of one family at one level; `CLEAN` is the family `clean` at level 0."""

    family: str
    """A key of `CORRUPTION_FAMILIES`."""
    level: int = 0
    """Level: for gaussian_blur the standard deviation in pixels at the model's input size; for gaussian_noise and
    all of ImageNet-C the severity, 1 to 5; for others see `CORRUPTION_FAMILIES`.
    """

    def __post_init__(self) -> None:
        if self.family not in CORRUPTION_FAMILIES:
            known = ", ".join(CORRUPTION_FAMILIES)
            raise ValueError(f"corruption family must be one of {known}; got {self.family!r}{_nearest(self.family)}")
        family = CORRUPTION_FAMILIES[self.family]
        if family.highest == 0:
            if self.level != 0:
                raise ValueError(f"the family {self.family!r} has only level 0: write {self.family}; got {self.level}")
            return
        if family.levels is not None and self.level not in family.levels:
            raise ValueError(f"{self.family}'s levels are {', '.join(map(str, family.levels))}; got {self.level}")
        if self.level < 1 or (family.highest is not None and self.level > family.highest):
            span = "1 or more" if family.highest is None else f"1 to {family.highest}"
            near = 1 if self.level < 1 else family.highest
            raise ValueError(
                f"{self.family}'s level is {family.level}, {span}; got {self.level}: the nearest is "
                f"{self.family}_{near}"
            )

    @property
    def key(self) -> str:
        """`clean` or `family_level`, as in file names and the `model` column of tables."""
        return f"{self.family}_{self.level}" if self.level else self.family

    @property
    def title(self) -> str:
        """Name in prose, as in `Gaussian blur 4`."""
        title = CORRUPTION_FAMILIES[self.family].title
        return f"{title} {self.level}" if self.level else title

    @property
    def group(self) -> str:
        """One of `GROUPS`, `clean`, or that of a registered function."""
        return CORRUPTION_FAMILIES[self.family].group

    def _place(self) -> tuple[Any, ...]:
        return 0, self.family, self.level

    @classmethod
    def parse(cls, key: str) -> Corruption:
        """Parse a `key`, as in `Corruption.parse("gaussian_blur_4")`.

        Raises:
            ValueError: an unknown family, or a level that it does not have.
        """
        if known := CORRUPTION_FAMILIES.get(key):
            if known.highest == 0:
                return cls(key)
            raise ValueError(f"{key} needs its level, {known.level}, as in {key}_{_lowest(known)}")
        family, _, level = key.rpartition("_")
        if not re.fullmatch("0|[1-9][0-9]*", level):
            raise ValueError(
                f"a corruption is written family_level, as in gaussian_blur_4, or clean; got {key!r}{_nearest(key)} "
                f"(families: {', '.join(f for f in CORRUPTION_FAMILIES if f != 'clean')})"
            )
        return cls(family, int(level))


def listed_order(condition: Condition) -> tuple[Any, ...]:
    """Return a sort key: corruptions as in `CORRUPTION_FAMILIES`, then by level, before all other conditions."""
    if isinstance(condition, Corruption):
        return 0, list(CORRUPTION_FAMILIES).index(condition.family), condition.level
    return condition._place()


@checked
def severities(family: str) -> tuple[Corruption, ...]:
    """Return a family at ImageNet-C's five severities.

    Raises:
        ValueError: an unknown family, or one whose levels are not severities.
    """
    found = tuple(Corruption(family, level) for level in SEVERITIES)
    if family not in IMAGENET_C + IMAGENET_C_EXTRA:
        raise ValueError(
            f"only ImageNet-C's corruptions have severities ({', '.join(IMAGENET_C + IMAGENET_C_EXTRA)}); got "
            f"{family!r}, whose level is {CORRUPTION_FAMILIES[family].level}"
        )
    return found


def _lowest(family: CorruptionFamily) -> int:
    return 1 if family.levels is None else family.levels[0]


def _nearest(name: str) -> str:
    holding = [family for family in CORRUPTION_FAMILIES if name in family]
    near = holding or get_close_matches(name, CORRUPTION_FAMILIES, n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""


CLEAN = Corruption("clean")
PAPER_CORRUPTIONS: tuple[Corruption, ...] = tuple(
    Corruption(family, level) for family in ("gaussian_blur", "gaussian_noise") for level in (1, 2, 4)
)
"""The paper's six corruptions, in its order."""
