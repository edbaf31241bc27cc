"""Readings: for each method a score of every place, larger where a pair of models differs more by that method.

A place is a branch of a block (ln1 and attention, ln2 and the MLP) or a head. Methods that see whole blocks, or the
residual stream after them, give both branches of a block one score; those of the stream are also read by their
increments from layer to layer, since a change is carried on by all later layers. What is measured at attention alone is
read for an MLP at the next block's attention, which is where its change arrives.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from mechvit.analysis import (
    Component,
    SmallestSetConfig,
    attention_change,
    attribution_patching,
    difference_lens,
    linear_cka,
    logit_lens,
    patch_models,
    smallest_set,
    swap_weights,
    weight_change,
)
from mechvit.analysis.inputs import Images
from mechvit.analysis.weights.model_parts import part_groups
from mechvit.analysis.weights.smallest_set import NoGap
from mechvit.arguments import checked
from mechvit.data.corruption_spec import CLEAN

if TYPE_CHECKING:
    import pandas as pd

    from mechvit.models import HookedViT

Branches = Float[np.ndarray, "layers 2"]
"""Scores of attention and of the MLP, block by block."""
Found = dict[str, np.ndarray]
"""Reading -> scores, [layers, 2] of branches or (of `HEADS`) [layers, heads]."""
HEADS = frozenset({"head output", "head output, size", "head entropy", "head distance"})
"""Names of readings of heads."""
BRANCHES = ("attn", "mlp")


def weight_change_readings(base: HookedViT, tuned: HookedViT, images: Images) -> Found:
    """Read the size of each branch's change, plain and relative, and the concentration of its matrices' changes."""
    changes = weight_change(base, tuned, directions=False)
    rows = changes.part_frame().set_index("part")
    tensors = changes.to_frame()
    matrices = tensors[tensors["stable_rank"].notna()]
    found = {name: np.zeros((base.cfg.n_layers, 2)) for name in ("norm", "relative", "concentration")}
    for (layer, branch), parts in _parts(base):
        own = rows.loc[parts]
        norm, before = (float((own[name] ** 2).sum() ** 0.5) for name in ("change_norm", "base_norm"))
        found["norm"][layer, branch], found["relative"][layer, branch] = norm, norm / before
        ranks = matrices[matrices["part"].isin(parts)]["effective_rank"]
        found["concentration"][layer, branch] = -(ranks.min() if len(ranks) else base.cfg.d_model)
    return found


def swapping_readings(base: HookedViT, tuned: HookedViT, images: Images) -> Found:
    """Read how much of KL between the models swapping a branch takes away, from either side."""
    sufficiency, necessity = _swapped(base, tuned, images), _swapped(tuned, base, images)
    return {"sufficiency": sufficiency, "necessity": necessity, "both": sufficiency + necessity}


def _swapped(receiver: HookedViT, giver: HookedViT, images: Images) -> Branches:
    names = [name for name in part_groups(receiver, "branches") if name.startswith("blocks.")]
    found = swap_weights(receiver, giver, images, [CLEAN], parts=names, cumulative=None)
    gap = float(found.references[CLEAN.key, "receiver"].divergence.mean())
    left = {swap.part: float(outcomes.divergence.mean()) for (_, swap), outcomes in found.outcomes.items()}
    return np.array([gap - left[name] for name in names]).reshape(-1, 2)


def activation_patching_readings(base: HookedViT, tuned: HookedViT, images: Images) -> Found:
    """Read how much of KL(tuned | base) goes where the base takes an activation of the tuned model."""
    found = patch_models(base, tuned, images, CLEAN)
    gain = -found.effect_on("divergence").double().mean(1).numpy()
    return _components(base, found.components, gain)


def attribution_patching_readings(base: HookedViT, tuned: HookedViT, images: Images) -> Found:
    """Read the same to first order; and its size, whatever its sign, image by image."""
    found = attribution_patching(base, tuned, images, CLEAN, quantity="divergence")
    effect = found.effect.double()
    signed = _components(base, found.components, -effect.mean(1).numpy())
    size = _components(base, found.components, effect.abs().mean(1).numpy())
    return signed | {f"{name}, size": values for name, values in size.items()}


def _components(model: HookedViT, components: Collection[Component], values: np.ndarray) -> Found:
    """Arrange the values of components: outputs of branches, increments of the stream, heads."""
    cfg = model.cfg
    outputs, heads = np.zeros((cfg.n_layers, 2)), np.zeros((cfg.n_layers, cfg.n_heads))
    stream = np.zeros(cfg.n_layers + 1)
    for component, value in zip(components, values, strict=True):
        if component.kind == "resid":
            stream[component.layer] = value
        elif component.kind == "head":
            heads[component.layer, component.head] = value
        else:
            outputs[component.layer, BRANCHES.index(component.kind)] = value
    return {"output": outputs, "stream, increments": increments(stream), "head output": heads}


def smallest_set_readings(base: HookedViT, tuned: HookedViT, images: Images) -> Found:
    """Read how early a branch is taken into the smallest set; 0 for those that are never taken."""
    names = {name: place for place, parts in _parts(base) for name in [_joined(base, parts)]}
    scores = np.zeros((base.cfg.n_layers, 2))
    config = SmallestSetConfig(quantity="divergence", share=0.7, resamples=50)
    try:
        found = smallest_set(base, tuned, images, CLEAN, config=config)
    except NoGap:
        return {"order": scores}
    for step, groups in enumerate(found.path):
        for name in groups:
            if name in names:
                scores[names[name]] = max(scores[names[name]], len(names) - step)
    return {"order": scores}


def attention_readings(base: HookedViT, tuned: HookedViT, images: Images) -> Found:
    """Read the change of attention's entropy, and the distance of its patterns, by layer and by head.

    Distances are of heads of the same number, so that they see heads that only changed places.
    """
    found = attention_change(base, tuned, images)
    entropy = found.numbers[CLEAN.key, "entropy_change"].double().mean(0).numpy()
    distance = found.numbers[CLEAN.key, "js_distance"].double().mean(0).numpy()
    scores = {"head entropy": np.abs(entropy), "head distance": distance}
    for name, by_layer in (("entropy", np.abs(entropy.mean(1))), ("distance", distance.mean(1))):
        after = np.append(by_layer[1:], by_layer[-1])
        scores[name] = np.stack([by_layer, after], axis=1)
        before = np.insert(by_layer[:-1], 0, 0.0)
        scores[f"{name}, increments"] = np.stack([by_layer - before, after - by_layer], axis=1)
    return scores


def cka_readings(base: HookedViT, tuned: HookedViT, images: Images) -> Found:
    """Read 1 - CKA of the residual streams after each block, of the mean patches and of one patch."""
    found: Found = {}
    for tokens in ("mean", "patch"):
        groups = min(10, len(images) // 2)
        value = 1 - linear_cka(base, tuned, images, tokens=tokens, groups=groups).value.double().numpy()
        found |= _stream(tokens, np.nan_to_num(value))
    return found


def lens_readings(base: HookedViT, tuned: HookedViT, images: Images) -> Found:
    """Read the mean change, whatever its sign, of the label's probability through the logit lens."""
    own, other = (logit_lens(model, images).probability.double() for model in (base, tuned))
    return _stream("probability", (other - own).abs().mean(0).numpy())


def difference_lens_readings(base: HookedViT, tuned: HookedViT, images: Images) -> Found:
    """Read the length of the mean difference of the streams, and what the base's head reads in it."""
    found = difference_lens(base, tuned, images, images, directions=2)
    length = np.mean([own.delta.norm(dim=-1).numpy() for own in found.moments.values()], axis=0)
    size = np.mean([own.size.numpy() for (_, head), own in found.readings.items() if head == "base"], axis=0)
    return _stream("length", length) | _stream("reading", size)


METHODS: dict[str, Callable[[HookedViT, HookedViT, Images], Found]] = {
    "activation patching": activation_patching_readings,
    "attribution patching": attribution_patching_readings,
    "weight swapping": swapping_readings,
    "smallest set": smallest_set_readings,
    "weight change": weight_change_readings,
    "attention entropy": attention_readings,
    "CKA": cka_readings,
    "logit lens": lens_readings,
    "difference lens": difference_lens_readings,
}
"""Method -> the function of a base, a tuned model and images that returns its readings."""
BY_WEIGHTS = frozenset({"weight change"})
"""Methods that look at weights alone, and so differ where no function does."""


@checked
def read_places(
    base: HookedViT, tuned: HookedViT, images: Images, methods: Collection[str] = tuple(METHODS)
) -> pd.DataFrame:
    """Return the score of every place by every reading of some methods.

    Args:
        base, tuned: a model and one tuned from it, of the same classes.
        images: clean images with labels, at least four, by which the models are compared.
        methods: some of `METHODS`.

    Returns:
        method, reading, layer, branch (attn or mlp), head (-1 for a whole branch), value (larger: more of the
        difference is here), seconds (of the whole method).

    Raises:
        ValueError: an unknown method, and as the methods' own functions.
    """
    import pandas as pd

    if unknown := sorted(set(methods) - set(METHODS)):
        raise ValueError(f"methods must be some of {', '.join(METHODS)}; got {', '.join(unknown)}")
    rows = []
    for method in methods:
        clock = time.perf_counter()
        found = METHODS[method](base, tuned, images)
        seconds = time.perf_counter() - clock
        for reading, values in found.items():
            for (layer, other), value in np.ndenumerate(values):
                whole = reading not in HEADS
                branch, head = (BRANCHES[other], -1) if whole else ("attn", other)
                rows.append((method, reading, layer, branch, head, float(value), seconds))
    return pd.DataFrame(rows, columns=["method", "reading", "layer", "branch", "head", "value", "seconds"])


def increments(stream: Float[np.ndarray, " points"]) -> Branches:
    """Return what each block adds to a quantity of the residual stream, for both of its branches."""
    return np.repeat(np.diff(stream)[:, None], 2, axis=1)


def _stream(name: str, values: np.ndarray) -> Found:
    """Return a quantity of the stream after each block, and its increments."""
    return {name: np.repeat(values[1:, None], 2, axis=1), f"{name}, increments": increments(values)}


def _parts(model: HookedViT) -> list[tuple[tuple[int, int], list[str]]]:
    """Return each branch's place, and its parts."""
    groups = [parts for name, parts in part_groups(model, "branches").items() if name.startswith("blocks.")]
    return [((i // 2, i % 2), list(parts)) for i, parts in enumerate(groups)]


def _joined(model: HookedViT, parts: list[str]) -> str:
    return next(name for name, own in part_groups(model, "branches").items() if list(own) == parts)
