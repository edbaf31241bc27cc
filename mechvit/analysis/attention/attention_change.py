"""Attention of two models on the same images, head by head: entropy, distance, CLS mass, and how far patterns differ.

Patterns are computed from the queries and keys of a pass, a few images at a time; none is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvit.analysis.finite import check_finite
from mechvit.analysis.inputs import Images, on_cpu
from mechvit.analysis.pair_checks import check_same_shape
from mechvit.analysis.shared_pass import Hooks, PassBatch, PassMeasurement, run_together
from mechvit.analysis.statistics.bootstrap import LEVEL, RESAMPLES, interval, resampled_means
from mechvit.analysis.statistics.results import Result
from mechvit.analysis.statistics.tidy_tables import labelled
from mechvit.arguments import checked
from mechvit.data.corruption_spec import CLEAN, Condition

from .capture import pattern_hooks
from .maps import head_numbers

if TYPE_CHECKING:
    import pandas as pd

    from mechvit.models import HookedViT

JS_DISTANCE = "js_distance"
"""Name of the distance between patterns."""
HEAD_NUMBERS: tuple[str, ...] = ("entropy", "distance", "cls_mass")
"""Names of the statistics of one head (`head_numbers`); the last is left out without CLS."""
WEIGHTS_AT_ONCE = 2**19
"""Most attention weights of each model that are reduced at once: the pattern of one image in one layer of a ViT-B/16.
More leave the processor's cache."""
Numbers = dict[str, Float[Tensor, "batch head"]]
Patterns = Callable[[slice], Float[Tensor, "some head query key"]]
"""Function of rows of a batch that returns their patterns, in float32 on the CPU."""


@dataclass(frozen=True, repr=False)
class AttentionChange(Result):
    """Statistics of every head of two models on every image; on the CPU."""

    image_id: Int[Tensor, " images"]
    numbers: Mapping[tuple[str, str], Float[Tensor, "images layers heads"]]
    """(condition, quantity) -> values. Quantities are entropy (nats), distance (mean attention distance of patches, in
    patches) and cls_mass (mean weight that patches give CLS, 0 to 1; only with CLS), each as _base, _tuned and _change
    (tuned minus base); and js_distance, see `js_distance`, averaged over queries, 0 to 1.
    """

    def __repr__(self) -> str:
        conditions = dict.fromkeys(condition for condition, _ in self.numbers)
        apart = [float(values.mean()) for (_, name), values in self.numbers.items() if name == JS_DISTANCE]
        layers, heads = next(iter(self.numbers.values())).shape[1:]
        return (
            f"AttentionChange({len(self.image_id)} images, {len(conditions)} conditions, {layers} layers of {heads} "
            f"heads: mean JS distance {np.mean(apart):.3g})"
        )

    def to_frame(self, **labels: str) -> pd.DataFrame:
        """Return one row per condition, image and head: the labels, condition, image_id, layer, head, quantities."""
        import pandas as pd

        frames = []
        for condition in dict.fromkeys(condition for condition, _ in self.numbers):
            own = {name: values for (key, name), values in self.numbers.items() if key == condition}
            images, layers, heads = next(iter(own.values())).shape
            places = np.indices((images, layers, heads)).reshape(3, -1)
            frame = pd.DataFrame({"image_id": self.image_id.numpy()[places[0]], "layer": places[1], "head": places[2]})
            frame = frame.assign(**{name: values.flatten().numpy() for name, values in own.items()})
            frames.append(labelled(frame, {**labels, "condition": condition}))
        return pd.concat(frames, ignore_index=True)

    def summary(
        self,
        *,
        by: Literal["head", "layer"] = "head",
        resamples: int = RESAMPLES,
        level: float = LEVEL,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Compute means over images of every quantity, for each head or (averaged over heads) each layer.

        Returns:
            condition, layer, head (by head only), quantity, value, low, high.

        Raises:
            ValueError: an unknown `by`.
        """
        import pandas as pd

        if by not in ("head", "layer"):
            raise ValueError(f"by must be head or layer; got {by!r}")
        rows = []
        for (condition, quantity), values in self.numbers.items():
            means = (values if by == "head" else values.mean(2, keepdim=True)).numpy()
            drawn = resampled_means(means.reshape(len(means), -1), resamples=resamples, seed=seed)
            for place, draws in zip(np.ndindex(*means.shape[1:]), drawn.T, strict=True):
                rows.append((condition, *place, quantity, *interval(draws, level)))
        found = pd.DataFrame(rows, columns=["condition", "layer", "head", "quantity", "value", "low", "high"])
        return found if by == "head" else found.drop(columns="head")

    def ranked(
        self,
        count: int | None = None,
        *,
        condition: str | None = None,
        resamples: int = RESAMPLES,
        level: float = LEVEL,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Return the heads in order of their mean JS distance, the largest first.

        Args:
            count: the number of heads; None returns all.
            condition: that of the rows; None takes the first.
            resamples, level, seed: settings of the bootstrap over images.

        Returns:
            layer, head, js_distance, low, high, and the mean changes entropy_change, distance_change, cls_mass_change.

        Raises:
            ValueError: a condition that was not measured.
        """
        known = list(dict.fromkeys(key for key, _ in self.numbers))
        if condition is not None and condition not in known:
            raise ValueError(f"condition must be one of those measured, {', '.join(known)}; got {condition!r}")
        table = self.summary(resamples=resamples, level=level, seed=seed)
        table = table[table["condition"] == (condition or known[0])]
        apart = table[table["quantity"] == JS_DISTANCE].drop(columns=["condition", "quantity"])
        changes = table[table["quantity"].isin([f"{name}_change" for name in HEAD_NUMBERS])]
        changes = changes.pivot(index=["layer", "head"], columns="quantity", values="value").reset_index()
        changes.columns.name = None
        order = apart.rename(columns={"value": JS_DISTANCE}).merge(changes, on=["layer", "head"])
        order = order.sort_values(JS_DISTANCE, ascending=False, kind="stable", ignore_index=True)
        return order if count is None else order.head(count)


def js_distance(first: Float[Tensor, "*batch key"], second: Float[Tensor, "*batch key"]) -> Float[Tensor, "*batch"]:
    """Compute the Jensen-Shannon distance of rows that sum to 1: the root of their divergence in bits, 0 to 1.

    With m = (p + q) / 2 and t = (p - q) / (p + q), the divergence is the sum over keys of m f(t), with
    f(t) = t artanh(t) + log(1 - t²) / 2. No term is negative and none cancels another, so that equal rows are exactly 0
    apart, and nearly equal ones are told apart in the dtype of the rows.

    Source: Endres and Schindelin, IEEE Transactions on Information Theory 49 (2003); Lin, ibid. 37 (1991).
    """
    both = first + second
    t = (first - second) / both.clamp_min(torch.finfo(both.dtype).tiny)
    share = torch.where(t.abs() < 1, t * t.atanh() + (-t.square()).log1p() / 2, math.log(2))
    return ((both * share).sum(-1) / (2 * math.log(2))).clamp(0, 1).sqrt()


@checked
@torch.inference_mode()
def attention_change(
    base: HookedViT,
    tuned: HookedViT,
    images: Images,
    conditions: Collection[Condition | str] = (CLEAN,),
    *,
    batch_size: int | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> AttentionChange:
    """Compare two models' attention on the same images, for every layer and head.

    Heads are compared with those of the same number, which means something only for a model and one tuned from it.

    Args:
        base, tuned: two models of one grid of patches and as many layers and heads; no head to classify is needed.
        images: a `datasets.Dataset` (prepared or raw) or an `ImageBatch`; labels are not read.
        conditions: what is done to the images before they are shown.
        batch_size: images per forward pass; None takes 32 on a CPU, else 128.
        seed: seed of all random draws of the conditions.
        progress: the label of a progress bar; None shows none.

    Raises:
        ValueError: models of two grids, crops, depths or numbers of heads; no images, no conditions, another input
            size, or attention that is not finite.

    Source: entropy, the paper's equation 1; mean attention distance, arXiv:2010.11929 (figure 7).
    """
    found = AttentionMeasurement(base, tuned)
    models = {"base": base, "tuned": tuned}
    run_together(models, images, conditions, [found], batch_size, seed=seed, progress=progress)
    return found.result()


class AttentionMeasurement(PassMeasurement):
    """Statistics of every head of the two models of a pass, `base` and `tuned`.

    Args:
        base, tuned: the models that run.

    Raises:
        ValueError: as `attention_change`.
    """

    def __init__(self, base: HookedViT, tuned: HookedViT) -> None:
        shape = ("grid", "n_prefix_tokens", "n_layers", "n_heads")
        check_same_shape(base, tuned, "a comparison of attention, head by head and patch by patch,", shape)
        self._of_base: list[Patterns] = []
        """The base's patterns that wait for the tuned model's."""
        self._layers: list[Numbers] = []
        self._ids: dict[str, list[Tensor]] = {}
        self._found: dict[tuple[str, str], list[Tensor]] = {}

    def hooks(self, batch: PassBatch, name: str, layer: int) -> Hooks:
        """Return hooks that keep the base's queries and keys, and reduce them beside the tuned model's."""

        def take(patterns: Patterns) -> None:
            if name == "base":
                self._of_base.append(patterns)
            else:
                self._layers.append(_reduced(batch, layer, self._of_base.pop(), patterns))

        return pattern_hooks(batch.models[name], layer, lambda: batch.places[name], take)

    def read(self, batch: PassBatch) -> None:
        """Join the layers of a batch."""
        key = batch.condition.key
        self._ids.setdefault(key, []).append(on_cpu(batch.image_ids))
        for name in self._layers[0]:
            values = torch.stack([layer[name] for layer in self._layers], dim=1)
            self._found.setdefault((key, name), []).append(values)
        self._layers.clear()

    def result(self) -> AttentionChange:
        """Return all that was read."""
        ids = next(iter(self._ids.values()))
        return AttentionChange(torch.cat(ids), {key: torch.cat(parts) for key, parts in self._found.items()})


def _reduced(batch: PassBatch, layer: int, base: Patterns, tuned: Patterns) -> Numbers:
    """Return the statistics of one layer of both models.

    Raises:
        ValueError: attention that is not finite.
    """
    parts = [_numbers(batch.models, base(rows), tuned(rows)) for rows in _few(batch)]
    found = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    for name, model in batch.models.items():
        check_finite("attention weights", [found[f"entropy_{name}"]], model, batch.image_ids, numbers=[layer])
    return found


def _few(batch: PassBatch) -> Iterator[slice]:
    """Yield slices of a batch whose patterns are reduced at once."""
    cfg = batch.models["base"].cfg
    step = max(1, WEIGHTS_AT_ONCE // (cfg.n_heads * cfg.n_tokens**2))
    yield from (slice(start, start + step) for start in range(0, len(batch.image_ids), step))


def _numbers(
    models: Mapping[str, HookedViT],
    base: Float[Tensor, "batch head query key"],
    tuned: Float[Tensor, "batch head query key"],
) -> Numbers:
    """Compute the statistics of one layer's heads in both models, their change, and the distance of the patterns."""
    cfg = models["base"].cfg
    own, other = (head_numbers(pattern, cfg.grid, cfg.n_prefix_tokens) for pattern in (base, tuned))
    pairs = {name: (getattr(own, name), getattr(other, name)) for name in ("entropy", "distance")}
    if all(model.cfg.cls_token for model in models.values()):
        pairs["cls_mass"] = own.prefix_mass[..., 0], other.prefix_mass[..., 0]
    found: Numbers = {}
    for name in (name for name in HEAD_NUMBERS if name in pairs):
        first, second = pairs[name]
        found |= {f"{name}_base": first, f"{name}_tuned": second, f"{name}_change": second - first}
    return found | {JS_DISTANCE: js_distance(base, tuned).double().mean(-1)}
