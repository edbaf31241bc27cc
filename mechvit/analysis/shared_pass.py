"""One pass of one or several models over images, in which any number of analyses measure.

The models advance block by block, so that two models' values of one layer can be compared and dropped. Each analysis
is a `PassMeasurement`: alone, it is the only one of its pass; together, they share the forward passes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvit.data.batches import ImageBatch
from mechvit.data.corruption_spec import Condition
from mechvit.settings_checks import COUNT, check_number

from .common_batches import common_batches
from .inputs import Images, pixel_values

if TYPE_CHECKING:
    from mechvit.models import HookedViT
    from mechvit.models.layers.positions import TokenLayout

Hooks = list[tuple[str | Callable[..., Any], Callable[..., Any]]]
"""Names of hook points, with functions of the value and the hook point."""


@dataclass
class PassBatch:
    """A batch of images as each model is shown it under one condition, and the residual streams of its pass."""

    condition: Condition
    models: Mapping[str, HookedViT]
    """The models that run, by name."""
    pixels: Mapping[str, Float[Tensor, "batch 3 height width"]]
    """Normalised pixels of each model."""
    image_ids: Int[Tensor, " batch"]
    labels: Int[Tensor, " batch"]
    places: Mapping[str, TokenLayout]
    """Positional information that each model's blocks take."""
    resids: dict[str, Float[Tensor, "batch token d_model"]]
    """Each model's residual stream where the pass stands; at its end, what the last block left."""
    _logits: dict[tuple[str, int], Tensor] = field(default_factory=dict)

    def logits(self, name: str, head_of: HookedViT) -> Float[Tensor, "batch class"]:
        """Return the logits of one model's encoder under a head, at the end of the pass.

        Args:
            name: the model that ran.
            head_of: that model, or one that shares its encoder (`mechvit.models.graft_head`).
        """
        key = name, id(head_of)
        if key not in self._logits:
            self._logits[key] = head_of(self.resids[name], start_at_layer=head_of.cfg.n_layers)
        return self._logits[key]


class PassMeasurement:
    """One analysis's reading of a pass; it defines those of these two methods that it needs."""

    def hooks(self, batch: PassBatch, name: str, layer: int) -> Hooks:
        """Return hooks for the block that runs next: block `layer` of one model, all models in order before the next.

        They are attached for this block alone, and must not change what they are given.
        """
        return []

    def read(self, batch: PassBatch) -> None:
        """Add what was measured in a batch, at the end of its pass."""


@torch.inference_mode()
def run_together(
    models: Mapping[str, HookedViT],
    images: Images,
    conditions: Collection[Condition | str],
    measurements: Sequence[PassMeasurement],
    batch_size: int | None = None,
    *,
    counts: Sequence[int] | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> None:
    """Run models over the same images and let every measurement read the pass; each model runs once a condition.

    Args:
        models: name -> model; every condition shows all of them the same images.
        images: a `datasets.Dataset` (prepared or raw) or an `ImageBatch`.
        conditions: what is done to the images before they are shown.
        measurements: analyses of these models; the first to find something wrong refuses it.
        batch_size: images per forward pass; None takes 32 on a CPU, else 128.
        counts: the number of images that each measurement reads, the first ones; None gives all to every one.
        seed: seed of all random draws of the conditions.
        progress: the label of a progress bar; None shows none.

    Raises:
        ValueError: no images, no conditions, another input size, a count below 1 or above the number of images, and as
            the measurements.
    """
    for part, reading in _parts(images, measurements, counts):
        for condition, shown in common_batches(models, part, conditions, batch_size, seed=seed, progress=progress):
            first = next(iter(shown.values()))
            pixels = {name: pixel_values(models[name], batch) for name, batch in shown.items()}
            batch = PassBatch(
                condition,
                models,
                pixels,
                first.image_ids,
                first.labels,
                places={name: model.place(model.cfg.grid) for name, model in models.items()},
                resids={name: model(pixels[name], stop_at_layer=0) for name, model in models.items()},
            )
            _advance(batch, reading)
            for measurement in reading:
                measurement.read(batch)


def _advance(batch: PassBatch, measurements: Sequence[PassMeasurement]) -> None:
    """Run every block of every model, layer by layer."""
    for layer in range(max(model.cfg.n_layers for model in batch.models.values())):
        for name, model in batch.models.items():
            if layer < model.cfg.n_layers:
                hooks = [hook for measurement in measurements for hook in measurement.hooks(batch, name, layer)]
                with model.hooks(fwd_hooks=hooks):
                    batch.resids[name] = model.blocks[layer](batch.resids[name], batch.places[name])


def _parts(
    images: Images, measurements: Sequence[PassMeasurement], counts: Sequence[int] | None
) -> Iterator[tuple[Images, list[PassMeasurement]]]:
    """Divide the images where a measurement has seen all of its own, and yield each part with those that read it."""
    if counts is None:
        yield images, list(measurements)
        return
    for count in counts:
        check_number("counts", count, COUNT)
        if count > len(images):
            raise ValueError(f"counts must be at most the number of images, {len(images)}; got {count}")
    start = 0
    for stop in sorted(set(counts)):
        whole = start == 0 and stop == len(images)
        reading = [each for each, count in zip(measurements, counts, strict=True) if count >= stop]
        yield images if whole else _slice(images, start, stop), reading
        start = stop


def _slice(images: Images, start: int, stop: int) -> Images:
    return images.take(slice(start, stop)) if isinstance(images, ImageBatch) else images.select(range(start, stop))
