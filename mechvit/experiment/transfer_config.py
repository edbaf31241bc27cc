"""Every setting of the transfer experiment: a light module that command lines import without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from mechvit.data.corruption_spec import (
    CLEAN,
    FAMILIES,
    GROUPS,
    IMAGENET_C,
    PAPER_CORRUPTIONS,
    SEVERITIES,
    Corruption,
    Mixture,
    parse_training,
)
from mechvit.finetuning.config import FinetuneConfig, ViTShape
from mechvit.saes.config import SAEConfig
from mechvit.settings_checks import COUNT, RESAMPLES_RANGE, SettingError, check, check_common, listed

from .config import IMAGENET, PHOTOS, ExperimentConfig, ImageCounts

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
"""Four kinds of noise and four of blur, to see what passes between the filters of one group and across."""
LISTS: dict[str, tuple[str, ...]] = {
    "filters": FILTERS,
    "paper": tuple(c.key for c in PAPER_CORRUPTIONS),
    "imagenet_c": IMAGENET_C,
    **{group: tuple(f for f in IMAGENET_C if FAMILIES[f].group == group) for group in GROUPS},
}
"""Words that stand for several corruptions; those of families take a severity, as in imagenet_c_3 or blur_5."""
SEVERITY = 4
"""The severity of families that are named without one."""


@dataclass(frozen=True, kw_only=True)
class TransferCounts:
    """How many images each part takes, at most; the parts never share an image."""

    train: int = 2565
    """Images that a base model of its own is trained on."""
    validation: int = 190
    """Images that choose that training's best epoch."""
    finetune: int = 10_000
    """Images that every model is fine-tuned on."""
    finetune_validation: int = 1000
    """Images that choose every fine-tuning's best epoch."""
    test: int = 1000
    """Images that every model is tested on, under every corruption."""
    spectrum: int = 64
    """Images of these, from the first, that the corruptions' spectra are averaged over."""

    def __post_init__(self) -> None:
        check(self, COUNT, *vars(self))


@dataclass(frozen=True, kw_only=True)
class TransferConfig:
    """Train one model on each corruption, test all on all."""

    preset: Literal["photos", "imagenet"] = "photos"
    """Where the defaults of all other settings come from: a small ViT on embedded photographs, or ViT-B/16 on
    ImageNet."""
    out: str = "runs/transfer"
    """Folder of the run; an earlier one that was cut off is continued."""
    corruptions: tuple[str, ...] = ("filters",)
    """What models are trained on, one each, and all are tested under: FAMILY_LEVEL, as in box_blur_3, or a word that
    stands for several: filters (four kinds of noise, four of blur), paper (its six), imagenet_c (its fifteen), noise,
    blur, weather or digital (ImageNet-C's of that group), of severity 4 or as in imagenet_c_3."""
    mixtures: tuple[str, ...] = ("all",)
    """What further models are trained on, each image of each epoch getting one member: A+B, as in
    box_blur_3+gaussian_noise_4 (clean may be one), NAME=A+B to give it a name, all for all corruptions of the run, or
    noise, blur, weather or digital for those of the group. Give none to leave them out."""
    also_tested: tuple[str, ...] = ()
    """More corruptions to test under, that no model is trained on."""
    control: bool = True
    """Also fine-tune a model on clean images: what it gains comes from more training, not from corruption."""
    model: str | None = None
    """Base model: folder or hub id of an image classifier. Without one a small base is trained first."""
    images: str = "photos"
    """`photos` (embedded), `folder:PATH` (a sub-folder for each class) or a hub data set's id."""
    limit: int | None = None
    """At most this many images of every part, for a quick look."""
    bad_files: Literal["error", "skip"] = "error"
    """What to do with a file that cannot be read: stop and name it, or leave it out and count it."""
    pixel_range: tuple[float, float] | None = None
    """The values of black and white in pictures of more than eight bits, where they do not state them, as in 0 4095."""
    unlabelled: Literal["error", "skip"] = "error"
    """What to do with images that have no label: stop and count them, or leave them out and warn."""
    device: str | None = None
    """Where to compute; CUDA where there is one."""
    batch_size: int | None = None
    """Images per forward pass in tests; None uses 32 on a CPU, else 128. All models are in memory at once."""
    verify: bool = False
    """Read every output of finished stages again and compare its hash; else those alone whose size or time changed."""
    fresh: bool = False
    """Start over: do every stage again, also those that are done."""
    seed: int = 0
    """Of the images' parts and crops, the noise, the mixtures' draws, every training and the bootstrap."""
    resamples: int = 2000
    """Resamples of the bootstrap over test images."""
    counts: TransferCounts = field(default_factory=TransferCounts)
    shape: ViTShape = field(default_factory=ViTShape)
    """Shape of a base model of its own."""
    base: FinetuneConfig = field(default_factory=FinetuneConfig)
    """Training of a base model of its own."""
    finetuning: FinetuneConfig = field(default_factory=FinetuneConfig)
    """Of every model, alike."""

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
    def single(self) -> tuple[Corruption, ...]:
        """The corruptions that models are trained on, one each."""
        found = tuple(dict.fromkeys(c for word in self.corruptions for c in corruptions_of(word)))
        if CLEAN in found:
            raise SettingError(
                "corruptions", "must not name clean; a model trained on clean images comes with control=True"
            )
        return found

    @property
    def mixed(self) -> tuple[Mixture, ...]:
        """The mixtures."""
        return tuple(mixture_of(word, self.single) for word in self.mixtures)

    @property
    def trained(self) -> dict[str, Corruption | Mixture]:
        """What each model is trained on, by the model's key."""
        control = (CLEAN,) if self.control else ()
        return {what.key: what for what in (*control, *self.single, *self.mixed)}

    @property
    def tested(self) -> tuple[Corruption, ...]:
        """What all models are tested under, clean images first."""
        more = (c for word in self.also_tested for c in corruptions_of(word))
        members = (c for mixture in self.mixed for c in mixture.members)
        return tuple(dict.fromkeys((CLEAN, *self.single, *members, *more)))

    def experiment(self) -> ExperimentConfig:
        """The settings of the parts that this shares with the paper's run: base, images, fine-tuning."""
        counts = {name: n for name, n in vars(self.counts).items() if name != "spectrum"}
        return ExperimentConfig(
            preset=self.preset,
            out=self.out,
            model=self.model,
            images=self.images,
            limit=self.limit,
            bad_files=self.bad_files,
            pixel_range=self.pixel_range,
            unlabelled=self.unlabelled,
            corruptions=tuple(c.key for c in self.single),
            device=self.device,
            verify=self.verify,
            fresh=self.fresh,
            seed=self.seed,
            counts=replace(ImageCounts(), **counts),
            shape=self.shape,
            base=self.base,
            finetuning=self.finetuning,
            saes=SAEConfig(hook_layer=0, k=1),  # it trains none: the least that any model has
        )


def corruptions_of(word: str) -> tuple[Corruption, ...]:
    """One corruption by its key, or all that a word of `LISTS` stands for, with a severity or without.

    Raises:
        ValueError: neither.
    """
    name, _, level = word.rpartition("_")
    listed, severity = (LISTS[name], level) if name in LISTS else (LISTS.get(word, ()), str(SEVERITY))
    if not listed:
        return (Corruption.parse(word),)
    if listed[0] not in FAMILIES and name in LISTS:
        raise ValueError(f"{name} names corruptions with their levels and takes no severity; got {word!r}")
    if severity not in map(str, SEVERITIES):
        raise ValueError(f"a severity is 1 to 5; got {word!r}")
    return tuple(Corruption(key, int(severity)) if key in FAMILIES else Corruption.parse(key) for key in listed)


def mixture_of(word: str, chosen: Sequence[Corruption]) -> Mixture:
    """A mixture as `Mixture.parse` takes it; or of all chosen corruptions, or of those of a group.

    Raises:
        ValueError: no mixture, or a group of which fewer than two were chosen.
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
"""photos: as the photographs' run of the paper, fine-tuning at lr 3e-4 for at most 4 epochs of 456 images; 475 test
images (25 a photograph), since every model is tested on them under every corruption.
imagenet: the paper's setting, lr 5e-5 for at most 10 epochs of 10,000 images."""
