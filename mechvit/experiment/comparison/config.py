"""Settings of a comparison, in a light module that its command imports without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from mechvit.saes.config import SAEConfig
from mechvit.settings_checks import (
    COUNT,
    SHARE_ABOVE_ZERO,
    Range,
    SettingError,
    check,
    check_choice,
    check_common,
    check_number,
    check_seeds,
    check_some,
)

HeadName = Literal["auto", "own", "tuned", "probe", "none"]
"""Head through which both models are read."""
SectionName = Literal[
    "behaviour", "depth", "attention", "weights", "difference", "causes", "conditions", "saes", "pictures"
]
"""Sections of a comparison, in the order in which they run."""
SECTIONS: tuple[str, ...] = get_args(SectionName)
QUICK_SECTIONS: tuple[str, ...] = ("behaviour", "depth", "attention", "weights", "causes", "pictures")
"""Sections of a quick comparison."""


@dataclass(frozen=True, kw_only=True)
class SectionLimits:
    """Largest number of images that each section takes, from the first; every number can be raised."""

    behaviour: int = 10_000
    """Images on which predictions are compared."""
    depth: int = 1000
    """Images on which residual streams and lenses are compared."""
    attention: int = 500
    """Images on which attention patterns are compared."""
    difference: int = 500
    """Unrelated images over which the difference lens takes its means."""
    causes: int = 96
    """Images on which activations and weights are exchanged; half of them choose, the other half confirm."""
    conditions: int = 1000
    """Images that are shown under each condition, to each model."""
    saes: int = 500
    """Images on which SAEs are evaluated; `train` uses as many others to train them."""
    pictures: int = 6
    """Images shown in the report: those whose predictions differ most."""

    def __post_init__(self) -> None:
        check(self, COUNT, *vars(self))
        check(self, Range(2), "causes")


QUICK = SectionLimits(
    behaviour=64, depth=64, attention=64, difference=64, causes=12, conditions=64, saes=64, pictures=4
)
"""Limits of a quick comparison."""


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """The models, the images, the head through which models are read, and the place of the report."""

    models: tuple[str, ...]
    """The base, then one or several models tuned from it: folders or Hub ids."""
    out: str
    """Folder of the run, with report.html; an interrupted run there is continued."""
    images: str = "photos"
    """`photos` (embedded), `folder:PATH` or a Hub data set's id; without class folders the images have no labels."""
    conditions: tuple[str, ...] = ()
    """Conditions besides clean images: gaussian_blur_4, my_file.py:haze_3, paired:DIR, pgd_4 (an attack)."""
    head: HeadName = "auto"
    """own: each model's; tuned: the tuned model's on both; probe: a linear probe fitted for each; none. auto takes own
    where the classes are the same, else tuned, beside probe where there are labels."""
    saes: tuple[str, ...] = ()
    """`train` to train one on each model, or folders of SAEs of the base and the tuned models, in their order."""
    sae_training: SAEConfig = field(default_factory=lambda: SAEConfig(architectures=("batchtopk",)))
    """Training of the SAEs, with `--saes train`: on half of the images; the other half is measured."""
    nulls: tuple[str, ...] = ()
    """Null models, as `mechvit nulls` makes them: folders of these, or checkpoints of the base tuned on clean images.
    At least two give every difference the limits within which one more of them would fall."""
    sections: tuple[SectionName, ...] = SECTIONS  # type: ignore[assignment]
    """Sections to run; `conditions` needs conditions, and `saes` needs --saes."""
    quick: bool = False
    """Take at most 64 images (12 for causes), and exchange single blocks only: a first look, within minutes."""
    unrelated: str = "photos"
    """Images for the difference lens, of any other kind than those compared; as for images."""
    groups: str | None = None
    """Further groups by which behaviour is tabled: parent (the folder that each file is in), a regular expression with
    named groups that is searched in each file's path, or a .csv or .tsv file with a column path and one for each
    group."""
    cluster: str | None = None
    """Clusters of images that are not independent of each other (patient, scene, video): the name of one of the groups;
    parent; a regular expression with a group called cluster (and maybe one called stratum); or a .csv or .tsv file with
    such columns. The photos have their own."""
    pictures: tuple[str, ...] = ()
    """Picture files in any format that Pillow opens, instead of images; they have no labels."""
    limit: int | None = None
    """Largest number of images; None uses all."""
    limits: SectionLimits = field(default_factory=SectionLimits)
    bad_files: Literal["error", "skip"] = "error"
    """Treatment of a file that cannot be read: stop and name it, or leave it out and warn."""
    pixel_range: tuple[float, float] | None = None
    """Values of black and white in pictures of more than eight bits that do not state them, for example 0 4095."""
    unlabelled: Literal["keep", "skip", "error"] = "keep"
    """Treatment of images without a label: keep them (a folder's without sub-folders, say), leave them out and warn, or
    stop and count them."""
    device: str | None = None
    """Device to compute on, as in cuda:0 or cpu; CUDA by default if there is a GPU."""
    model_dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32"
    """Precision in which models compute, whatever their checkpoints' dtype."""
    batch_size: int | None = None
    """Images per forward pass; None uses 32 on a CPU, else 128."""
    seed: int = 0
    """Seed of noise, folds, random directions and the bootstrap."""
    recovered: float = 0.9
    """Share of the KL divergence that a run of blocks must recover, in both directions, to be called the place."""
    verify: bool = False
    """Read every output of finished stages again and compare its hash; otherwise only those with a new size or time."""
    fresh: bool = False
    """Start over: run every stage again, including finished ones."""

    def __post_init__(self) -> None:
        self._check_kinds()
        check_common(self)
        check_some(self, "models", "sections")
        check_some(self, "conditions", "saes", "nulls", or_none=True)
        if len(self.models) < 2:
            raise SettingError("models", f"must be a base and at least one tuned model; got {self.models[0]} alone")
        check_choice(self, head=get_args(HeadName), sections=SECTIONS)
        check_seeds(self, "sae_training")
        check_number("recovered", self.recovered, SHARE_ABOVE_ZERO)
        if self.saes not in ((), ("train",)) and len(self.saes) != len(self.models):
            raise SettingError(
                "saes",
                f"must be `train`, or one folder for each of the {len(self.models)} models, in their order; got "
                f"{len(self.saes)}",
            )
        self._check_sections()

    def _check_kinds(self) -> None:
        """Refuse values of another kind, as a call in Python may give them, and turn lists into tuples.

        Raises:
            SettingError: names the first of these.
        """
        for name in ("models", "conditions", "saes", "nulls", "sections", "pictures"):
            given = getattr(self, name)
            if not isinstance(given, (list, tuple)):
                raise SettingError(name, f"must be a list, as in [{given!r}]; got {type(given).__name__}")
            if other := [each for each in given if not isinstance(each, str)]:
                raise SettingError(name, f"must be a list of texts; it holds a {type(other[0]).__name__}")
            object.__setattr__(self, name, tuple(given))
        for names, kind in (
            (("quick", "verify", "fresh"), bool),
            (("limits",), SectionLimits),
            (("sae_training",), SAEConfig),
            (("images", "unrelated", "out"), str),
            (("groups", "cluster", "device"), (str, type(None))),
        ):
            for name in names:
                if not isinstance(given := getattr(self, name), kind):
                    wanted = kind[0].__name__ if isinstance(kind, tuple) else kind.__name__
                    raise SettingError(name, f"must be a {wanted}; got {given!r}")

    def _check_sections(self) -> None:
        """Refuse sections and SAEs that were asked for and would be left out.

        Raises:
            SettingError: names them and what leaves them out.
        """
        if self.saes and "saes" not in self.chosen:
            why = "a quick comparison leaves them out" if self.quick else "the sections leave them out"
            raise SettingError("saes", f"must not be given, for {why}; got {', '.join(self.saes)}")
        if tuple(self.sections) == SECTIONS:
            return
        reasons = {"conditions": "conditions", "saes": "SAEs"}
        for name in self.sections:
            if name not in self.chosen:
                why = f"needs {reasons[name]}" if name in reasons else "a quick comparison leaves out"
                raise SettingError("sections", f"must hold only what is measured; got {name}, which {why}")
        if "pictures" in self.sections and "behaviour" not in self.sections:
            raise SettingError("sections", "must hold behaviour where it holds pictures, which are chosen by it")

    @property
    def chosen(self) -> tuple[str, ...]:
        """Sections that run, in order: those asked for that the conditions, the SAEs and `quick` leave."""
        lacking = {name for name in ("conditions", "saes") if not getattr(self, name)}
        if self.quick:
            lacking |= set(SECTIONS) - set(QUICK_SECTIONS) - {"conditions"}
        return tuple(name for name in SECTIONS if name in self.sections and name not in lacking)

    def count(self, section: str) -> int:
        """Return the largest number of images for a section; 0 for one that needs none."""
        most: int = getattr(self.limits, section, 0)
        if self.quick:
            most = min(most, getattr(QUICK, section, 0))
        return most if self.limit is None else min(most, self.limit)
