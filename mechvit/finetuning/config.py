"""Settings of fine-tuning: a light module that command lines import without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """How a model is trained; the defaults are the paper's (section 4)."""

    learning_rate: float = 5e-5
    """AdamW's peak learning rate."""
    epochs: int = 10
    """At most this many passes over the images; early stopping may end before."""
    patience: int = 2
    """Stop after this many epochs without a lower validation loss; the best epoch is kept either way."""
    batch_size: int = 32
    """Images a step."""
    weight_decay: float = 0.0
    """AdamW's decoupled weight decay."""
    warmup_fraction: float = 0.0
    """Share of all steps over which the learning rate rises, before it falls linearly to zero."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """fp32, or mixed precision by autocast."""
    seed: int = 0
    """Of the order of images, of new weights and of the noise."""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "epochs", "patience", "batch_size"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive; got {getattr(self, name)}")
        if not 0 <= self.warmup_fraction < 1:
            raise ValueError(f"warmup_fraction must be in [0, 1); got {self.warmup_fraction}")


@dataclass(frozen=True, kw_only=True)
class ViTShape:
    """The shape of a ViT that is trained from scratch."""

    image_size: int = 64
    """Side of the input, in pixels."""
    patch_size: int = 8
    """Side of a patch, in pixels."""
    d_model: int = 96
    """Width of the residual stream."""
    n_layers: int = 6
    """Number of blocks."""
    n_heads: int = 3
    """Attention heads a block."""
    d_mlp: int = 384
    """Width of the MLPs."""

    def __post_init__(self) -> None:
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} must be a multiple of patch_size {self.patch_size}")
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model {self.d_model} must be a multiple of n_heads {self.n_heads}")
