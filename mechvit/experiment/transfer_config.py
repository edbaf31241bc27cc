"""All settings of the transfer experiment, in a light module that commands import without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

from mechvit.data.conditions import parse_condition
from mechvit.data.corruption_spec import (
    CLEAN,
    CORRUPTION_FAMILIES,
    GROUPS,
    IMAGENET_C,
    PAPER_CORRUPTIONS,
    SEVERITIES,
    Condition,
    Corruption,
)
from mechvit.data.mixture_spec import Mixture, parse_training
from mechvit.saes.config import SAEConfig
from mechvit.settings_checks import COUNT, RESAMPLES_RANGE, SettingError, check, check_common, listed

from .config import IMAGENET, PHOTOS, ExperimentConfig, ImageCounts, RunConfig

FILTERS: tuple[str, ...] = (
    "gaussian_noise_4",
    "shot_noise_4",
    "speckle_noise_5",
    "salt_and_pepper_10",
    "gaussian_blur_4",
    "motion_blur_4",
    "box_blur_4",
    "median_blur_3",
)
"""Four kinds of noise and four of blur, for transfer within and across groups."""
LISTS: dict[str, tuple[str, ...]] = {
    "filters": FILTERS,
    "paper": tuple(c.key for c in PAPER_CORRUPTIONS),
    "imagenet_c": IMAGENET_C,
    **{group: tuple(f for f in IMAGENET_C if CORRUPTION_FAMILIES[f].group == group) for group in GROUPS},
}
"""Words that stand for several corruptions; those of families take a severity, as in imagenet_c_3 or blur_5."""
SEVERITY = 4
"""Severity of families that are named without one."""


@dataclass(frozen=True, kw_only=True)
class TransferCounts:
    """Largest number of images for each part; no two parts share an image."""

    train: int = 2565
    """Images on which a new base model is trained."""
    validation: int = 190
    """Images by which that training's best epoch is selected."""
    finetune: int = 10_000
    """Images on which every model is fine-tuned."""
    finetune_validation: int = 1000
    """Images by which every fine-tuning's best epoch is selected."""
    test: int = 1000
    """Images on which every model is tested, under every corruption."""
    spectrum: int = 64
    """Test images, from the first, over which the corruptions' spectra are averaged."""

    def __post_init__(self) -> None:
        check(self, COUNT, *vars(self))


@dataclass(frozen=True, kw_only=True)
class TransferConfig(RunConfig):
    """Train one model on each corruption, test all on all."""

    out: str = "runs/transfer"
    """Folder of the run; an interrupted run there is continued."""
    corruptions: tuple[str, ...] = ("filters",)
    """Corruptions to train on, one model each, and to test all models under: FAMILY_LEVEL, as in box_blur_3, or a word
    for several: filters (four kinds of noise, four of blur), paper (its six), imagenet_c (its fifteen), noise, blur,
    weather or digital (ImageNet-C's of that group), of severity 4 or as in imagenet_c_3."""
    mixtures: tuple[str, ...] = ("all",)
    """Mixtures to train further models on, where each image gets one member in each epoch: A+B, as in
    box_blur_3+gaussian_noise_4 (clean may be a member), NAME=A+B to name it, all for all corruptions of the run, or
    noise, blur, weather or digital for those of the group. Give none to leave them out."""
    also_tested: tuple[str, ...] = ()
    """Further corruptions to test under, on which no model is trained."""
    control: bool = True
    """Also fine-tune a model on clean images: its gain comes from more training, not from corruption."""
    batch_size: int | None = None
    """Images per forward pass in tests; None uses 32 on a CPU, else 128. All models are in memory at once."""
    seed: int = 0
    """Seed of the images' parts and crops, the noise, the mixtures' draws, every training and the bootstrap."""
    resamples: int = 2000
    """Number of bootstrap resamples over test images."""
    counts: TransferCounts = field(default_factory=TransferCounts)

    def __post_init__(self) -> None:
        check_common(self)
        check(self, RESAMPLES_RANGE, "resamples")
        if len(self.single) < 2:
            raise SettingError(
                "corruptions", f"must name at least two to transfer between; got {listed(self.corruptions) or 'none'}"
            )
        keys = [what.key for what in self.mixed]
        if len(set(keys)) < len(keys):
            raise ValueError(f"each mixture may be given once; got {', '.join(keys)}")
        _ = self.tested, self.experiment()  # refuse what cannot be run before anything is computed

    @property
    def single(self) -> tuple[Condition, ...]:
        """Corruptions on which models are trained, one each."""
        found = tuple(dict.fromkeys(c for word in self.corruptions for c in corruptions_of(word)))
        if CLEAN in found:
            raise SettingError(
                "corruptions", "must not name clean; a model trained on clean images comes with control=True"
            )
        return found

    @property
    def mixed(self) -> tuple[Mixture, ...]:
        """Mixtures on which models are trained."""
        return tuple(mixture_of(word, self.single) for word in self.mixtures)

    @property
    def trained(self) -> dict[str, Condition | Mixture]:
        """Training corruption or mixture of each model, by the model's key."""
        control = (CLEAN,) if self.control else ()
        return {what.key: what for what in (*control, *self.single, *self.mixed)}

    @property
    def tested(self) -> tuple[Condition, ...]:
        """Corruptions under which all models are tested, clean images first."""
        more = (c for word in self.also_tested for c in corruptions_of(word))
        members = (c for mixture in self.mixed for c in mixture.members)
        return tuple(dict.fromkeys((CLEAN, *self.single, *members, *more)))

    def experiment(self) -> ExperimentConfig:
        """Return the settings shared with the paper's run: base, images, fine-tuning."""
        counts = {name: n for name, n in vars(self.counts).items() if name != "spectrum"}
        return ExperimentConfig(
            **{setting.name: getattr(self, setting.name) for setting in fields(RunConfig)},
            corruptions=tuple(c.key for c in self.single),
            counts=replace(ImageCounts(), **counts),
            saes=SAEConfig(hook_layer=0, k=1),  # none is trained; these fit any model
        )


def corruptions_of(word: str) -> tuple[Condition, ...]:
    """Return a corruption by its key, or all those that a word of `LISTS` stands for, with or without a severity.

    Raises:
        ValueError: `word` is neither, or its severity is invalid.
    """
    name, _, level = word.rpartition("_")
    listed, severity = (LISTS[name], level) if name in LISTS else (LISTS.get(word, ()), str(SEVERITY))
    if not listed:
        return (parse_condition(word),)
    if listed[0] not in CORRUPTION_FAMILIES and name in LISTS:
        raise ValueError(f"{name} names corruptions with their levels and takes no severity; got {word!r}")
    if severity not in map(str, SEVERITIES):
        raise ValueError(f"a severity is 1 to 5; got {word!r}")
    return tuple(
        Corruption(key, int(severity)) if key in CORRUPTION_FAMILIES else parse_condition(key) for key in listed
    )


def mixture_of(word: str, chosen: Sequence[Condition]) -> Mixture:
    """Return a mixture in the form of `Mixture.parse`, or one of all chosen corruptions or of those of a group.

    Raises:
        ValueError: `word` is no mixture, or fewer than two corruptions of the group were chosen.
    """
    if word in ("all", *GROUPS):
        members = tuple(c for c in chosen if word in ("all", c.group))
        if len(members) < 2:
            raise ValueError(
                f"a mixture needs two corruptions at least; of {word} there are {len(members)} in this run"
            )
        return Mixture(members, f"mixture_of_{word}")
    found = parse_training(word)
    if not isinstance(found, Mixture):
        raise ValueError(f"a mixture joins corruptions by +, as in {found.key}+gaussian_noise_4; got {word!r}")
    return found


PRESETS: dict[str, TransferConfig] = {
    "photos": TransferConfig(
        counts=TransferCounts(finetune=456, finetune_validation=114, test=475),
        base=PHOTOS.base,
        finetuning=PHOTOS.finetuning,
    ),
    "imagenet": TransferConfig(
        preset="imagenet", out="runs/transfer-imagenet", model=IMAGENET.model, images=IMAGENET.images
    ),
}
"""Presets. photos: as in the paper's run on photographs, fine-tuning at lr 3e-4 for at most 4 epochs of 456 images; 475
test images (25 per photograph), since every model is tested on them under every corruption. imagenet: the paper's
setting, lr 5e-5 for at most 10 epochs of 10,000 images."""
