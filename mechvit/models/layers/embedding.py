"""Patches and special tokens to the embedding."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mechvit.models.config import HookedViTConfig

from .positions import Grid, resize_positions


class PatchProjection(nn.Conv2d):
    """Projection of each patch by one linear map.

    On a GPU it is a matrix product over the patches: cuDNN rounds a float32 convolution to 10 bits (TF32) unless told
    otherwise, while torch's products round only if `torch.set_float32_matmul_precision` asks for it.
    """

    def forward(self, pixels: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch d_model row column"]:
        """Project every patch; pixels beyond the last whole patch at the right and lower border are ignored."""
        return self.product(pixels) if pixels.is_cuda else super().forward(pixels)

    def product(self, pixels: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch d_model row column"]:
        """Compute the same projection as one matrix product."""
        size = self.kernel_size[0]
        rows, columns = (side // size for side in pixels.shape[2:])
        patches = pixels[:, :, : rows * size, : columns * size].unflatten(3, (columns, size)).unflatten(2, (rows, size))
        lines = patches.permute(0, 2, 4, 1, 3, 5).flatten(3)  # [batch, row, column, channel * size * size]
        return F.linear(lines, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


class Embedding(nn.Module):
    """Special tokens (CLS, distillation, registers), projected patches, and their positions."""

    def __init__(self, cfg: HookedViTConfig) -> None:
        super().__init__()
        self.cfg = cfg

        def token(count: int) -> nn.Parameter | None:
            return nn.Parameter(torch.zeros(1, count, cfg.d_model)) if count else None

        self.cls_token = token(int(cfg.cls_token))
        self.distillation_token = token(int(cfg.distillation_token))
        self.register_tokens = token(cfg.n_registers)
        rows, columns = cfg.position_grid
        n_positions = cfg.n_prefix_tokens - cfg.n_registers + rows * columns
        self.positions = token(n_positions if cfg.positions == "learned" else 0)
        size = cfg.patch_size
        self.patch = PatchProjection(cfg.n_channels, cfg.d_model, size, stride=size, bias=cfg.patch_bias)

    def forward(
        self, pixels: Float[Tensor, "batch channel height width"]
    ) -> tuple[Float[Tensor, "batch token d_model"], Float[Tensor, "batch token d_model"] | None, Grid]:
        """Return the tokens, their positions (None without learned ones) and the grid of patches."""
        patches = self.patch(pixels)
        grid: Grid = (patches.shape[2], patches.shape[3])
        special = (self.cls_token, self.distillation_token, self.register_tokens)
        tokens = [token.expand(len(pixels), -1, -1) for token in special if token is not None]
        embed = torch.cat([*tokens, patches.flatten(2).transpose(1, 2)], dim=1)
        return embed, self._positions(grid, len(pixels)), grid

    def _positions(self, grid: Grid, batch: int) -> Float[Tensor, "batch token d_model"] | None:
        if self.positions is None:
            return None
        table = resize_positions(self.cfg, self.positions, grid)
        n_registers = self.cfg.n_registers
        if n_registers:  # registers have no positions
            n_before = self.cfg.n_prefix_tokens - n_registers
            zeros = table.new_zeros(1, n_registers, table.shape[2])
            table = torch.cat([table[:, :n_before], zeros, table[:, n_before:]], dim=1)
        return table.expand(batch, -1, -1)
