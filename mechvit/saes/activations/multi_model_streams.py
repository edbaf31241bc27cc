"""Activations of several models in one stream, for an SAE shared by all of them."""

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
    """Streams of several models with the same hook points, mixed: every batch holds equally many tokens of each model.

    Features that the models share are then the same latents, whose activations can be compared between models without
    matching. With equal seeds and images, every model receives the same images and corruptions.

    Args:
        streams: the stream of each model; at least two.
        batch_size: tokens per training batch, a multiple of the number of models.

    Raises:
        ValueError: there are fewer than two streams, they differ in hook points, tokens or length, or the batch size is
            not a multiple of the number of models.

    Source: a dictionary shared by a base and a tuned model, as in crosscoders (arXiv:2504.02922), but with one decoder
    for both.
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
            ("steps per epoch", [stream.steps_per_epoch(batch_size) for stream in self.streams]),
        ):
            if any(value != values[0] for value in values):
                raise ValueError(f"models that are mixed must have the same {what}; got {values}")

    @property
    def widths(self) -> dict[str, int]:
        """Width d_in of each hook point, the same in every model."""
        return self.streams[0].widths

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return the number of batches per epoch, over all models.

        Raises:
            ValueError: `batch_size` differs from the one that the models were mixed for.
        """
        if batch_size != self.batch_size:
            raise ValueError(f"the models were mixed for batches of {self.batch_size} tokens; got {batch_size}")
        return len(self.streams) * self.streams[0].steps_per_epoch(batch_size)

    def epoch(self, number: int) -> MixedEpoch:
        """Return the mixed training tokens of one epoch."""
        return MixedEpoch(self, number)

    def held_out(self) -> Iterator[Float[Tensor, "token columns"]]:
        """Return an iterator over every model's held-out tokens, one model after the other."""
        return chain.from_iterable(stream.held_out() for stream in self.streams)

    def calibration(self) -> Iterator[Float[Tensor, "token columns"]]:
        """Yield the first training tokens of all models, batch by batch."""
        for parts in zip(*(stream.calibration() for stream in self.streams), strict=True):
            yield torch.cat(parts)

    def about(self) -> dict[str, Any]:
        """Return the first model's description, with the names, hashes and image processors of all models in
        `model_names`, `checkpoint_hashes` and `processors`."""
        abouts = [stream.about() for stream in self.streams]
        return abouts[0] | {
            "model_name": " + ".join(about["model_name"] for about in abouts),
            "model_names": [about["model_name"] for about in abouts],
            "checkpoint_hashes": [about["checkpoint_hash"] for about in abouts],
            "processors": [about.get("processor") for about in abouts],
        }

    def revisions(self) -> dict[str, Any]:
        """Return the first stream's commits of images, and every model's commit in `model_revisions`."""
        each: list[dict[str, Any]] = [getattr(stream, "revisions", dict)() for stream in self.streams]
        commits = [found.get("model_revision") for found in each]
        images = {name: value for name, value in each[0].items() if name != "model_revision"}
        return images | ({"model_revisions": commits} if any(commits) else {})


class MixedEpoch:
    """Batches of one epoch, which can resume after any of them.

    With n models, one batch of each gives n mixed batches: the i-th consists of the i-th of n equal parts of every
    batch.
    """

    def __init__(self, mixed: MixedStreams, number: int) -> None:
        self.part = mixed.batch_size // len(mixed.streams)
        self.epochs: list[Any] = [stream.epoch(number) for stream in mixed.streams]
        self.keeps_place = all(hasattr(epoch, "load_state_dict") for epoch in self.epochs)
        self.given = 0
        self.round = self._places()

    def _places(self) -> list[dict[str, Any]]:
        """Return the position of each model's epoch; none if some cannot report it, and all are read again."""
        return [epoch.state_dict() for epoch in self.epochs] if self.keeps_place else []

    def state_dict(self) -> dict[str, Any]:
        """Return the number of batches yielded, and each model's position before the current round of batches."""
        return {"batches": self.given, "round": self.round}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume after the number of batches in `state`."""
        self.given, self.round = int(state["batches"]), state["round"]
        if not self.keeps_place:
            return  # all batches are read again from the start
        if len(self.round) != len(self.epochs):
            raise ValueError(
                f"an epoch must be continued with the {len(self.round)} streams that it was begun with; got "
                f"{len(self.epochs)}: give the same models, or start anew"
            )
        for epoch, place in zip(self.epochs, self.round, strict=True):
            epoch.load_state_dict(place)

    def __iter__(self) -> Iterator[Float[Tensor, "token columns"]]:
        models, skip = len(self.epochs), self.given
        made = (skip - 1) // models * models if self.keeps_place and skip else 0  # batches before the interrupted round
        for batches in self._rounds():
            for turn in range(models):
                made += 1
                if made > skip:
                    self.given = made
                    yield torch.cat([batch[turn * self.part : (turn + 1) * self.part] for batch in batches])

    def _rounds(self) -> Iterator[tuple[Tensor, ...]]:
        """Yield one batch of each model at a time."""
        iterators = [iter(epoch) for epoch in self.epochs]
        while True:
            self.round = self._places()
            batches = tuple(batch for batch in (next(epoch, None) for epoch in iterators) if batch is not None)
            if len(batches) < len(iterators):
                return
            yield batches
