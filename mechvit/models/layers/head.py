"""Heads: pooling of the last residual stream, and the classifier that reads it."""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from transformer_lens.hook_points import HookPoint
from transformers.activations import ACT2FN

from mechvit.models.config import HookedViTConfig

from .attention import Attention
from .block import MLP, LayerNorm
from .hook_state import without_hook_points


class LinearHead(nn.Linear):
    """Linear classifier x W_U + b_U."""

    def __init__(self, cfg: HookedViTConfig) -> None:
        super().__init__(cfg.d_head_input, cfg.n_classes)

    @property
    def W_U(self) -> Float[Tensor, "d_head_input class"]:
        """Weights, a view."""
        return self.weight.T

    @property
    def b_U(self) -> Float[Tensor, " class"]:
        """Bias."""
        return self.bias


class DistilledHead(nn.Module):
    """Mean of two linear classifiers, one on CLS and one on the distillation token (DeiT, arXiv:2012.12877)."""

    def __init__(self, cfg: HookedViTConfig) -> None:
        super().__init__()
        self.cls = nn.Linear(cfg.d_model, cfg.n_classes)
        self.distillation = nn.Linear(cfg.d_model, cfg.n_classes)

    def forward(self, x: Float[Tensor, "batch d_head_input"]) -> Float[Tensor, "batch class"]:
        """Classify both tokens and average."""
        first, second = x.chunk(2, dim=-1)
        return (self.cls(first) + self.distillation(second)) / 2

    @property
    def W_U(self) -> Float[Tensor, "d_head_input class"]:
        """Weights for both tokens, stacked."""
        return torch.cat([self.cls.weight, self.distillation.weight], dim=1).T / 2

    @property
    def b_U(self) -> Float[Tensor, " class"]:
        """Bias."""
        return (self.cls.bias + self.distillation.bias) / 2


class ZeroShotHead(nn.Module):
    """exp(logit_scale) cos(P x, text) + logit_bias, with one text embedding per class (CLIP, SigLIP).

    `hook_scale` holds |P x|, [batch, 1], like a LayerNorm's.
    """

    def __init__(self, cfg: HookedViTConfig) -> None:
        super().__init__()
        width = cfg.projection_dim or cfg.d_model
        bias = cfg.projection_bias
        self.projection = nn.Linear(cfg.d_model, width, bias=bias) if cfg.projection_dim else None
        self.text_embeds = nn.Parameter(torch.zeros(cfg.n_classes, width))  # each of norm 1
        self.logit_scale = nn.Parameter(torch.zeros(()))
        self.logit_bias = nn.Parameter(torch.zeros(())) if cfg.logit_bias else None
        self.hook_scale = HookPoint()  # [batch, 1]

    def forward(self, x: Float[Tensor, "batch d_model"]) -> Float[Tensor, "batch class"]:
        """Compare each image with each text."""
        image = x if self.projection is None else self.projection(x)
        image = image / self.hook_scale(image.norm(dim=-1, keepdim=True))
        logits = image @ self.text_embeds.T * self.logit_scale.exp()
        return logits if self.logit_bias is None else logits + self.logit_bias

    @property
    def W_U(self) -> Float[Tensor, "d_head_input class"]:
        """exp(logit_scale) Pᵀ textᵀ; logits are its product divided by |P x| (`head.hook_scale`)."""
        text = self.text_embeds * self.logit_scale.exp()
        return (text if self.projection is None else text @ self.projection.weight).T

    @property
    def b_U(self) -> Float[Tensor, " class"]:
        """Constant added to every class's logit; zeros for CLIP."""
        zeros = self.text_embeds.new_zeros(len(self.text_embeds))
        return zeros if self.logit_bias is None else zeros + self.logit_bias

    @property
    def b_projection(self) -> Float[Tensor, " class"]:
        """Contribution of the projection's bias (created by `fold_ln`) to the logits, before division by |P x|."""
        if self.projection is None or self.projection.bias is None:
            return self.text_embeds.new_zeros(len(self.text_embeds))
        return self.text_embeds @ self.projection.bias * self.logit_scale.exp()


class AttentionPooler(nn.Module):
    """One learned query that attends to all tokens, then out + mlp(ln(out)) (SigLIP, arXiv:2303.15343)."""

    def __init__(self, cfg: HookedViTConfig) -> None:
        super().__init__()
        plain = dataclasses.replace(
            cfg, positions="none", relative_position_bias=False, layer_scale=False, gated_mlp=False
        )
        self.probe = nn.Parameter(torch.zeros(1, 1, cfg.d_model))
        self.attn = Attention(plain)
        self.ln = LayerNorm(plain)
        self.mlp = MLP(plain)
        self.hook_attn_out = HookPoint()  # [batch, 1, d_model]
        self.hook_mlp_out = HookPoint()  # [batch, 1, d_model]

    def forward(self, tokens: Float[Tensor, "batch token d_model"]) -> Float[Tensor, "batch d_model"]:
        """Pool normalised tokens."""
        mid = self.hook_attn_out(self.attn(self.probe.expand(len(tokens), -1, -1), tokens, tokens))
        return (mid + self.hook_mlp_out(self.mlp(self.ln(mid))))[:, 0]


class DensePooler(nn.Module):
    """activation(W x_CLS + b), which `ViTModel` calls `pooler_output`."""

    def __init__(self, cfg: HookedViTConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(cfg.d_model, cfg.pooler_size)
        self.act = ACT2FN[cfg.pooler_act]

    def forward(self, last_hidden_state: Float[Tensor, "batch token d_model"]) -> Float[Tensor, "batch pooled"]:
        """Pool a bare encoder's last hidden state."""
        return self.act(self.dense(last_hidden_state[:, 0]))


class NormPooler(nn.Module):
    """LayerNorm of CLS or of the patches' mean, and (CLIP) a projection, which CLIP and BEiT call `pooler_output`."""

    def __init__(self, cfg: HookedViTConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.w = nn.Parameter(torch.ones(cfg.d_model))
        self.b = nn.Parameter(torch.zeros(cfg.d_model))
        projected = cfg.pooler == "projection"
        self.projection = nn.Linear(cfg.d_model, cfg.projection_dim, bias=False) if projected else None

    def forward(self, last_hidden_state: Float[Tensor, "batch token d_model"]) -> Float[Tensor, "batch pooled"]:
        """Pool a bare encoder's last hidden state."""
        x = pool(self.cfg, last_hidden_state[:, head_tokens(self.cfg)])
        x = F.layer_norm(x, self.w.shape, self.w, self.b, self.cfg.eps)
        return x if self.projection is None else self.projection(x)


Head = LinearHead | DistilledHead | ZeroShotHead
Pooler = AttentionPooler | DensePooler | NormPooler


def make_head(cfg: HookedViTConfig) -> Head | None:
    """Build the classifier of a model; return None for a bare encoder."""
    if not cfg.n_classes:
        return None
    if cfg.zero_shot:
        return ZeroShotHead(cfg)
    return DistilledHead(cfg) if cfg.pooling == "cls+distillation" else LinearHead(cfg)


def make_pooler(cfg: HookedViTConfig) -> Pooler | None:
    """Build the pooler of a bare encoder, or of a head that pools by attention; return None without one."""
    if cfg.pooler == "none":
        return None
    if cfg.pooler == "attention":
        pooler = AttentionPooler(cfg)
        if not cfg.n_classes:
            without_hook_points(pooler)  # a bare encoder does not run its pooler
        return pooler
    return DensePooler(cfg) if cfg.pooler == "dense" else NormPooler(cfg)


def head_tokens(cfg: HookedViTConfig) -> slice:
    """Return the slice of the tokens that the head reads."""
    if cfg.pooling == "cls":
        return slice(0, 1)
    if cfg.pooling == "cls+distillation":
        return slice(0, 2)
    return slice(cfg.n_prefix_tokens if cfg.pooling == "mean" else 0, None)


def pool(
    cfg: HookedViTConfig, tokens: Float[Tensor, "batch head_token d_model"]
) -> Float[Tensor, "batch d_head_input"]:
    """Pool the tokens of `head_tokens`, for every pooling except attention."""
    if cfg.pooling == "cls":
        return tokens[:, 0]
    if cfg.pooling == "cls+distillation":
        return tokens.flatten(1)
    if cfg.pooling == "mean":
        return tokens.mean(1)
    assert cfg.pooling == "cls+mean"
    return torch.cat([tokens[:, 0], tokens[:, cfg.n_prefix_tokens :].mean(1)], dim=1)
