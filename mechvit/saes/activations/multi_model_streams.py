"""Activations of several models in one stream, so that one SAE speaks for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from .streams import ActivationStreams


class MixedStreams:
    """Streams of several models with the same hook points, side by side: every batch holds equally much of each.

    What the models have in common is then in the same latents, and a latent's activation can be compared between them
    without matching. Streams of one seed and the same images give every model the same images and corruptions.

    Args:
        streams: of each model; two or more.
        batch_size: tokens of a training batch, a multiple of how many models there are.

    Raises:
        ValueError: fewer than two streams, other hook points or tokens, or a batch that cannot be shared out evenly.

    Source: SAEs shared by a base and a tuned model, as crosscoders share a dictionary (arXiv:2504.02922), but with one
    decoder for both.
    """

    def __init__(self, streams: Sequence[ActivationStreams], *, batch_size: int) -> None:
        self.streams, self.batch_size = tuple(streams), batch_size
        if len(self.streams) < 2:
            raise ValueError(f"a mix needs the streams of at least two models; got {len(self.streams)}")
        if batch_size % len(self.streams):
            raise ValueError(
                f"train_batch_size_tokens must be a multiple of the {len(self.streams)} models, each of which gives an "
                f"equal part of every batch; got {batch_size}"
            )
        abouts = [stream.about() for stream in self.streams]
        for what, values in (
            ("hook points and widths", [stream.widths for stream in self.streams]),
            ("tokens", [about["hook_tokens"] for about in abouts]),
            ("steps an epoch", [stream.steps_per_epoch(batch_size) for stream in self.streams]),
        ):
            if any(value != values[0] for value in values):
                raise ValueError(f"models that are mixed must have the same {what}; got {values}")

    @property
    def widths(self) -> dict[str, int]:
        """Hook point -> d_in, of every model."""
        return self.streams[0].widths

    def steps_per_epoch(self, batch_size: int) -> int:
        """Those of all models together.

        Raises:
            ValueError: other batches than those that are mixed.
        """
        if batch_size != self.batch_size:
            raise ValueError(f"the models were mixed for batches of {self.batch_size} tokens; got {batch_size}")
        return len(self.streams) * self.streams[0].steps_per_epoch(batch_size)

    def epoch(self, number: int) -> MixedEpoch:
        """The mixed training tokens of one epoch."""
        return MixedEpoch(self, number)

    def held_out(self) -> Iterator[Float[Tensor, "token columns"]]:
        """Every model's held-out tokens, one model after the other."""
        return chain.from_iterable(stream.held_out() for stream in self.streams)

    def calibration(self) -> Iterator[Float[Tensor, "token columns"]]:
        """Every model's first training tokens, in turn."""
        for parts in zip(*(stream.calibration() for stream in self.streams), strict=True):
            yield torch.cat(parts)

    def about(self) -> dict[str, Any]:
        """The first model's, with the names, hashes and image processors of all: `model_names`, `checkpoint_hashes`,
        `processors`."""
        abouts = [stream.about() for stream in self.streams]
        return abouts[0] | {
            "model_name": " + ".join(about["model_name"] for about in abouts),
            "model_names": [about["model_name"] for about in abouts],
            "checkpoint_hashes": [about["checkpoint_hash"] for about in abouts],
            "processors": [about.get("processor") for about in abouts],
        }


class MixedEpoch:
    """The batches of one epoch; can go on after any of them.

    From one batch of each model as many mixed ones are made as there are models: the first of the first equal part of
    each, and so on.
    """

    def __init__(self, mixed: MixedStreams, number: int) -> None:
        self.part = mixed.batch_size // len(mixed.streams)
        self.epochs: list[Any] = [stream.epoch(number) for stream in mixed.streams]
        self.keeps_place = all(hasattr(epoch, "load_state_dict") for epoch in self.epochs)
        self.given = 0
        self.round = self._places()

    def _places(self) -> list[dict[str, Any]]:
        """Where each model's epoch stands; nothing where some cannot tell, which are then read again."""
        return [epoch.state_dict() for epoch in self.epochs] if self.keeps_place else []

    def state_dict(self) -> dict[str, Any]:
        """How many batches were given, and where each model's epoch stood before the last were made."""
        return {"batches": self.given, "round": self.round}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after so many batches."""
        self.given, self.round = int(state["batches"]), state["round"]
        if not self.keeps_place:
            return  # all are read again from the start
        if len(self.round) != len(self.epochs):
            raise ValueError(
                f"an epoch goes on with the streams that it was begun with, {len(self.round)}; there are "
                f"{len(self.epochs)}: give the same models, or start anew"
            )
        for epoch, place in zip(self.epochs, self.round, strict=True):
            epoch.load_state_dict(place)

    def __iter__(self) -> Iterator[Float[Tensor, "token columns"]]:
        models, skip = len(self.epochs), self.given
        made = (skip - 1) // models * models if self.keeps_place and skip else 0  # before the round that was cut off
        for batches in self._rounds():
            for turn in range(models):
                made += 1
                if made > skip:
                    self.given = made
                    yield torch.cat([batch[turn * self.part : (turn + 1) * self.part] for batch in batches])

    def _rounds(self) -> Iterator[tuple[Tensor, ...]]:
        """One batch of each model at a time."""
        iterators = [iter(epoch) for epoch in self.epochs]
        while True:
            self.round = self._places()
            batches = tuple(batch for batch in (next(epoch, None) for epoch in iterators) if batch is not None)
            if len(batches) < len(iterators):
                return
            yield batches
