"""Streams of cached activations for the trainer: training tokens shuffled, held-out tokens in order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jaxtyping import Float
from torch import Tensor

from mechvit.arguments import checked

from .reader import CachedActivations
from .shuffled_epoch import ShuffledEpoch, ShuffleOptions


class CachedStreams:
    """Activations of two caches, for training and for held-out checks, as batches of one type on one device.

    Args:
        train: cache of the training images.
        validation: cache of held-out images.
        shuffle: order of the training tokens; every process receives all held-out tokens, in order.
        calibration_images: number of training images, from the first, that `calibration` yields.

    Raises:
        ValueError: the caches differ in model, hook points, tokens, image processor or precision, or a batch is larger
            than the training cache.
    """

    @checked
    def __init__(
        self,
        train: CachedActivations,
        validation: CachedActivations,
        shuffle: ShuffleOptions,
        *,
        calibration_images: int,
    ) -> None:
        for name in ("checkpoint_hash", "hooks", "tokens", "tokens_per_image", "processor", "model_dtype"):
            ours, theirs = getattr(train.plan, name), getattr(validation.plan, name)
            if str(ours) != str(theirs):  # the order of hook points counts
                raise ValueError(
                    f"both caches must have the same {name}; {train.folder} has {ours!r} and {validation.folder} "
                    f"{theirs!r}"
                )
        self.train, self.validation, self.shuffle = train, validation, shuffle
        self.calibration_images = calibration_images
        self.epoch(0)  # refuses a batch larger than the cache

    @property
    def widths(self) -> dict[str, int]:
        """Width d_in of each hook point, in the order of the columns of every batch."""
        return {hook: self.train.widths[hook] for hook in self.train.chosen(self.shuffle.hooks)}

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return the number of full batches of `batch_size` tokens per epoch."""
        return self.train.n_rows // batch_size

    def epoch(self, number: int) -> ShuffledEpoch:
        """Return the shuffled training tokens of one epoch, in full batches; equal numbers give equal batches."""
        return self.train.epoch(number, self.shuffle)

    def held_out(self) -> Iterator[Float[Tensor, "token columns"]]:
        """Yield all held-out tokens in order."""
        return self._in_order(self.validation)

    def calibration(self) -> Iterator[Float[Tensor, "token columns"]]:
        """Yield the tokens of the first training images, in order."""
        n_rows = self.calibration_images * self.train.plan.tokens_per_image
        return self._in_order(self.train, n_rows)

    def _in_order(self, cache: CachedActivations, n_rows: int | None = None) -> Iterator[Tensor]:
        how = self.shuffle
        return cache.in_order(how.batch_size, n_rows=n_rows, hooks=how.hooks, dtype=how.dtype, device=how.device)

    def revisions(self) -> dict[str, Any]:
        """Return the commits on the Hub that both caches record; see `ActivationStreams`."""
        held_out = self.validation.revisions.get("image_revisions")
        return self.train.revisions | ({"validation_image_revisions": held_out} if held_out else {})

    def about(self) -> dict[str, Any]:
        """Return the origin of the activations as JSON for an SAE's `cfg.json`."""
        plan = self.train.plan
        return {
            "model_name": plan.model_name,
            "checkpoint_hash": plan.checkpoint_hash,
            "hook_tokens": plan.tokens,
            "corruptions": list(plan.corruptions),
            **({} if plan.conditions is None else {"conditions": plan.conditions}),
            "clean_fraction": plan.clean_fraction,
            "data_fingerprint": plan.data_fingerprint,
            "validation_fingerprint": self.validation.plan.data_fingerprint,
            "cached_dtype": plan.dtype,
            "corruption_seed": plan.seed,
            **({} if plan.processor is None else {"processor": plan.processor}),
            **({} if plan.model_dtype is None else {"model_dtype": plan.model_dtype}),
        }
