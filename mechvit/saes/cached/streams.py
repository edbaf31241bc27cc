"""Caches of activations as the trainer reads them: training tokens shuffled, held-out tokens in order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mechvit.arguments import checked

from .reader import CachedActivations
from .shuffle import ShuffledEpoch


class CachedStreams:
    """The activations of two caches, for training and for held-out checks, as float32 batches on one device.

    Args:
        train: of the training images.
        validation: of images that are never trained on.
        batch_size: tokens of a global batch.
        seed: of the shuffling.
        calibration_images: how many of the first training images `calibration` gives.
        device: of the batches.
        rank, world: this process gets every `world`-th row of a training batch; held-out tokens are given whole.
        buffer_bytes: memory for shuffling (see `ShuffledEpoch`).

    Raises:
        ValueError: the caches are of different models, hook points or tokens.
    """

    @checked
    def __init__(
        self,
        train: CachedActivations,
        validation: CachedActivations,
        *,
        batch_size: int,
        seed: int,
        calibration_images: int,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world: int = 1,
        buffer_bytes: int = 1 << 30,
    ) -> None:
        for name in ("checkpoint_hash", "hooks", "tokens", "tokens_per_image", "processor", "model_dtype"):
            ours, theirs = getattr(train.plan, name), getattr(validation.plan, name)
            if str(ours) != str(theirs):  # of hook points the order counts too
                raise ValueError(
                    f"both caches must have one {name}; {train.folder} has {ours!r} and {validation.folder} {theirs!r}"
                )
        self.train, self.validation, self.batch_size, self.seed = train, validation, batch_size, seed
        self.calibration_images, self.device = calibration_images, torch.device(device)
        self.rank, self.world, self.buffer_bytes = rank, world, buffer_bytes
        self.epoch(0)  # refuses a batch larger than the cache

    @property
    def widths(self) -> dict[str, int]:
        """Hook point -> d_in, in the order of the columns of every batch."""
        return self.train.widths

    def steps_per_epoch(self, batch_size: int) -> int:
        """How many full batches of so many tokens an epoch gives."""
        return self.train.n_rows // batch_size

    def epoch(self, number: int) -> ShuffledEpoch:
        """The shuffled training tokens of one epoch, in full batches; equal numbers give equal batches."""
        return self.train.epoch(
            number,
            seed=self.seed,
            batch_size=self.batch_size,
            rank=self.rank,
            world=self.world,
            device=self.device,
            buffer_bytes=self.buffer_bytes,
        )

    def held_out(self) -> Iterator[Float[Tensor, "token columns"]]:
        """All held-out tokens in order."""
        return self.validation.in_order(self.batch_size, device=self.device)

    def calibration(self) -> Iterator[Float[Tensor, "token columns"]]:
        """The tokens of the first training images, in order."""
        n_rows = self.calibration_images * self.train.plan.tokens_per_image
        return self.train.in_order(self.batch_size, n_rows=n_rows, device=self.device)

    def about(self) -> dict[str, Any]:
        """What the activations are, as JSON for an SAE's `cfg.json`."""
        plan = self.train.plan
        return {
            "model_name": plan.model_name,
            "checkpoint_hash": plan.checkpoint_hash,
            "hook_tokens": plan.tokens,
            "corruptions": list(plan.corruptions),
            "clean_fraction": plan.clean_fraction,
            "data_fingerprint": plan.data_fingerprint,
            "validation_fingerprint": self.validation.plan.data_fingerprint,
            "cached_dtype": plan.dtype,
            "corruption_seed": plan.seed,
            **({} if plan.processor is None else {"processor": plan.processor}),
            **({} if plan.model_dtype is None else {"model_dtype": plan.model_dtype}),
        }
