"""Counter-based random numbers: a pure function of (seed, image id, position).

`torch.Generator` streams depend on the device and on earlier draws. Here every number is the hash of its own address,
so a batch is drawn at once, on the GPU too, and batch size, order, workers and ranks never change a pixel.

The integers, and the uniforms made of them, are equal to the bit on every device. Normals are equal on one device;
between two they differ by at most `NORMAL_TOLERANCE`, since each device has its own logarithm, sine and cosine.
"""

from __future__ import annotations

import hashlib
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvit.settings_checks import Range, check_number

NORMAL_TOLERANCE = 4e-6
"""Largest difference of one normal between two devices, in standard deviations.

The uniforms and the angle 2 pi u are equal to the bit; a normal is at most 5.8, and of its factors float32's logarithm
may be wrong by 1 and its sine and cosine by 2 units in the last place (CUDA's guarantee, and more than a CPU's error):
1.7e-6 from the exact value on either device.
"""


_SEED = Range(0, 2**63 - 1)
"""Seeds that an int64 holds, since `named_seed` returns any of them."""


def _signed(value: int) -> int:
    """Return a 64-bit pattern as the int64 that torch holds."""
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN, _MIX_1, _MIX_2 = (_signed(v) for v in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def _shift(x: Tensor, bits: int) -> Tensor:
    """Shift right logically; torch's own shift carries the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def splitmix64(x: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """Apply SplitMix64's output function to int64 patterns (Steele et al. 2014, doi:10.1145/2660193.2660195)."""
    x = x + _GOLDEN
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    return x ^ _shift(x, 31)


def named_seed(seed: int, name: str) -> int:
    """Return a seed for draws of this name that are independent of those of any other name.

    Raises:
        ValueError: a negative seed.
    """
    _check_seed(seed)
    return int.from_bytes(hashlib.blake2b(f"{name} {seed}".encode(), digest_size=8).digest(), "big") >> 1


def standard_normal(image_ids: Int[Tensor, " batch"], count: int, seed: int) -> Float[Tensor, "batch count"]:
    """Draw `count` float32 standard normals per image (Box-Muller on two 24-bit uniforms of each hash).

    On two devices one normal may differ by `NORMAL_TOLERANCE`.

    Raises:
        ValueError: a negative seed.
    """
    first, second = _integers(image_ids, count, seed)
    u1 = (first + 1).to(torch.float32) * 2.0**-24
    u2 = second.to(torch.float32) * 2.0**-24
    radius = torch.sqrt(-2 * torch.log(u1))
    angle = (2 * math.pi) * u2
    return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)[:, :count]


def uniform(image_ids: Int[Tensor, " batch"], count: int, seed: int) -> Float[Tensor, "batch count"]:
    """Draw `count` float32 uniforms in [0, 1) per image, multiples of 2^-24, equal on every device.

    Raises:
        ValueError: a negative seed.
    """
    return torch.cat(_integers(image_ids, count, seed), dim=1)[:, :count].to(torch.float32) * 2.0**-24


def _integers(image_ids: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return two 24-bit integers from each of an image's ceil(count / 2) hashes, each [batch, ceil(count / 2)]."""
    _check_seed(seed)
    ids = image_ids.to(torch.int64)
    stream = splitmix64(ids ^ splitmix64(torch.full_like(ids, seed)))
    counter = torch.arange((count + 1) // 2, device=ids.device, dtype=torch.int64) * _GOLDEN
    bits = splitmix64(stream[:, None] + counter)
    return _shift(bits, 40), (bits >> 16) & 0xFFFFFF


def _check_seed(seed: int) -> None:
    check_number("seed", seed, _SEED)
