"""Names of corruptions, in a light module that command lines import without torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches

from mechvit.arguments import checked

GROUPS: tuple[str, ...] = ("noise", "blur", "weather", "digital")
"""ImageNet-C's groups of corruptions (arXiv:1903.12261, section 4.1)."""
SEVERITIES: tuple[int, ...] = (1, 2, 3, 4, 5)
"""Severities of ImageNet-C's corruptions."""
LONGEST_KEY = 120
"""Most characters in a mixture's key, which names folders and files."""


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
    """Highest level; None where the image's size limits it. The lowest is 1."""


FAMILIES: dict[str, CorruptionFamily] = {
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

IMAGENET_C: tuple[str, ...] = tuple(FAMILIES)[2:17]
"""ImageNet-C's 15 corruptions in its order; mean corruption error is taken over these."""
IMAGENET_C_EXTRA: tuple[str, ...] = ("speckle_noise", "gaussian_blur_c", "spatter", "saturate")
"""ImageNet-C's four extra corruptions, meant for validation."""


@dataclass(frozen=True, order=True)
class Corruption:
    """One corruption of one family at one level; `CLEAN` is the family `clean` at level 0."""

    family: str
    """A key of `FAMILIES`."""
    level: int = 0
    """Level: for gaussian_blur the standard deviation in pixels at the model's input size; for gaussian_noise and
    all of ImageNet-C the severity, 1 to 5; for others see `FAMILIES`.
    """

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(
                f"corruption family must be one of {', '.join(FAMILIES)}; got {self.family!r}{_nearest(self.family)}"
            )
        if self.family == "clean":
            if self.level != 0:
                raise ValueError(f"the family 'clean' has only level 0; got {self.level}")
            return
        family = FAMILIES[self.family]
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
        return "clean" if self.family == "clean" else f"{self.family}_{self.level}"

    @property
    def title(self) -> str:
        """Name in prose, as in `Gaussian blur 4`."""
        title = FAMILIES[self.family].title
        return title if self.family == "clean" else f"{title} {self.level}"

    @property
    def group(self) -> str:
        """One of `GROUPS`, or `clean`."""
        return FAMILIES[self.family].group

    @classmethod
    def parse(cls, key: str) -> Corruption:
        """Parse a `key`, as in `Corruption.parse("gaussian_blur_4")`.

        Raises:
            ValueError: an unknown family, or a level that it does not have.
        """
        if key == "clean":
            return CLEAN
        family, _, level = key.rpartition("_")
        if not re.fullmatch("0|[1-9][0-9]*", level):
            raise ValueError(
                f"a corruption is written family_level, as in gaussian_blur_4, or clean; got {key!r}{_nearest(key)} "
                f"(families: {', '.join(f for f in FAMILIES if f != 'clean')})"
            )
        return cls(family, int(level))


@dataclass(frozen=True)
class Mixture:
    """Several corruptions to train on at once: each image gets one of them in each epoch."""

    members: tuple[Corruption, ...]
    """At least two, each once; clean may be among them. Kept in the order of `FAMILIES`, then by level."""
    name: str = ""
    """Name in tables, folders and figures; by default the members' keys, joined by `+`."""

    def __post_init__(self) -> None:
        order = sorted(self.members, key=lambda c: (list(FAMILIES).index(c.family), c.level))
        if len(order) < 2 or len(set(order)) < len(order):
            raise ValueError(
                "a mixture needs at least two corruptions, each once, as in gaussian_blur_4+gaussian_noise_4; got "
                f"{'+'.join(c.key for c in self.members) or 'none'}"
            )
        object.__setattr__(self, "members", tuple(order))
        taken = self.name in ("base", "clean") or self.name.rpartition("_")[0] in FAMILIES
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
        return cls(tuple(Corruption.parse(key) for key in members.split("+")), name)


@checked
def parse_training(text: str) -> Corruption | Mixture:
    """Parse what a model is trained on: a corruption's key, or a mixture as `Mixture.parse` takes it."""
    return Mixture.parse(text) if "+" in text or "=" in text else Corruption.parse(text)


def as_corruption(corruption: Corruption | str) -> Corruption:
    """Return a corruption unchanged, or parse its key."""
    return Corruption.parse(corruption) if isinstance(corruption, str) else corruption


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
            f"{family!r}, whose level is {FAMILIES[family].level}"
        )
    return found


def _nearest(name: str) -> str:
    near = [family for family in FAMILIES if name in family] or get_close_matches(name, FAMILIES, n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""


CLEAN = Corruption("clean")
PAPER_CORRUPTIONS: tuple[Corruption, ...] = tuple(
    Corruption(family, level) for family in ("gaussian_blur", "gaussian_noise") for level in (1, 2, 4)
)
"""The paper's six corruptions, in its order."""
