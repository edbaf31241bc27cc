"""Positions: resized learned ones, rotary angles, and relative position biases."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mechvit.models.config import HookedViTConfig

Grid = tuple[int, int]


@dataclass(frozen=True)
class TokenLayout:
    """Positional information of an image, computed once per forward pass.

    Attributes:
        grid: rows and columns of patches.
        rotary: cosines and sines, each [patch, 1, d_head]; None without rotary positions.
        bias: bias added to every layer's scores, [1, head, query, key]; None without a shared table.
    """

    grid: Grid
    rotary: tuple[Tensor, Tensor] | None = None
    bias: Tensor | None = None


def resize_positions(
    cfg: HookedViTConfig, table: Float[Tensor, "1 position d_model"], grid: Grid
) -> Float[Tensor, "1 token d_model"]:
    """Resize the learned positions to another grid of patches, as Hugging Face does for the family.

    Prefix tokens keep their positions. Patches are resized bicubically: in the model's dtype (ViT and most), in float32
    (DINOv2), in float32 and with antialiasing (DINOv2 with registers); SigLIP 2 resizes bilinearly, with antialiasing,
    and passes through float32 at its own size, too.
    """
    if grid == cfg.position_grid and cfg.interpolation != "siglip2":
        return table
    n_prefix = cfg.n_prefix_tokens - cfg.n_registers
    patches = table[:, n_prefix:].unflatten(1, cfg.position_grid).permute(0, 3, 1, 2)
    wide = patches if cfg.interpolation == "vit" else patches.float()
    mode = "bilinear" if cfg.interpolation == "siglip2" else "bicubic"
    antialias = cfg.interpolation in ("dinov2_with_registers", "siglip2")
    if grid != cfg.position_grid:
        wide = F.interpolate(wide, size=grid, mode=mode, align_corners=False, antialias=antialias)
    return torch.cat([table[:, :n_prefix], wide.to(table.dtype).permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def rotary_angles(
    cfg: HookedViTConfig, grid: Grid, device: torch.device, dtype: torch.dtype
) -> tuple[Float[Tensor, "patch 1 d_head"], Float[Tensor, "patch 1 d_head"]]:
    """Compute the cosines and sines of DINOv3's rotary positions (arXiv:2508.10104).

    A patch's centre (row, column) lies in [-1, 1]²; each coordinate gives a quarter of the head's dimensions the angles
    2π x / theta^(4i / d_head). Coordinates and frequencies are rounded to float32 as Hugging Face's are.
    """
    wide = torch.promote_types(dtype, torch.float32)
    steps = torch.arange(0, 1, 4 / cfg.d_head, dtype=torch.float32, device=device)
    frequency = (1 / cfg.rope_theta**steps).to(wide)
    axes = [torch.arange(0.5, n, dtype=torch.float32, device=device) / n for n in grid]
    centre = 2.0 * torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 1) - 1.0
    angles = (2 * math.pi * centre[:, :, None] * frequency).flatten(1, 2).tile(2).unsqueeze(1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(
    x: Float[Tensor, "batch token head d_head"], rotary: tuple[Tensor, Tensor]
) -> Float[Tensor, "batch token head d_head"]:
    """Rotate the patches' vectors by their positions; prefix tokens are unchanged."""
    cos, sin = rotary
    prefix, patches = x.split([x.shape[1] - len(cos), len(cos)], dim=1)
    first, second = patches.chunk(2, dim=-1)
    return torch.cat([prefix, patches * cos + torch.cat([-second, first], dim=-1) * sin], dim=1)


class RelativePositionBias(nn.Module):
    """A learned bias on the attention scores for each difference of two patches' positions (BEiT, arXiv:2106.08254).

    The last three rows of the table are for CLS to patch, patch to CLS and CLS to CLS.
    """

    def __init__(self, cfg: HookedViTConfig) -> None:
        super().__init__()
        self.grid = cfg.position_grid
        rows, columns = cfg.position_grid
        self.table = nn.Parameter(torch.zeros((2 * rows - 1) * (2 * columns - 1) + 3, cfg.n_heads))

    def forward(self, grid: Grid) -> Float[Tensor, "1 head query key"]:
        """Return the bias for a grid of patches; the table is resized bilinearly if the grid is not the model's own."""
        table: Tensor = self.table
        if grid != self.grid:
            rows, columns = (2 * n - 1 for n in self.grid)
            patches = table[:-3].unflatten(0, (rows, columns)).permute(2, 0, 1).unsqueeze(0)
            resized = F.interpolate(patches, size=(2 * grid[0] - 1, 2 * grid[1] - 1), mode="bilinear")
            table = torch.cat([resized[0].flatten(1).T, table[-3:]])
        index = _relative_index(grid, table.device)
        return table[index].permute(2, 0, 1).unsqueeze(0).contiguous()


@torch.compiler.assume_constant_result  # torch.compile warns of a cached function that it finds itself
def _relative_index(grid: Grid, device: torch.device) -> Int[Tensor, "query key"]:
    """Return the table row of each pair of tokens, made once."""
    return _new_relative_index(grid, device)


@functools.lru_cache(maxsize=16)
@torch.inference_mode(False)  # the cached value must be usable in training, too
def _new_relative_index(grid: Grid, device: torch.device) -> Int[Tensor, "query key"]:
    rows, columns = grid
    place = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")).flatten(1)
    apart = place[:, :, None] - place[:, None, :] + torch.tensor([rows - 1, columns - 1])[:, None, None]
    n_patches, n_apart = rows * columns, (2 * rows - 1) * (2 * columns - 1)
    index = torch.full((n_patches + 1, n_patches + 1), n_apart)
    index[1:, 1:] = apart[0] * (2 * columns - 1) + apart[1]
    index[1:, 0] = n_apart + 1
    index[0, 0] = n_apart + 2
    return index.to(device)  # cached on the device: every layer needs it in every pass
