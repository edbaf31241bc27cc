"""All settings of the experiment, and its presets, in a light module that commands import without torch."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Literal

from mechvit.data.conditions import Attack, parse_condition
from mechvit.data.corruption_spec import CLEAN, PAPER_CORRUPTIONS, Condition
from mechvit.experiment.claims.evidence import Rules
from mechvit.finetuning.config import FinetuneConfig, ViTShape
from mechvit.saes.config import SAEConfig
from mechvit.settings_checks import (
    COUNT,
    Range,
    SettingError,
    check,
    check_choice,
    check_common,
    check_seeds,
    check_some,
    listed,
)

RELATED: tuple[str, ...] = (
    "box_blur_4",
    "median_blur_4",
    "linear_motion_blur_6",
    "defocus_blur_4",
    "zoom_blur_4",
    "shot_noise_4",
    "impulse_noise_4",
    "speckle_noise_4",
    "poisson_noise_4",
    "salt_and_pepper_10",
)
"""Blurs and noises other than the paper's, about as strong as its strongest levels."""


@dataclass(frozen=True, kw_only=True)
class ImageCounts:
    """Largest number of images for each part of the experiment; no two parts share an image."""

    train: int = 3800
    """Images on which a new base model is trained."""
    validation: int = 380
    """Images by which that training's best epoch is selected."""
    finetune: int = 10_000
    """Images for fine-tuning."""
    finetune_validation: int = 1000
    """Images by which fine-tuning's best epoch is selected."""
    sae: int = 10_000
    """Images on which the SAEs are trained."""
    sae_validation: int = 500
    """Images by which the SAEs' best epoch is selected."""
    test: int = 1000
    """Test images, on which everything is evaluated."""
    attention: int = 1000
    """Test images, from the first, on which attention is compared."""
    sae_test: int = 1000
    """Test images, from the first, on which the SAEs are evaluated."""
    isolation: int = 500
    """Test images, from the first, on which the tuned models' gain is located and related filters are tested; and as
    many fine-tuning images, from which steering directions are computed."""

    def __post_init__(self) -> None:
        check(self, COUNT, *vars(self))
        check(self, Range(2), "finetune", "test", "isolation")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Settings that both runs, of the paper and of transfer, take."""

    preset: Literal["photos", "imagenet"] = "photos"
    """Preset that sets all other defaults: a small ViT on embedded photographs, or ViT-B/16 on ImageNet."""
    out: str = "runs/photos"
    """Folder of the run; an interrupted run there is continued."""
    model: str | None = None
    """Base model: folder or Hub id of an image classifier. Without one, a small base is trained first."""
    images: str = "photos"
    """`photos` (embedded), `folder:PATH` (a sub-folder for each class) or a hub data set's id."""
    limit: int | None = None
    """Largest number of images in every part, for a quick look."""
    bad_files: Literal["error", "skip"] = "error"
    """Treatment of a file that cannot be read: stop and name it, or leave it out and count it."""
    pixel_range: tuple[float, float] | None = None
    """Values of black and white in pictures of more than eight bits that do not state them, for example 0 4095."""
    unlabelled: Literal["error", "skip"] = "error"
    """Treatment of images without a label: stop and count them, or leave them out and warn."""
    device: str | None = None
    """Device to compute on; CUDA by default if there is a GPU."""
    seed: int = 0
    """Seed of the images' parts and crops, the noise, and every training."""
    verify: bool = False
    """Read every output of finished stages again and compare its hash; otherwise only those with a new size or time."""
    fresh: bool = False
    """Start over: run every stage again, including finished ones."""
    shape: ViTShape = field(default_factory=ViTShape)
    """Shape of a new base model."""
    base: FinetuneConfig = field(default_factory=FinetuneConfig)
    """Training of a new base model."""
    finetuning: FinetuneConfig = field(default_factory=FinetuneConfig)
    """Fine-tuning of every model."""


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig(RunConfig):
    """The paper as one run: fine-tune on each corruption, evaluate, look inside, train SAEs, judge the claims."""

    corruptions: tuple[str, ...] = tuple(c.key for c in PAPER_CORRUPTIONS)
    """Corruptions to fine-tune on and evaluate under: FAMILY_LEVEL, as in gaussian_blur_4."""
    related: tuple[str, ...] = RELATED
    """Other filters under which the base and each family's strongest model are tested; those tuned on are left out."""
    sae_models: Literal["strongest", "all"] = "strongest"
    """Models whose SAEs are trained: the base and the model tuned on each family's strongest level, or every model."""
    example_images: int = 4
    """Images shown in the report."""
    export: tuple[str, ...] = ()
    """Also write the figures as files of a paper's width: png, svg, pdf (commas or spaces between; needs kaleido,
    chromium)."""
    counts: ImageCounts = field(default_factory=ImageCounts)
    saes: SAEConfig = field(default_factory=SAEConfig)
    rules: Rules = field(default_factory=Rules)

    def __post_init__(self) -> None:
        check_common(self)
        check_seeds(self, "base", "finetuning", "saes")
        check_choice(self, preset=("photos", "imagenet"), sae_models=("strongest", "all"))
        check(self, Range(2), "limit", or_none=True)
        check(self, COUNT, "example_images")
        check_some(self, "corruptions", "tuned")
        if wrong := [c.key for c in (*self.tuned, *self.others) if isinstance(c, Attack) and c.victim]:
            raise SettingError(
                "corruptions",
                f"must name an attack without its model, as in pgd_4: models are tuned under it as they are, and all "
                f"are tested on the base's images; got {listed(wrong)}",
            )
        if CLEAN in self.tuned:
            raise SettingError("corruptions", "must not name clean, which every model is tested on")
        if len(set(self.others)) < len(self.others):
            raise SettingError("related", f"must name each filter once; got {listed(self.related)}")
        if self.model is None and self.images != "photos":
            raise SettingError(
                "model", f"must be given with images of your own ({self.images}): one that knows their classes"
            )
        self._check_saes()

    def _check_saes(self) -> None:
        """Refuse SAE settings that cannot work, as far as the settings tell without the given model."""
        if len(self.saes.hook_names) > 1:
            raise SettingError("hook_names", f"must be one in this run; got {listed(self.saes.hook_names)}")
        for name, values in vars(self.saes.sweep).items():
            if values:
                raise SettingError(f"saes.sweep.{name}", "is for train_sae.py: this run trains one SAE of each kind")
        if self.model is not None or self.saes.hook_names:
            return
        layer, layers = self.saes.hook_layer, self.shape.n_layers
        if layers < 2 and layer is None:
            raise SettingError("n_layers", f"must be at least 2, for SAEs on the last block but one; got {layers}")
        if layer is not None and layer >= layers:
            raise SettingError("hook_layer", f"must be below the {layers} blocks of the model; got {layer}")
        self.saes.saes({"the residual stream": self.shape.d_model})

    @property
    def tuned(self) -> tuple[Condition, ...]:
        """The conditions, parsed; an attack is the one on the base, whose images all models are shown."""
        return tuple(map(self.condition, self.corruptions))

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the conditions, which name the models tuned on them."""
        return tuple(c.key for c in self.tuned)

    def condition(self, text: str) -> Condition:
        """Parse a condition under which models are tested: an attack is on the base."""
        found = parse_condition(text)
        if not isinstance(found, Attack) or found.victim not in ("", "base"):
            return found
        return found.against(self.model or os.path.join(self.out, "models", "base"))

    @property
    def others(self) -> tuple[Condition, ...]:
        """Related filters that no model is tuned on."""
        return tuple(c for c in map(self.condition, self.related) if c not in (CLEAN, *self.tuned))

    @property
    def strongest(self) -> tuple[Condition, ...]:
        """Strongest level of each family."""
        families = dict.fromkeys(c.family for c in self.tuned)
        return tuple(max(c for c in self.tuned if c.family == family) for family in families)

    def count(self, part: str) -> int:
        """Return the largest number of images for a part."""
        count: int = getattr(self.counts, part)
        return count if self.limit is None else min(count, self.limit)


PHOTOS = ExperimentConfig(
    counts=ImageCounts(
        train=2565,
        validation=190,
        finetune=456,
        finetune_validation=114,
        sae=950,
        sae_validation=114,
        test=760,
        attention=380,
        sae_test=475,
        isolation=171,
    ),
    base=FinetuneConfig(
        learning_rate=1e-3, epochs=7, patience=7, batch_size=32, weight_decay=0.05, warmup_fraction=0.1
    ),
    finetuning=FinetuneConfig(learning_rate=3e-4, epochs=4),
    saes=SAEConfig(expansion_factor=8, epochs=8, train_batch_size_tokens=512),
)
"""Preset of `make reproduce`: a small new ViT on the embedded photographs, in minutes on two cores.

It differs from the paper in a base trained from random weights (lr 1e-3, 7 epochs), fine-tuning at lr 3e-4 for at most
4 epochs instead of 5e-5 for 10, and SAEs of expansion 8 instead of 32 (two thirds of 3,072 latents would die on 35,150
tokens per epoch), trained for at most 8 epochs of small batches instead of 15. The base's test accuracy and every
stage's time are in the run's report.
"""

IMAGENET = ExperimentConfig(
    preset="imagenet",
    out="runs/imagenet",
    model="google/vit-base-patch16-224",
    images="ILSVRC/imagenet-1k",
)
"""The paper's setting: ViT-B/16, 10k validation images for fine-tuning at lr 5e-5 for up to 10 epochs, 1k for
evaluation, SAEs of expansion 32 and k = 32 for up to 15 epochs."""

PRESETS: dict[str, ExperimentConfig] = {"photos": PHOTOS, "imagenet": IMAGENET}
