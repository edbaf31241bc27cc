"""Configuration of a HookedViT (imports no torch)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class HookedViTConfig:
    """Architecture of a HookedViT, in transformer-lens's terms where it has them."""

    family: str
    """Name of the family, a key of `families.FAMILIES`."""
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
    """Constant added to the variance in every LayerNorm."""
    image_size: int
    """Height and width of the input, in pixels."""
    position_image_size: int | None = None
    """The image size that the positions were trained for and are resized from; None where it is `image_size`."""
    patch_size: int
    """Height and width of a patch, in pixels."""
    n_channels: int
    dropout: float
    """Largest dropout or drop-path rate of the checkpoint, which HookedViT never applies (it runs in evaluation mode).
    """

    cls_token: bool = True
    distillation_token: bool = False
    n_registers: int = 0
    positions: Literal["learned", "rotary", "none"] = "learned"
    """Learned positions are added to all tokens but the registers; rotary ones rotate the patches' q and k."""
    interpolation: Literal["vit", "dinov2", "dinov2_with_registers", "siglip2"] = "vit"
    """Family whose method of resizing learned positions to another image size is used (see `positions.py`)."""
    rope_theta: float = 100.0
    relative_position_bias: bool = False
    """A learned bias on the attention scores by relative position, one table per layer (BEiT)."""
    shared_relative_position_bias: bool = False
    """The same bias with one table shared by all layers."""
    ln_pre: bool = False
    """Whether a LayerNorm stands between the embedding and the first block (CLIP)."""
    layer_scale: bool = False
    """Whether attention and MLP outputs are scaled by a learned factor per dimension."""
    gated_mlp: bool = False
    """Whether the MLP is gated: act(x W_gate) * (x W_in) instead of act(x W_in)."""
    patch_bias: bool = True
    q_bias: bool = True
    k_bias: bool = True
    v_bias: bool = True
    o_bias: bool = True
    mlp_bias: bool = True

    final_norm: Literal["tokens", "pooled", "none"] = "tokens"
    """Position of `ln_final`: on every token, after the pooling (BEiT with mean pooling), or absent (CLIP)."""
    pooling: Literal["cls", "cls+distillation", "mean", "cls+mean", "attention"] = "cls"
    """Tokens that the head reads; `mean` is over the patches."""
    n_classes: int = 0
    """Number of classes of the head; 0 for a bare encoder."""
    id2label: Mapping[int, str] = field(default_factory=dict)
    """Class index -> name; empty for a bare encoder."""
    problem_type: str | None = None
    """`regression` or `multi_label_classification`, as Hugging Face writes it; None for single-label classification."""
    zero_shot: bool = False
    """Whether the head compares the projected image with given text embeddings (CLIP, SigLIP)."""
    projection_dim: int = 0
    """Width of the projection before the comparison, or of a bare encoder's projected pooler output; 0 without one."""
    projection_bias: bool = False
    """Whether the projection has a bias, as `fold_ln` creates one."""
    logit_bias: bool = False
    """Whether the zero-shot head adds a learned constant (SigLIP)."""
    pooler: Literal["none", "dense", "norm", "projection", "attention"] = "none"
    """Module that computes a bare encoder's `pooler_output`: act(W x_CLS + b); a LayerNorm of the pooled token; the
    same, projected; or an attention-pooling head. A zero-shot head that pools by attention has the last one, too.
    """
    pooler_size: int = 0
    """Width of a dense pooler."""
    pooler_act: str = "tanh"

    device: torch.device
    dtype: torch.dtype
    normalization_type: str = "LN"
    """"LN", or "LNPre" once every LayerNorm's gain and bias are folded into what reads it."""
    processing: tuple[str, ...] = ()
    """Steps of `process_weights_` that were applied to the weights."""
    attn_only: bool = False
    n_key_value_heads: int | None = None
    """Always None: every head has its own keys and values (transformer-lens's tools read this)."""

    def __post_init__(self) -> None:
        for name in ("image_size", "patch_size"):
            value = getattr(self, name)
            whole = isinstance(value, Integral) and not isinstance(value, bool)  # including numpy's
            object.__setattr__(self, name, int(value) if whole else value)
        for name in ("n_layers", "n_heads", "d_model", "d_head", "d_mlp", "n_channels", "image_size", "patch_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1; got {value!r}.")
        if not 0 <= self.eps < math.inf:
            raise ValueError(f"eps must be finite and not negative; got {self.eps}.")
        if not 0 < self.rope_theta < math.inf:
            raise ValueError(f"rope_theta must be finite and positive; got {self.rope_theta}.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie within 0..1; got {self.dropout}.")
        if self.image_size < self.patch_size:
            raise ValueError(f"image_size must be at least patch_size; got {self.image_size} < {self.patch_size}.")
        if self.positions == "rotary" and self.d_head % 4:
            raise ValueError(f"Rotary positions need a d_head that 4 divides; got {self.d_head}.")
        if self.n_classes and set(self.id2label) != set(range(self.n_classes)):
            keys = ", ".join(map(str, list(self.id2label)[:8]))
            raise ValueError(
                f"id2label must name each of the {self.n_classes} classes, 0 to {self.n_classes - 1}; got "
                f"{len(self.id2label)} names, of {keys}. Correct id2label in the checkpoint's config."
            )
        if self.problem_type == "single_label_classification":  # written by training as the default
            object.__setattr__(self, "problem_type", None)
        object.__setattr__(self, "id2label", {index: str(name) for index, name in self.id2label.items()})

    @property
    def no_softmax(self) -> str | None:
        """Reason why the outputs are not single-label class scores (see `no_softmax`); None where they are."""
        return no_softmax(self.n_classes, self.problem_type)

    @property
    def n_prefix_tokens(self) -> int:
        """Number of tokens before the patches: CLS, distillation, registers."""
        return self.cls_token + self.distillation_token + self.n_registers

    @property
    def grid(self) -> tuple[int, int]:
        """Number of rows and columns of patches."""
        side = self.image_size // self.patch_size
        return side, side

    @property
    def position_grid(self) -> tuple[int, int]:
        """Number of rows and columns of patches that the positions were trained for."""
        side = (self.position_image_size or self.image_size) // self.patch_size
        return side, side

    @property
    def n_tokens(self) -> int:
        """Number of tokens: prefix tokens and patches."""
        return self.n_prefix_tokens + self.grid[0] * self.grid[1]

    @property
    def n_ctx(self) -> int:
        """Alias of `n_tokens`, by transformer-lens's name."""
        return self.n_tokens

    @property
    def d_vocab(self) -> int:
        """Alias of `n_classes`, by transformer-lens's name."""
        return self.n_classes

    @property
    def d_head_input(self) -> int:
        """Width of the head's input: twice d_model for the `cls+...` poolings that concatenate two tokens."""
        return self.d_model * (2 if "+" in self.pooling else 1)


def no_softmax(n_classes: int, problem_type: str | None) -> str | None:
    """Return the reason why a head's outputs are not single-label class scores; None where they are."""
    if problem_type in ("regression", "multi_label_classification"):
        return f"its problem_type is {problem_type}"
    if n_classes < 2:
        return f"it has {n_classes or 'no'} class{'' if n_classes == 1 else 'es'}, and a choice needs two"
    return None
