"""Linear CKA: similarity of two representations of the same images, layer by layer, invariant to rotation.

With K = X Xᵀ and L = Y Yᵀ for examples in rows, CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)): 1 where Y is X rotated,
shifted and scaled, 0 where they share nothing. K and L are never formed (see `hsic.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvit.analysis.condition_images import check_same_image
from mechvit.analysis.finite import check_finite
from mechvit.analysis.inputs import Images, SharedBatch, corrupted_batches, on_cpu, pixel_values, wide
from mechvit.analysis.lenses.logit_lens import residual_hooks
from mechvit.analysis.statistics.bootstrap import LEVEL
from mechvit.analysis.statistics.jackknife import jackknife_interval
from mechvit.analysis.statistics.results import Result
from mechvit.arguments import checked
from mechvit.data.conditions import as_condition
from mechvit.data.corruption_spec import CLEAN, Condition
from mechvit.models.processors.preprocessing import check_alike

from .hsic import Moments, hsic, widened

if TYPE_CHECKING:
    import pandas as pd

    from mechvit.models import HookedViT
    from mechvit.models.config import HookedViTConfig

CKATokens = Literal["cls", "mean", "patch"]
IMAGE_GROUPS = 10
"""Number of groups of images, each left out once for the interval."""


class View(NamedTuple):
    """A model under one condition."""

    model: str
    corruption: Condition


@dataclass(frozen=True, repr=False)
class CKA(Result):
    """Similarities of pairs of layers of two views; layer 0 is the embedding, l the output of block l - 1; on the CPU.

    The interval is a delete-a-group jackknife's: CKA is recomputed without each group of images, and Student's t has
    one degree of freedom less than there are groups. A bootstrap would be biased: an image drawn twice is a pair of
    equal examples in both views, which the debiased estimator takes for two images, so that every resample would be too
    high.
    """

    layers: Int[Tensor, "pair 2"]
    """Layer of the first and of the second view, for each pair."""
    value: Float[Tensor, " pair"]
    """CKA, -1 (0 for the biased estimator) to 1; NaN where a representation does not vary, such as CLS's embedding."""
    left_out: Float[Tensor, "group pair"]
    """CKA without each group of images."""

    def interval(self, level: float = LEVEL) -> tuple[Float[Tensor, " pair"], Float[Tensor, " pair"]]:
        """Return the ends of the jackknife interval (`jackknife_interval`), cut off at -1 and 1."""
        return jackknife_interval(self.value, self.left_out, level, -1.0, 1.0)

    def to_frame(self, *, level: float = LEVEL, **labels: str) -> pd.DataFrame:
        """Return one row per pair of layers: the labels, layer_a, layer_b, cka, low, high."""
        import pandas as pd

        low, high = self.interval(level)
        columns = {"layer_a": self.layers[:, 0], "layer_b": self.layers[:, 1], "cka": self.value}
        columns |= {"low": low, "high": high}
        return pd.DataFrame({**labels, **{name: values.numpy() for name, values in columns.items()}})


@checked
def linear_cka(
    model_a: HookedViT,
    model_b: HookedViT,
    images: Images,
    corruption_a: Condition | str = CLEAN,
    corruption_b: Condition | str | None = None,
    *,
    tokens: CKATokens = "mean",
    every_pair: bool = False,
    debiased: bool = True,
    groups: int = IMAGE_GROUPS,
    batch_size: int | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> CKA:
    """Compute linear CKA between the residual streams of two models, or of one model on clean and corrupted images.

    The default estimator of HSIC is the unbiased U-statistic, over all examples at once. The biased one (the Frobenius
    norm of the cross-covariance) is the definition, and near 1 for anything once examples are as few as dimensions;
    averaging the unbiased one over minibatches estimates the same quantity with more variance.

    Args:
        model_a, model_b: they may differ in width, and with `every_pair` in depth; each sees the images as its own
            processor resizes them.
        corruption_a, corruption_b: what each model sees; the same for both when `corruption_b` is None.
        tokens: the example that represents an image: its first token (`cls`), the `mean` of its patches, or one `patch`
            drawn at random, at the same place in both views. All of its patches would bias the unbiased estimator
            upwards, since they are not independent.
        every_pair: compare every layer with every layer, not only with the same one. Held are `groups` x (d + 2)² sums
            in float64 for each pair and each layer of both: 16 MB for 6 layers of width 96 and 48 MB with every pair,
            for a ViT-B/16 1.9 GB and 9.3 GB.
        debiased: the unbiased estimator (True) or the biased one.
        groups: number of random groups of images, for the interval.
        seed: seed of the noise and of the groups.
        images, batch_size, progress: as in `evaluate`; labels are not read.

    Raises:
        ValueError: unknown tokens, fewer than two groups or two images per group, models that do not fit each other.

    Source: arXiv:1905.00414, section 3 (linear CKA); arXiv:2010.15327, equation 3 (the unbiased HSIC), from Song et
    al., Journal of Machine Learning Research 13 (2012).
    """
    first = View("a", as_condition(corruption_a))
    second = View("b", first.corruption if corruption_b is None else as_condition(corruption_b))
    found = compare_views(
        {"a": model_a, "b": model_b},
        images,
        [(first, second)],
        tokens=tokens,
        every_pair=every_pair,
        debiased=debiased,
        groups=groups,
        batch_size=batch_size,
        seed=seed,
        progress=progress,
    )
    return found[first, second]


@checked
@torch.inference_mode()
def compare_views(
    models: Mapping[str, HookedViT],
    images: Images,
    comparisons: list[tuple[View, View]],
    *,
    tokens: CKATokens = "mean",
    every_pair: bool = False,
    layers: Mapping[str, Sequence[int]] | None = None,
    debiased: bool = True,
    groups: int = IMAGE_GROUPS,
    batch_size: int | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> dict[tuple[View, View], CKA]:
    """Compute several comparisons in one pass per model and condition; other arguments as in `linear_cka`.

    Args:
        layers: model -> its layers, in the order in which they are paired with those of another model (`every_pair`:
            with all of them), as `layers_by_depth` lists them; None takes all layers of every model.

    Raises:
        ValueError: as in `linear_cka`; a layer that a model lacks, or lists that cannot be paired.
    """
    views = list(dict.fromkeys(view for pair in comparisons for view in pair))
    check_views(models, images, comparisons, tokens=tokens, every_pair=every_pair, groups=groups, layers=layers)
    chosen = {view: _layers(models, view.model, layers) for view in views}
    own: dict[View, Moments] = {view: Moments() for view in views}
    cross = {pair: Moments(every_pair) for pair in comparisons}
    group_of = np.random.default_rng(seed).permutation(len(images)) % groups
    compared = {view.model: models[view.model] for view in views}
    shown = dict.fromkeys(view.corruption for view in views)
    batches = corrupted_batches(compared, images, shown, batch_size, seed=seed, progress=progress)
    origin = dict[View, Tensor]()
    for start, batch in groupby(batches, key=lambda batch: batch.start):
        seen = _look(compared, batch, views, tokens, seed)
        for view, x in seen.items():  # shifted by one example, to keep the sums small
            x = x[chosen[view]]
            seen[view] = widened(x, origin.setdefault(view, x[:, :1].clone()))
        first = seen[views[0]]
        group = torch.from_numpy(group_of[start : start + first.shape[1]]).to(first.device)
        for view, x in seen.items():
            own[view].add(x, x, group, groups)
        for pair, moments in cross.items():
            moments.add(seen[pair[0]], seen[pair[1]], group, groups)
    return {
        (a, b): _similarity(own[a], own[b], cross[a, b], (chosen[a], chosen[b]), debiased, groups)
        for a, b in comparisons
    }


@checked
def layers_by_depth(models: Mapping[str, HookedViT]) -> dict[str, list[int]]:
    """List, for every layer of the shallowest model, each model's layer at the same share of its depth, rounded."""
    depths = {name: model.cfg.n_layers for name, model in models.items()}
    fewest = min(depths.values())
    return {name: [round(layer * depth / fewest) for layer in range(fewest + 1)] for name, depth in depths.items()}


def _layers(models: Mapping[str, HookedViT], name: str, layers: Mapping[str, Sequence[int]] | None) -> list[int]:
    """Return the layers of a model that are compared."""
    return list(range(models[name].cfg.n_layers + 1)) if layers is None else [int(layer) for layer in layers[name]]


@checked
def clean_and_corrupted(
    models: Mapping[str, HookedViT], corruptions: Collection[Condition | str]
) -> list[tuple[View, View]]:
    """List the comparisons that show what tuning changed.

    The first model with each other one, clean and under each corruption; and each model's clean view with its view of
    each corruption.
    """
    names, conditions = list(models), list(dict.fromkeys([CLEAN, *map(as_condition, corruptions)]))
    between = [(View(names[0], c), View(name, c)) for name in names[1:] for c in conditions]
    within = [(View(name, CLEAN), View(name, c)) for name in names for c in conditions[1:]]
    return between + within


def _similarity(
    a: Moments, b: Moments, cross: Moments, chosen: tuple[list[int], list[int]], debiased: bool, groups: int
) -> CKA:
    """Compute CKA over all images, and without each group."""

    def cka(xx: Tensor, yy: Tensor, xy: Tensor) -> Float[Tensor, " pair"]:
        own_a, own_b = hsic(xx, debiased), hsic(yy, debiased)
        scale = own_a[:, None] * own_b if cross.every_pair else own_a * own_b
        return (hsic(xy, debiased) / scale.sqrt()).flatten()

    value = cka(a.all(), b.all(), cross.all())
    left_out = [cka(*(moments.without(group) for moments in (a, b, cross))) for group in range(groups)]
    layers_a, layers_b = map(torch.tensor, chosen)
    layers = torch.cartesian_prod(layers_a, layers_b) if cross.every_pair else torch.stack([layers_a, layers_b], dim=1)
    return CKA(layers, on_cpu(value), on_cpu(torch.stack(left_out)))


def _look(
    models: Mapping[str, HookedViT], batches: Iterable[SharedBatch], views: list[View], tokens: CKATokens, seed: int
) -> dict[View, Float[Tensor, "layer example d"]]:
    """Return every view's examples of the same images; each batch serves the models that resize alike."""
    seen = {}
    for batch in batches:
        for corruption, shown in batch.conditions:
            for view in (view for view in views if view.corruption == corruption and view.model in batch.models):
                model = models[view.model]
                hooks, residuals = residual_hooks(model, _reading(tokens, model.cfg, shown.image_ids, seed))
                model.run_with_hooks(pixel_values(model, shown), fwd_hooks=hooks)
                check_finite(f"the residual stream under {corruption.key}", residuals, view.model, shown.image_ids)
                seen[view] = torch.stack(residuals)
    return seen


def _reading(
    tokens: CKATokens, cfg: HookedViTConfig, image_ids: Int[Tensor, " batch"], seed: int
) -> Callable[[Tensor], Tensor]:
    """Return the function from a residual stream to its examples, one per image."""
    if tokens == "cls":
        return lambda residual: residual[:, 0].clone()
    if tokens == "mean":
        return lambda residual: wide(residual[:, cfg.n_prefix_tokens :]).mean(1)
    share = np.array([np.random.default_rng([seed, int(image) % 2**63]).random(2) for image in image_ids])
    row, column = np.floor(share * cfg.grid).astype(np.int64).T  # the same place for a model with another patch size
    place = torch.from_numpy(cfg.n_prefix_tokens + row * cfg.grid[1] + column)
    return lambda residual: residual[torch.arange(len(place)), place.to(residual.device)]


def check_views(
    models: Mapping[str, HookedViT],
    images: Images,
    comparisons: list[tuple[View, View]],
    *,
    tokens: str,
    every_pair: bool,
    groups: int = IMAGE_GROUPS,
    layers: Mapping[str, Sequence[int]] | None = None,
) -> None:
    """Raise a ValueError where `compare_views` would: no comparison, unknown tokens, too few images, other depths."""
    if not comparisons:
        raise ValueError("there is nothing to compare; give at least one pair of views (model, corruption)")
    if tokens not in ("cls", "mean", "patch"):
        raise ValueError(f"tokens must be cls, mean (of patches) or patch (one at random); got {tokens!r}")
    if groups < 2 or len(images) < max(2 * groups, 8):
        raise ValueError(
            f"an interval needs at least 2 groups, 2 images in each group and 8 images in all; got {groups} groups and "
            f"{len(images)} images"
        )
    views = list(dict.fromkeys(view for pair in comparisons for view in pair))
    between = [view.corruption for pair in comparisons if pair[0].model != pair[1].model for view in pair]
    check_same_image(between, "CKA between models", models)
    if tokens == "patch":
        processors = {view.model: models[view.model].image_processor for view in views}
        check_alike(processors, "CKA of patches at one place", in_="place")
    for name in dict.fromkeys(view.model for view in views):
        if tokens == "cls" and not models[name].cfg.cls_token:
            raise ValueError(f"the model {name!r} has no class token; take tokens='mean' or 'patch'")
    _check_layers(models, comparisons, layers, every_pair)


def _check_layers(
    models: Mapping[str, HookedViT],
    comparisons: list[tuple[View, View]],
    layers: Mapping[str, Sequence[int]] | None,
    every_pair: bool,
) -> None:
    """Refuse layers that a model lacks, and as many layers of one model as the other does not have."""
    for name in {view.model for pair in comparisons for view in pair} if layers is not None else ():
        given, last = list((layers or {}).get(name, ())), models[name].cfg.n_layers
        if not given or not all(0 <= layer <= last for layer in given):
            raise ValueError(f"layers of {name} must be one or more of 0 to {last}; got {given or 'none'}")
    for a, b in comparisons:
        counts = [len(_layers(models, view.model, layers)) for view in (a, b)]
        if counts[0] == counts[1] or every_pair:
            continue
        if layers is not None:
            raise ValueError(
                f"layers are paired in order, as many of {a.model} as of {b.model}; got {counts[0]} and {counts[1]}"
            )
        raise ValueError(
            f"models of different depth ({a.model}: {counts[0] - 1} and {b.model}: {counts[1] - 1} blocks) have no "
            "same layers; compare every_pair of them, or the layers_by_depth"
        )
