"""Settings of fine-tuning, in a light module that command lines import without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from mechvit.settings_checks import (
    ADDED_LATER,
    COUNT,
    NOT_NEGATIVE,
    POSITIVE,
    SEED,
    SHARE_BELOW_ONE,
    Range,
    SettingError,
    check,
    check_choice,
)

Precision = Literal["fp32", "bf16", "fp16"]
Kept = Literal["best", "last"]
LARGEST = {
    "image_size": 1024,
    "patch_size": 1024,
    "d_model": 8192,
    "n_layers": 200,
    "n_heads": 512,
    "d_mlp": 65536,
}
"""Upper bounds on a ViT trained from scratch: far above any published one, far below what exhausts a machine."""


class TrainingFailed(RuntimeError):
    """Error: a training left nothing to keep, for the stated reason."""


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Settings of a fine-tuning; the defaults are the paper's (section 4)."""

    learning_rate: float = 5e-5
    """AdamW's peak learning rate."""
    epochs: int = 10
    """Most passes over the images; early stopping may end before."""
    patience: int = 2
    """Epochs without a lower validation loss after which training stops; the best epoch is kept either way."""
    batch_size: int = 32
    """Images per step, over all processes."""
    weight_decay: float = 0.0
    """AdamW's decoupled weight decay."""
    warmup_fraction: float = 0.0
    """Share of all steps over which the learning rate rises, before it falls linearly to zero."""
    precision: Precision = "fp32"
    """fp32, or mixed precision by autocast."""
    seed: int = 0
    """Seed of the order of images, of new weights and of the noise."""
    keep: Kept = field(default="best", metadata=ADDED_LATER)
    """Weights that are saved: best, those of the epoch with the lowest validation loss, with early stopping; last,
    those after the last step, with none, so that models trained alike take equally many steps."""
    planned_steps: int | None = field(default=None, metadata=ADDED_LATER)
    """Steps over which the learning rate falls to zero; None takes those of all epochs."""
    stop_step: int | None = field(default=None, metadata=ADDED_LATER)
    """With keep last, the step after which training ends; None takes the last of the plan."""

    def __post_init__(self) -> None:
        check(self, POSITIVE, "learning_rate")
        check(self, COUNT, "epochs", "patience", "batch_size")
        check(self, COUNT, "planned_steps", "stop_step", or_none=True)
        check_choice(self, keep=get_args(Kept))
        if self.stop_step is not None and self.keep != "last":
            raise SettingError("stop_step", f"must be left out where the best epoch is kept; got {self.stop_step}")
        check(self, NOT_NEGATIVE, "weight_decay")
        check(self, SHARE_BELOW_ONE, "warmup_fraction")
        check(self, SEED, "seed")
        check_choice(self, precision=get_args(Precision))


@dataclass(frozen=True, kw_only=True)
class ViTShape:
    """Shape of a ViT that is trained from scratch."""

    image_size: int = 64
    """Side of the input, in pixels."""
    patch_size: int = 8
    """Side of a patch, in pixels."""
    d_model: int = 96
    """Width of the residual stream."""
    n_layers: int = 6
    """Number of blocks."""
    n_heads: int = 3
    """Attention heads per block."""
    d_mlp: int = 384
    """Width of the MLPs."""

    def __post_init__(self) -> None:
        for name, largest in LARGEST.items():
            check(self, Range(1, largest), name)
        for whole, part in (("image_size", "patch_size"), ("d_model", "n_heads")):
            size, of = getattr(self, whole), getattr(self, part)
            if size % of:
                raise SettingError(whole, f"{size} must be a multiple of {part} {of}")
