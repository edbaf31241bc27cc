"""What the trainer reads: batches of activations, however they come about; and that of images through a model."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechvit.analysis.finite import model_name
from mechvit.arguments import checked
from mechvit.data.corruption_spec import CLEAN, Corruption, as_corruption
from mechvit.models.checkpoints.fingerprint import checkpoint_hash
from mechvit.models.interrupts import random_numbers_kept
from mechvit.models.processors.preprocessing import all_settings
from mechvit.models.runs.image_tokens import token_slice
from mechvit.saes.config import StreamConfig

from .dataset_fingerprint import images_fingerprint
from .image_store import ImageActivationsStore, epoch_segments, sae_input_widths

if TYPE_CHECKING:
    import datasets

    from mechvit.models import HookedViT

HELD_OUT_EPOCH = 1_000_000
"""The epoch number of held-out and calibration streams: their corruptions are the same at every check."""


class ActivationStreams(Protocol):
    """The only thing that the trainer reads. Every process of a parallel training gets the same, whole batches."""

    @property
    def widths(self) -> dict[str, int]:
        """Hook point -> d_in, in the order of the columns of every batch."""

    def steps_per_epoch(self, batch_size: int) -> int:
        """How many full batches of so many tokens an epoch gives."""

    def epoch(self, number: int) -> Iterable[Float[Tensor, "token columns"]]:
        """The mixed training tokens of one epoch, in full batches; equal numbers give equal batches.

        An iterable with `state_dict() -> JSON` and `load_state_dict` can go on where it was cut off; of any other the
        batches that were trained on are read again and passed over.
        """

    def held_out(self) -> Iterator[Float[Tensor, "token columns"]]:
        """Held-out tokens in order, unmixed, the same every time."""

    def calibration(self) -> Iterator[Float[Tensor, "token columns"]]:
        """The first training tokens in order, a bounded number."""

    def about(self) -> dict[str, Any]:
        """What the activations are, as JSON: model_name, checkpoint_hash, hook_tokens, corruptions (keys),
        clean_fraction, data_fingerprint, and whatever else changes them."""


class ImageStreams:
    """Activations of images, computed as they are needed.

    Args:
        model: any HookedViT with an image processor.
        images: prepared or raw, the training images.
        validation_images: held-out images; corrupted alike.
        corruptions: what the images that do not stay clean get, each equally often.
        config: hooks, tokens, mix and sizes.

    Raises:
        ValueError: too few images for one batch, or a hook point that the model lacks.
    """

    @checked
    def __init__(
        self,
        model: HookedViT,
        images: datasets.Dataset,
        validation_images: datasets.Dataset,
        *,
        corruptions: Collection[Corruption | str],
        config: StreamConfig,
    ) -> None:
        self.model, self.images, self.validation_images, self.config = model, images, validation_images, config
        self.corruptions = tuple(c for c in map(as_corruption, corruptions) if c != CLEAN)
        self._widths = sae_input_widths(model, config)
        self._store(images, 0, epoch_segments(len(images), config, 0)[-1])  # refuses images that give no batch

    @property
    def widths(self) -> dict[str, int]:
        """Hook point -> d_in."""
        return dict(self._widths)

    def _store(self, images: datasets.Dataset, epoch: int, rows: np.ndarray, **changes: Any) -> ImageActivationsStore:
        config = replace(self.config, **changes)
        return ImageActivationsStore(
            self.model, images, corruptions=self.corruptions, config=config, epoch=epoch, rows=rows, widths=self._widths
        )

    def steps_per_epoch(self, batch_size: int) -> int:
        """Full batches an epoch; those of each segment, since what is left at its end is left out."""
        per_image = len(range(self.model.cfg.n_tokens)[token_slice(self.model.cfg, self.config.tokens)])
        return sum(len(rows) * per_image // batch_size for rows in epoch_segments(len(self.images), self.config, 0))

    def epoch(self, number: int) -> ImageEpoch:
        """The mixed training tokens of one epoch."""
        return ImageEpoch(self, number)

    def _in_order(self, images: datasets.Dataset, limit: int) -> Iterator[Float[Tensor, "token columns"]]:
        rows = np.arange(min(limit, len(images)))
        store = self._store(images, HELD_OUT_EPOCH, rows, train_batch_size_tokens=1)
        return store._iterate_filtered_activations()

    def held_out(self) -> Iterator[Float[Tensor, "token columns"]]:
        """Every token of the validation images, batch by batch of images."""
        return self._in_order(self.validation_images, len(self.validation_images))

    def calibration(self) -> Iterator[Float[Tensor, "token columns"]]:
        """The tokens of the first training images."""
        return self._in_order(self.images, self.config.calibration_images)

    def about(self) -> dict[str, Any]:
        """The model, the images and the mix."""
        return dict(self._about)

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
        }


class ImageEpoch:
    """The batches of one epoch, segment after segment; can go on after any batch.

    The mixing has random numbers of its own, drawn from the seed, the epoch and the segment: what else is drawn, and
    where the epoch was cut off, changes nothing.
    """

    def __init__(self, streams: ImageStreams, number: int) -> None:
        self.streams, self.number, self.given = streams, number, 0

    def state_dict(self) -> dict[str, Any]:
        """How many batches were given."""
        return {"batches": self.given}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after so many batches; those of the segment that was cut off are computed again and passed over."""
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
