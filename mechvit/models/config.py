"""The shape of a HookedViT (no torch here)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class HookedViTConfig:
    """The shape of a HookedViT, in transformer-lens's words where it has one."""

    family: str
    """Hugging Face `model_type`."""
    architecture: str
    """Hugging Face class name."""
    n_layers: int
    n_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    act: str
    """Activation of the MLP, by its Hugging Face name."""
    eps: float
    """Added to the variance in every LayerNorm."""
    image_size: int
    """Height and width of the input, in pixels."""
    patch_size: int
    """Height and width of a patch, in pixels."""
    n_channels: int
    n_prefix_tokens: int
    """Tokens before the patches (CLS)."""
    n_classes: int
    """Classes of the head; 0 for a bare encoder."""
    id2label: Mapping[int, str]
    """Names of the classes; empty for a bare encoder."""
    qkv_bias: bool
    dropout: float
    """Largest dropout rate of the checkpoint, which HookedViT never applies: evaluation needs none."""
    pooler_size: int
    """Width of a bare encoder's pooler; 0 where it has none."""
    pooler_act: str
    device: torch.device
    dtype: torch.dtype
    normalization_type: str = "LN"
    """"LN", or "LNPre" once every LayerNorm's gain and bias are folded into what reads it."""
    attn_only: bool = False

    def __post_init__(self) -> None:
        for name in ("image_size", "patch_size"):
            value = getattr(self, name)
            if not isinstance(value, int):
                if len(set(value)) != 1:
                    raise ValueError(f"{name} must be square; got {tuple(value)}. Use a checkpoint of square images.")
                object.__setattr__(self, name, int(value[0]))
        if self.image_size < self.patch_size:
            raise ValueError(f"image_size must be at least patch_size; got {self.image_size} < {self.patch_size}.")
        if self.n_classes and len(self.id2label) != self.n_classes:
            raise ValueError(
                f"id2label must name each of the {self.n_classes} classes; got {len(self.id2label)} names. "
                "Correct id2label in the checkpoint's config."
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        side = self.image_size // self.patch_size
        return side, side

    @property
    def n_tokens(self) -> int:
        """Prefix tokens and patches."""
        return self.n_prefix_tokens + self.grid[0] * self.grid[1]
