"""Interface of the activation streams that the trainer reads, and the stream computed from images."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechvit.analysis.finite import model_name
from mechvit.arguments import checked
from mechvit.data.conditions import as_condition, condition_record
from mechvit.data.content import images_fingerprint
from mechvit.data.corruption_spec import CLEAN, Condition
from mechvit.data.image_origin import image_revisions
from mechvit.models.checkpoints.fingerprint import checkpoint_hash
from mechvit.models.interrupts import random_numbers_kept
from mechvit.models.processors.preprocessing import all_settings
from mechvit.models.runs.image_tokens import token_slice
from mechvit.saes.config import StreamConfig

from .image_store import ImageActivationsStore, epoch_segments, sae_input_widths

if TYPE_CHECKING:
    import datasets

    from mechvit.models import HookedViT

HELD_OUT_EPOCH = 1_000_000
"""Epoch number of held-out and calibration streams, whose corruptions are then the same at every check."""


@runtime_checkable
class ActivationStreams(Protocol):
    """Source of activations for the trainer. Every process of a parallel training receives the same, whole batches.

    A stream may also have `revisions() -> JSON`, which is published with `about`: commits on the Hub of the model
    (`model_revision`) and of the images (`image_revisions`, `validation_image_revisions`: data set -> commit).
    """

    @property
    def widths(self) -> dict[str, int]:
        """Width d_in of each hook point, in the order of the columns of every batch."""

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return the number of full batches of `batch_size` tokens per epoch."""

    def epoch(self, number: int) -> Iterable[Float[Tensor, "token columns"]]:
        """Return the mixed training tokens of one epoch, in full batches; equal numbers give equal batches.

        An iterable with `state_dict() -> JSON` and `load_state_dict` resumes where it was interrupted; with any other,
        the batches that were already used are read again and skipped.
        """

    def held_out(self) -> Iterator[Float[Tensor, "token columns"]]:
        """Yield held-out tokens in order, unmixed, the same every time."""

    def calibration(self) -> Iterator[Float[Tensor, "token columns"]]:
        """Yield the first training tokens in order, a bounded number."""

    def about(self) -> dict[str, Any]:
        """Return the origin of the activations as JSON: model_name, checkpoint_hash, hook_tokens, corruptions (keys),
        clean_fraction, data_fingerprint, and everything else that changes them."""


class ImageStreams:
    """Activations of images, computed when they are needed.

    Args:
        model: any HookedViT with an image processor.
        images: training images, prepared or raw.
        validation_images: held-out images, corrupted in the same way.
        corruptions: corruptions of the images that do not stay clean, each applied equally often.
        config: hook points, tokens, share of clean images and sizes.

    Raises:
        ValueError: the images are too few for one batch, or the model lacks a hook point.
    """

    @checked
    def __init__(
        self,
        model: HookedViT,
        images: datasets.Dataset,
        validation_images: datasets.Dataset,
        *,
        corruptions: Collection[Condition | str],
        config: StreamConfig,
    ) -> None:
        self.model, self.images, self.validation_images, self.config = model, images, validation_images, config
        self.corruptions = tuple(c for c in map(as_condition, corruptions) if c != CLEAN)
        self._widths = sae_input_widths(model, config)
        self._store(images, 0, epoch_segments(len(images), config, 0)[-1])  # refuses too few images for one batch

    @property
    def widths(self) -> dict[str, int]:
        """Width d_in of each hook point."""
        return dict(self._widths)

    def _store(self, images: datasets.Dataset, epoch: int, rows: np.ndarray, **changes: Any) -> ImageActivationsStore:
        config = replace(self.config, **changes)
        return ImageActivationsStore(
            self.model, images, corruptions=self.corruptions, config=config, epoch=epoch, rows=rows, widths=self._widths
        )

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return the number of full batches per epoch; each segment drops its last partial batch."""
        per_image = len(range(self.model.cfg.n_tokens)[token_slice(self.model.cfg, self.config.tokens)])
        return sum(len(rows) * per_image // batch_size for rows in epoch_segments(len(self.images), self.config, 0))

    def epoch(self, number: int) -> ImageEpoch:
        """Return the mixed training tokens of one epoch."""
        return ImageEpoch(self, number)

    def _in_order(self, images: datasets.Dataset, limit: int) -> Iterator[Float[Tensor, "token columns"]]:
        rows = np.arange(min(limit, len(images)))
        store = self._store(images, HELD_OUT_EPOCH, rows, train_batch_size_tokens=1)
        return store._iterate_filtered_activations()

    def held_out(self) -> Iterator[Float[Tensor, "token columns"]]:
        """Return an iterator over all tokens of the validation images, one batch of images at a time."""
        return self._in_order(self.validation_images, len(self.validation_images))

    def calibration(self) -> Iterator[Float[Tensor, "token columns"]]:
        """Return an iterator over the tokens of the first training images."""
        return self._in_order(self.images, self.config.calibration_images)

    def about(self) -> dict[str, Any]:
        """Return the description of the model, the images and the corruptions."""
        return dict(self._about)

    def revisions(self) -> dict[str, Any]:
        """Return the commits of what is from the Hub; see `ActivationStreams`."""
        found = {
            "model_revision": getattr(self.model.hf_config, "_commit_hash", None),
            "image_revisions": image_revisions(self.images),
            "validation_image_revisions": image_revisions(self.validation_images),
        }
        return {name: value for name, value in found.items() if value}

    @cached_property
    def _about(self) -> dict[str, Any]:
        return {
            "model_name": model_name(self.model),
            "checkpoint_hash": checkpoint_hash(self.model),
            "hook_tokens": self.config.tokens,
            "corruptions": [c.key for c in self.corruptions],
            "clean_fraction": self.config.clean_fraction if self.corruptions else 1.0,
            "data_fingerprint": images_fingerprint(self.images, self.model.image_processor),
            "validation_fingerprint": images_fingerprint(self.validation_images, self.model.image_processor),
            "processor": all_settings(self.model.image_processor),
            "model_dtype": str(self.model.cfg.dtype).removeprefix("torch."),
            **condition_record(self.corruptions),
        }


class ImageEpoch:
    """Batches of one epoch, segment after segment, which can resume after any batch.

    The mixing uses its own random numbers, seeded by the seed, the epoch and the segment: neither other draws nor an
    interruption change the batches.
    """

    def __init__(self, streams: ImageStreams, number: int) -> None:
        self.streams, self.number, self.given = streams, number, 0

    def state_dict(self) -> dict[str, Any]:
        """Return the number of batches yielded."""
        return {"batches": self.given}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume after `state`'s number of batches; the interrupted segment is computed again, used batches skipped."""
        self.given = int(state["batches"])

    def __iter__(self) -> Iterator[Float[Tensor, "token columns"]]:
        config, skip, start = self.streams.config, self.given, 0
        for segment, rows in enumerate(epoch_segments(len(self.streams.images), config, self.number)):
            store = self.streams._store(self.streams.images, self.number, rows)
            if start + store.n_batches <= skip:
                start += store.n_batches
                continue
            seed = np.random.SeedSequence((config.seed, self.number, segment)).generate_state(1)[0]
            state = torch.Generator().manual_seed(int(seed)).get_state()
            for index in range(start, start + store.n_batches):
                with random_numbers_kept():
                    torch.set_rng_state(state)
                    batch = next(store)
                    state = torch.get_rng_state()
                if index >= skip:
                    self.given = index + 1
                    yield batch
            start += store.n_batches
