"""Changes by rounding alone: the floor under the differences of a comparison with dtypes below float32.

Two roundings count. Models that compute in half precision round every activation; and where one model's weights are
stored in half precision and the other's are not, rounding is a difference between the two. Of each, a model is compared
with itself, with and without it, on the same images.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mechvit.data.corruption_spec import CLEAN

from .config import CompareConfig
from .pair import Pair

if TYPE_CHECKING:
    import datasets
    import pandas as pd

    from mechvit.models import HookedViT

HALF = ("bfloat16", "float16")
"""Dtypes below float32, the coarser one first."""
IMAGES = 128
"""Most images on which rounding is measured."""
COLUMNS = ("source", "dtype", "model", "head", "condition", "quantity", "layer", "n", "value", "low", "high")


def precision(model: HookedViT) -> str:
    """Return the coarsest dtype that holds every weight exactly: `bfloat16`, `float16`, or `float32`."""
    import torch

    for name in HALF:
        dtype = getattr(torch, name)
        if all(bool((w == w.to(dtype)).all()) for w in model.own_state_dict().values() if w.is_floating_point()):
            return name
    return "float32"


def equal_when_rounded(pair: Pair) -> bool:
    """Return whether both models have the same weights once both are rounded to the coarser one's dtype."""
    import torch

    own, other = pair.base.own_state_dict(), pair.tuned.own_state_dict()
    if own.keys() != other.keys():
        return False
    found = {precision(model) for model in pair.models.values()} & set(HALF)
    if not found:
        return False
    dtype = getattr(torch, next(name for name in HALF if name in found))
    return all(torch.equal(own[name].to(dtype), other[name].to(dtype)) for name in own)


def roundings(pair: Pair, dtype: str) -> list[tuple[str, str, tuple[str, ...]]]:
    """Return each rounding that is between the models: `computed` or `stored`, its dtype, and whom it concerns.

    Args:
        pair: the models.
        dtype: the one in which they compute.
    """
    if dtype in HALF:
        return [("computed", dtype, ("base", "tuned"))]
    found = {name: precision(model) for name, model in pair.models.items()}
    coarse = [name for name in HALF if name in found.values()]
    concerned = {name: tuple(place for place, own in found.items() if own != name) for name in coarse}
    return [("stored", name, places) for name, places in concerned.items() if places]


def rounding(pair: Pair, config: CompareConfig, checkpoints: Mapping[str, str]) -> dict[str, pd.DataFrame]:
    """Measure what each rounding changes in a model by itself, on the first images.

    rounding: source, dtype, model (base or tuned), head (empty where none is used), condition, quantity, layer (-1 for
    none), n, value, low, high. Quantities: kl (exact | rounded, nats) and agreement, under each condition; of clean
    images cosine_cls and cosine_patches (of residual streams, by layer); weights (the largest length of a tensor's
    change over the tensor's).

    Args:
        pair: the models, as they compute.
        config: settings of the comparison.
        checkpoints: "base" and "tuned" -> checkpoint, which is loaded again in float32.
    """
    import pandas as pd

    rows: list[tuple[Any, ...]] = []
    for source, dtype, places in roundings(pair, config.model_dtype):
        exact, rounded = _versions(pair, source, dtype, places, config.device, checkpoints)
        images = pair.first(min(IMAGES, config.count("behaviour")))
        for place in places:
            own = (exact.models[place], rounded.models[place])
            found = (*_weights(*own), *_streams(*own, images, pair))
            rows += [(source, dtype, place, "", CLEAN.key, *row) for row in found]
            for first, second in zip(exact.readings, rounded.readings, strict=True):
                shown, read = pair.first(len(images), first.head), (first.models[place], second.models[place])
                answers = _answers(*read, shown, pair)
                rows += [(source, dtype, place, first.head, *row) for row in answers]
    return {"rounding": pd.DataFrame(rows, columns=list(COLUMNS))}


def _versions(
    pair: Pair, source: str, dtype: str, places: tuple[str, ...], device: str | None, checkpoints: Mapping[str, str]
) -> tuple[Pair, Pair]:
    """Return the pair without and with a rounding."""
    import torch

    from mechvit.experiment.inputs import load_model

    if source == "computed":
        exact = {place: load_model(checkpoint, device, "float32") for place, checkpoint in checkpoints.items()}
        return replace(pair, base=exact["base"], tuned=exact["tuned"]), pair
    models = dict(pair.models)
    for place in places:
        models[place] = copy.deepcopy(models[place])
        with torch.no_grad():
            for weight in models[place].parameters():
                weight.copy_(weight.to(getattr(torch, dtype)))
    return pair, replace(pair, base=models["base"], tuned=models["tuned"])


def _weights(exact: HookedViT, rounded: HookedViT) -> Iterator[tuple[Any, ...]]:
    """Yield how far a tensor of weights moves at most, in relation to its length."""
    own, other = exact.own_state_dict(), rounded.own_state_dict()
    moved = ((own[name].double(), own[name].double() - other[name].double()) for name in own)
    most = max((float(change.norm() / weight.norm()) for weight, change in moved if change.any()), default=0.0)
    yield "weights", -1, 0, most, float("nan"), float("nan")


def _answers(exact: HookedViT, rounded: HookedViT, images: datasets.Dataset, pair: Pair) -> Iterator[tuple[Any, ...]]:
    """Yield KL(exact | rounded) and agreement over the images, under each condition."""
    import torch

    from mechvit import analysis
    from mechvit.analysis.inputs import corrupted_batches, pixel_values

    found = dict[str, list[Any]]()
    with torch.inference_mode():
        for batch in corrupted_batches({"": rounded}, images, pair.one_image, pair.batch_size, seed=pair.seed):
            for condition, shown in batch.conditions:
                logits = [model(pixel_values(model, shown)).float().cpu() for model in (exact, rounded)]
                found.setdefault(condition.key, []).append((*logits, shown.labels.cpu(), shown.image_ids.cpu()))
    for key, parts in found.items():
        answers = analysis.behaviour_of_logits(*map(torch.cat, zip(*parts, strict=True)), condition=key)
        own = answers.summary(**pair.bootstrap).query("by == 'all' and quantity in ('kl', 'agreement')")
        for row in own.itertuples():
            yield key, row.quantity, -1, row.n, row.value, row.low, row.high


def _streams(exact: HookedViT, rounded: HookedViT, images: datasets.Dataset, pair: Pair) -> Iterator[tuple[Any, ...]]:
    """Yield the mean cosine of the residual streams, by layer, at CLS and at patches."""
    import torch
    from torch.nn.functional import cosine_similarity

    from mechvit.analysis.inputs import image_batches, pixel_values
    from mechvit.analysis.lenses.logit_lens import residual_hooks

    places = {"cosine_cls": slice(0, 1)} if exact.cfg.cls_token else {}
    places |= {"cosine_patches": slice(exact.cfg.n_prefix_tokens, None)}
    sums = {name: torch.zeros(exact.cfg.n_layers + 1, dtype=torch.float64) for name in places}
    with torch.inference_mode():
        for batch in image_batches(exact, images, pair.batch_size):
            streams = []
            for model in (exact, rounded):
                hooks, residuals = residual_hooks(model, lambda residual: residual.double())
                model.run_with_hooks(pixel_values(model, batch), fwd_hooks=hooks)
                streams.append(residuals)
            for layer, (own, other) in enumerate(zip(*streams, strict=True)):
                for name, tokens in places.items():
                    cosine = cosine_similarity(own[:, tokens], other[:, tokens], dim=-1)
                    sums[name][layer] += cosine.mean(1).sum().cpu()
    for name, total in sums.items():
        for layer, value in enumerate((total / len(images)).tolist()):
            yield name, layer, len(images), value, float("nan"), float("nan")
