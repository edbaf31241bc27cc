"""How SAEs are trained: a light module that command lines import without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

ARCHITECTURES: tuple[str, ...] = ("standard", "batchtopk")
"""sae-lens's names: `standard` is the vanilla SAE (ReLU and an L1 penalty), `batchtopk` is arXiv:2412.06410."""

HookTokens = Literal["all", "patches", "cls"]


@dataclass(frozen=True, kw_only=True)
class SAEConfig:
    """Sparse autoencoders on one residual stream, all trained in lockstep on one stream of activations.

    The defaults are the paper's where it states them: the penultimate residual, expansion 32, k = 32, a learning rate
    of 1e-3 annealed along a cosine, at most 15 epochs with early stopping. The paper's sparsity coefficient of the
    vanilla SAE is lost in its text: here it is steered so that the vanilla SAE has about `k` active latents too.
    """

    architectures: tuple[Literal["standard", "batchtopk"], ...] = ("standard", "batchtopk")
    """Which SAEs to train. They share one stream of activations, so that the ViT runs once."""
    expansion_factor: int = 32
    """Latents per dimension of the residual: d_sae = expansion_factor x d_model."""
    k: int = 32
    """Active latents a token: exactly, on average over a batch, for batchtopk; the vanilla SAE's target L0."""
    l1_coefficient: float | None = None
    """The vanilla SAE's sparsity coefficient, for activations scaled to a mean norm of sqrt(d_model). None steers it
    during training so that L0 stays at `k`; the value that was reached is recorded with the SAE."""
    aux_loss_coefficient: float = 1.0
    """Weight of batchtopk's loss that lets dead latents explain what the others leave (sae-lens's own default)."""
    dead_after_epochs: float = 1.0
    """A latent that has not fired for this many epochs counts as dead in training and joins the auxiliary loss."""
    lr: float = 1e-3
    """Adam's initial learning rate."""
    lr_end: float = 1e-5
    """The learning rate at the end of the cosine."""
    warm_up_fraction: float = 0.02
    """Share of all steps over which the learning rate (and a fixed l1_coefficient) rises linearly."""
    epochs: int = 15
    """Passes over the training images, at most. Each epoch draws new corruptions."""
    patience: int = 3
    """Epochs without a better held-out explained variance before an SAE stops training; its best epoch is kept."""
    train_batch_size_tokens: int = 4096
    """Tokens a training step."""
    images_per_batch: int = 64
    """Images a forward pass of the ViT."""
    buffer_images: int = 256
    """Images whose tokens are mixed at a time."""
    hook_layer: int | None = None
    """Block whose output (`hook_resid_post`) the SAEs read. None takes the last but one: the penultimate residual."""
    tokens: HookTokens = "all"
    """Tokens that the SAEs see: all of them, the image patches only, or the class token only."""
    clean_fraction: float = 0.5
    """Share of images that stay clean; the others each get one of the corruptions, drawn anew every epoch."""
    calibration_images: int = 256
    """Training images over which batchtopk's threshold is set before it is published."""
    fast: bool = True
    """Use the sparse form of the same losses and gradients where it applies (on a CPU, in full precision)."""
    autocast: bool = False
    """Train in bfloat16 where autocast allows."""
    seed: int = 0
    """Fixes the initial weights, the order of the images, and which image gets which corruption."""

    def __post_init__(self) -> None:
        self._check_counts()
        if not self.architectures or len(set(self.architectures)) < len(self.architectures):
            raise ValueError(f"architectures must name at least one, each once; got {self.architectures}")
        if unknown := set(self.architectures) - set(ARCHITECTURES):
            raise ValueError(f"architectures must be among {', '.join(ARCHITECTURES)}; got {sorted(unknown)}")
        if self.tokens not in ("all", "patches", "cls"):
            raise ValueError(f"tokens must be all, patches or cls; got {self.tokens!r}")
        if not 0 <= self.clean_fraction <= 1:
            raise ValueError(f"clean_fraction must lie in [0, 1]; got {self.clean_fraction}")
        if not 0 <= self.warm_up_fraction < 1:
            raise ValueError(f"warm_up_fraction must lie in [0, 1); got {self.warm_up_fraction}")
        if not (0 <= self.lr_end <= self.lr and 0 < self.lr < math.inf):
            raise ValueError(f"lr must be positive and lr_end must lie in [0, lr]; got {self.lr} and {self.lr_end}")
        if self.l1_coefficient is not None and not 0 <= self.l1_coefficient < math.inf:
            raise ValueError(f"l1_coefficient must not be negative, or None to steer it; got {self.l1_coefficient}")
        if not (0 <= self.aux_loss_coefficient < math.inf and 0 < self.dead_after_epochs < math.inf):
            raise ValueError(
                "aux_loss_coefficient must not be negative and dead_after_epochs must be positive; "
                f"got {self.aux_loss_coefficient} and {self.dead_after_epochs}"
            )

    def _check_counts(self) -> None:
        counts = (
            "expansion_factor", "k", "epochs", "patience", "train_batch_size_tokens", "images_per_batch",
            "buffer_images", "calibration_images",
        )  # fmt: skip
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")
        if self.seed < 0 or (self.hook_layer is not None and self.hook_layer < 0):
            raise ValueError(f"seed and hook_layer must not be negative; got {self.seed} and {self.hook_layer}")
