"""From pixels to tokens, and from tokens to a bare encoder's pooled output."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.activations import ACT2FN

from .config import HookedViTConfig


class Embedding(nn.Module):
    """The CLS token and each patch through one linear map; the positions apart."""

    def __init__(self, cfg: HookedViTConfig) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, cfg.d_model))
        self.positions = nn.Parameter(torch.zeros(1, cfg.n_tokens, cfg.d_model))
        self.patch = nn.Conv2d(cfg.n_channels, cfg.d_model, cfg.patch_size, stride=cfg.patch_size)

    def forward(
        self, pixels: Float[Tensor, "batch channel height width"]
    ) -> tuple[Float[Tensor, "batch token d_model"], Float[Tensor, "batch token d_model"]]:
        """Give the tokens and their position embeddings, whose sum enters the first block."""
        patches = self.patch(pixels).flatten(2).transpose(1, 2)
        batch = len(patches)
        embed = torch.cat([self.cls_token.expand(batch, -1, -1), patches], dim=1)
        return embed, self.positions.expand(batch, -1, -1)


class Pooler(nn.Module):
    """activation(W x_CLS + b): what `ViTModel` calls `pooler_output`."""

    def __init__(self, cfg: HookedViTConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(cfg.d_model, cfg.pooler_size)
        self.act = ACT2FN[cfg.pooler_act]

    def forward(self, last_hidden_state: Float[Tensor, "batch token d_model"]) -> Float[Tensor, "batch pooled"]:
        """Pool what a bare encoder returns."""
        return self.act(self.dense(last_hidden_state[:, 0]))
