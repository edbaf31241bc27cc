"""Streams of drawn activations, in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor


class MemoryStreams:
    """Streams of given activations, without a state of their own: an `ActivationStreams` of the fewest lines."""

    def __init__(self, draw: Callable[..., Tensor], widths: dict[str, int], batch: int, steps: int) -> None:
        self.draw, self.widths, self.batch, self.steps = draw, widths, batch, steps

    def rows(self, n: int, seed: int) -> Tensor:
        parts = [
            self.draw(n, width, seed=seed + 1000 * i, dtype=torch.float32)
            for i, width in enumerate(self.widths.values())
        ]
        return torch.cat(parts, dim=1)

    def steps_per_epoch(self, batch_size: int) -> int:
        return self.steps * self.batch // batch_size

    def epoch(self, number: int) -> Iterator[Tensor]:
        return (self.rows(self.batch, 100 * number + step) for step in range(self.steps))

    def held_out(self) -> Iterator[Tensor]:
        return iter(self.rows(600, 77_777).split(250))

    def calibration(self) -> Iterator[Tensor]:
        return iter(self.rows(1024, 88_888).split(200))

    def about(self) -> dict[str, Any]:
        return {
            "model_name": "drawn",
            "checkpoint_hash": "none",
            "hook_tokens": "all",
            "corruptions": ["gaussian_blur_2"],
            "clean_fraction": 0.5,
            "data_fingerprint": "0",
        }
