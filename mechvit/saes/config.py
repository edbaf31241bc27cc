"""Settings of SAE training, in a light module that commands import without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Literal, get_args

from mechvit.settings_checks import (
    COUNT,
    COUNT_OR_ZERO,
    NOT_NEGATIVE,
    POSITIVE,
    SEED,
    SHARE,
    SHARE_BELOW_ONE,
    Range,
    SettingError,
    check,
    check_choice,
    check_named,
    check_some,
    listed,
)

Architecture = Literal["standard", "batchtopk", "topk", "jumprelu", "gated", "matryoshka_batchtopk"]
HookTokens = Literal["all", "patches", "cls"]

ARCHITECTURES: tuple[str, ...] = get_args(Architecture)
"""sae-lens's names: `standard` is the vanilla SAE (ReLU and an L1 penalty), `batchtopk` is arXiv:2412.06410, `topk`
arXiv:2406.04093, `jumprelu` arXiv:2407.14435, `gated` arXiv:2404.16014, `matryoshka_batchtopk` arXiv:2503.17547."""

PENALISED = ("standard", "jumprelu", "gated")
"""Architectures made sparse by a penalty, whose coefficient is given or adjusted; the others keep the k largest."""


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """Settings of the conversion of images to batches of activations."""

    hook_layer: int | None = None
    """Block whose output (`hook_resid_post`) the SAEs read. None selects the last but one: the penultimate residual."""
    hook_names: tuple[str, ...] = ()
    """Hook points to read instead, such as blocks.4.hook_mlp_out, from one forward pass; SAEs are trained on each."""
    tokens: HookTokens = "all"
    """Tokens that the SAEs read: all of them, the image patches only, or the class token only."""
    clean_fraction: float = 0.5
    """Share of images that stay clean; each of the others gets one of the corruptions, drawn anew every epoch."""
    images_per_batch: int = 64
    """Images per forward pass of the ViT."""
    buffer_images: int = 256
    """Images whose tokens are mixed at once."""
    segment_images: int = 8192
    """Approximate number of images that are mixed without a break. A run interrupted within an epoch repeats the
    forward passes of its segment; the tokens of a segment's last partial batch are dropped."""
    calibration_images: int = 256
    """Training images for values set from data: the initial weights, and batchtopk's threshold before publication."""
    train_batch_size_tokens: int = 4096
    """Tokens per training step."""
    seed: int = 0
    """Seed of the initial weights, the order of the images, and the choice of each image's corruption."""

    def __post_init__(self) -> None:
        images = ("images_per_batch", "buffer_images", "segment_images", "calibration_images")
        check(self, COUNT, *images, "train_batch_size_tokens")
        check(self, SHARE, "clean_fraction")
        check(self, SEED, "seed")
        check(self, COUNT_OR_ZERO, "hook_layer", or_none=True)
        check_choice(self, tokens=get_args(HookTokens))
        check_named(self, "hook_names")
        check_some(self, "hook_names", or_none=True)
        if self.hook_names and self.hook_layer is not None:
            raise SettingError(
                "hook_names", f"or hook_layer, not both; got {listed(self.hook_names)} and {self.hook_layer}"
            )

    def segments(self, n_images: int) -> int:
        """Return the number of segments of about equal length into which `n_images` images are split."""
        return max(1, round(n_images / self.segment_images))

    def shortest_segment(self, n_images: int) -> int:
        """Return the number of images in the shortest segment."""
        return n_images // self.segments(n_images)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Values to try in place of a single setting: one SAE per combination. An empty tuple keeps the single value."""

    expansion_factor: tuple[int, ...] = ()
    k: tuple[int, ...] = ()
    lr: tuple[float, ...] = ()
    l1_coefficient: tuple[float, ...] = ()
    """Used by the architectures with a penalty only."""

    def __post_init__(self) -> None:
        check_some(self, *vars(self), or_none=True)
        check(self, COUNT, "expansion_factor", "k")
        check(self, POSITIVE, "lr")
        check(self, NOT_NEGATIVE, "l1_coefficient")


@dataclass(frozen=True, kw_only=True)
class SAESpec:
    """One SAE of a training run: the settings that may differ between SAEs trained in lockstep."""

    name: str
    """Name of its folder: the architecture, the hook point if there are several, and the settings that vary."""
    hook_name: str
    architecture: str
    expansion_factor: int
    k: int
    lr: float
    l1_coefficient: float | None
    """None adjusts the penalty, if the architecture has one, so that L0 stays at `k`."""

    @property
    def aims_at_k(self) -> bool:
        """Whether a penalty brings L0 to `k`."""
        return self.architecture in PENALISED and self.l1_coefficient is None

    @property
    def steered(self) -> bool:
        """Whether the penalty's coefficient is adjusted to L0; jumprelu's quadratic penalty aims at `k` by itself."""
        return self.aims_at_k and self.architecture != "jumprelu"


_SHORT = {"expansion_factor": "x", "k": "k", "lr": "lr", "l1_coefficient": "l1_"}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of sparse autoencoders that are trained in lockstep on one stream of activations.

    The defaults are the paper's where it states them: expansion 32, k = 32, a learning rate of 1e-3 annealed along a
    cosine, at most 15 epochs with early stopping. The paper's text does not preserve the sparsity coefficient of the
    vanilla SAE: here it is adjusted so that this SAE, too, has about `k` active latents.
    """

    architectures: tuple[Architecture, ...] = ("standard", "batchtopk")
    """Architectures to train. They share one stream of activations, so the ViT runs once."""
    expansion_factor: int = 32
    """Latents per dimension of the activations: d_sae = expansion_factor x d_in."""
    k: int = 32
    """Active latents per token: exact for topk, the mean over a batch for batchtopk and matryoshka_batchtopk, the
    target of L0 if the penalty is adjusted."""
    l1_coefficient: float | None = None
    """Sparsity coefficient of standard, gated (L1) and jumprelu (L0), for activations scaled to a mean norm of
    sqrt(d_in). None adjusts it during training so that L0 stays at `k`, and records the value reached with the SAE. For
    jumprelu, None uses the penalty (L0 - k)^2, which needs no adjustment."""
    sweep: Sweep = field(default_factory=Sweep)
    """Several values of a setting, all trained at once."""
    matryoshka_levels: int = 4
    """Nested dictionaries of matryoshka_batchtopk, each half as wide as the next."""
    aux_loss_coefficient: float = 1.0
    """Weight of the top-k SAEs' loss by which dead latents explain the residual error (sae-lens's default)."""
    dead_after_epochs: float = 1.0
    """Epochs without firing after which a latent counts as dead in training and enters the auxiliary loss."""
    b_dec_init: Literal["mean", "geometric_median"] = "mean"
    """Initial decoder bias: the training tokens' mean or geometric median."""
    decoder_init: Literal["random", "data"] = "random"
    """Initial decoder directions: random, or those of training tokens relative to the decoder bias."""
    lr: float = 1e-3
    """Adam's initial learning rate."""
    lr_end: float = 1e-5
    """Learning rate at the end of the cosine."""
    lr_schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Course of the learning rate after its warm-up; `linear` falls to zero, as in sae-lens."""
    warm_up_fraction: float = 0.02
    """Share of all steps over which the learning rate rises linearly."""
    l1_warm_up_fraction: float = 0.02
    """Share of all steps over which a fixed l1_coefficient rises linearly."""
    epochs: int = 15
    """Passes over the training tokens, at most. Each epoch of images draws new corruptions."""
    patience: int = 3
    """Epochs without a better held-out explained variance after which an SAE stops training; its best epoch is kept."""
    train_batch_size_tokens: int = 4096
    """Tokens per training step, over all processes."""
    fast: bool = True
    """Whether to use the sparse form of the same losses and gradients where possible (on a CPU, without autocast)."""
    autocast: bool = False
    """Whether to train in bfloat16 where autocast allows."""
    seed: int = 0
    """Seed of the initial weights, the order of the images, and the choice of each image's corruption."""

    def __post_init__(self) -> None:
        check(self, COUNT, "expansion_factor", "k", "epochs", "patience", "train_batch_size_tokens")
        check(self, Range(1, 32), "matryoshka_levels")
        check(self, SHARE_BELOW_ONE, "warm_up_fraction", "l1_warm_up_fraction")
        check(self, NOT_NEGATIVE, "aux_loss_coefficient", "lr_end")
        check(self, NOT_NEGATIVE, "l1_coefficient", or_none=True)
        check(self, POSITIVE, "dead_after_epochs", "lr")
        check(self, SEED, "seed")
        check_some(self, "architectures")
        check_choice(self, architectures=ARCHITECTURES, b_dec_init=("mean", "geometric_median"))
        check_choice(self, decoder_init=("random", "data"), lr_schedule=("cosine", "linear", "constant"))
        self._check_swept()

    def _check_swept(self) -> None:
        """Refuse swept values that contradict the other settings."""
        for lr in (self.lr, *self.sweep.lr):
            if self.lr_end > lr:
                raise SettingError("lr_end", f"must be at most lr, {lr:g}; got {self.lr_end:g}")
        if self.sweep.l1_coefficient and not set(self.architectures) & set(PENALISED):
            raise SettingError(
                "sweep.l1_coefficient",
                f"is for {listed(PENALISED)}; the architectures are {listed(self.architectures)}",
            )

    def saes(self, widths: Mapping[str, int]) -> tuple[SAESpec, ...]:
        """Return every SAE of the sweep, with its name.

        Args:
            widths: d_in by hook point.

        Raises:
            ValueError: an SAE would have fewer latents than k, or than its matryoshka levels need.
        """
        made = [spec for hook in widths for name in self.architectures for spec in self._of(name, hook)]
        for spec in made:
            d_sae = spec.expansion_factor * widths[spec.hook_name]
            if spec.k > d_sae and (spec.aims_at_k or spec.architecture not in PENALISED):
                raise SettingError(
                    "k",
                    f"must be at most the {d_sae} latents of the SAE ({spec.expansion_factor} x d_in of "
                    f"{spec.hook_name}); got {spec.k}",
                )
            if spec.architecture == "matryoshka_batchtopk" and d_sae < 2 ** (self.matryoshka_levels - 1):
                raise SettingError("matryoshka_levels", f"of {self.matryoshka_levels} need more latents than {d_sae}")
        several = len(widths) > 1
        return tuple(replace(spec, name=_name(spec, made, several)) for spec in made)

    def _of(self, architecture: str, hook: str) -> list[SAESpec]:
        """Return the combinations of one architecture; settings that it does not use do not multiply them."""
        sweep, penalised = self.sweep, architecture in PENALISED
        found = []
        for factor, k, lr, l1 in product(
            sweep.expansion_factor or (self.expansion_factor,),
            sweep.k or (self.k,),
            sweep.lr or (self.lr,),
            (sweep.l1_coefficient or (self.l1_coefficient,)) if penalised else (None,),
        ):
            found.append(
                SAESpec(
                    name="",
                    hook_name=hook,
                    architecture=architecture,
                    expansion_factor=factor,
                    k=self.k if l1 is not None else k,
                    lr=lr,
                    l1_coefficient=l1,
                )
            )
        return list(dict.fromkeys(found))


def _name(spec: SAESpec, every: list[SAESpec], several_hooks: bool) -> str:
    alike = [other for other in every if other.architecture == spec.architecture]
    varying = [name for name in _SHORT if len({getattr(other, name) for other in alike}) > 1]
    hook = [spec.hook_name] if several_hooks else []
    return "-".join([spec.architecture, *hook, *(f"{_SHORT[name]}{getattr(spec, name):g}" for name in varying)])


@dataclass(frozen=True, kw_only=True)
class SAEConfig(StreamConfig, TrainConfig):
    """Settings of SAEs of a model's activations: the conversion of images to activations, and the training.

    The defaults are the paper's where it states them (see `TrainConfig`), on the penultimate residual.
    """

    def __post_init__(self) -> None:
        StreamConfig.__post_init__(self)
        TrainConfig.__post_init__(self)
