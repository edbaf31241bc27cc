"""The names of corruptions: a light module that command lines import without torch."""

from __future__ import annotations

from dataclasses import dataclass

FAMILIES: dict[str, str] = {
    "clean": "Clean",
    "gaussian_blur": "Gaussian blur",
    "gaussian_noise": "Gaussian noise",
}
"""Each corruption family and its name in prose."""


@dataclass(frozen=True, order=True)
class Corruption:
    """One corruption of one family at one level; `CLEAN` is the family `clean` at level 0."""

    family: str
    """A key of `FAMILIES`."""
    level: int = 0
    """gaussian_blur: standard deviation in pixels at the model's input size.
    gaussian_noise: ImageNet-C severity, 1 to 5."""

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(f"corruption family must be one of {', '.join(FAMILIES)}; got {self.family!r}")
        if self.family == "clean" and self.level != 0:
            raise ValueError(f"the family 'clean' has only level 0; got {self.level}")
        if self.family == "gaussian_blur" and self.level < 1:
            raise ValueError(f"gaussian_blur's level is a deviation of at least 1 pixel; got {self.level}")
        if self.family == "gaussian_noise" and not 1 <= self.level <= 5:
            raise ValueError(f"gaussian_noise's level is an ImageNet-C severity, 1 to 5; got {self.level}")

    @property
    def key(self) -> str:
        """`clean` or `family_level`, as file names and the `model` column of tables use it."""
        return "clean" if self.family == "clean" else f"{self.family}_{self.level}"

    @property
    def title(self) -> str:
        """The name in prose, as in `Gaussian blur 4`."""
        return FAMILIES[self.family] if self.family == "clean" else f"{FAMILIES[self.family]} {self.level}"

    @classmethod
    def parse(cls, key: str) -> Corruption:
        """Read a `key` back, as in `Corruption.parse("gaussian_blur_4")`."""
        if key == "clean":
            return CLEAN
        family, _, level = key.rpartition("_")
        if not level.isdigit():
            raise ValueError(
                f"a corruption is written family_level, as in gaussian_blur_4, or clean; got {key!r} "
                f"(families: {', '.join(f for f in FAMILIES if f != 'clean')})"
            )
        return cls(family, int(level))


CLEAN = Corruption("clean")
PAPER_CORRUPTIONS: tuple[Corruption, ...] = tuple(
    Corruption(family, level) for family in ("gaussian_blur", "gaussian_noise") for level in (1, 2, 4)
)
"""The six corruptions of the paper, in its order."""
