"""Attention statistics of heads beside their patching effects, and whether the two correlate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvit.analysis.attention.maps import head_numbers
from mechvit.analysis.condition_images import check_same_image, shown_to
from mechvit.analysis.finite import check_finite, model_name
from mechvit.analysis.inputs import Images, image_batches, pixel_values
from mechvit.analysis.statistics.bootstrap import LEVEL, RESAMPLES, interval, intervals, resampled_means
from mechvit.analysis.statistics.correlation import permutation_p, rank_correlation
from mechvit.analysis.statistics.results import Result
from mechvit.analysis.statistics.tidy_tables import labelled
from mechvit.arguments import checked
from mechvit.data.batches import ImageBatch
from mechvit.data.corruption_spec import Condition

from .activation_patching import Patching
from .model_pair import check_activations_fit
from .recovery import GIVER, RECEIVER, Effect

if TYPE_CHECKING:
    import pandas as pd

    from mechvit.models import HookedViT

CHANGE = "change"
"""The giver's value minus the receiver's."""
SIZE = "size of change"
"""Absolute value of that change."""
HEAD_STATISTICS = ("distance", "cls_mass", "entropy", "entropy_difference")


@dataclass(frozen=True, repr=False)
class HeadLinks(Result):
    """Statistics of every head and image beside the effect of patching the head; float64, on the CPU."""

    image_id: Int[Tensor, " images"]
    tokens: str
    """Tokens at which the heads were patched."""
    numbers: Mapping[tuple[str, str], Float[Tensor, "images layers heads"]]
    """(model, number) -> values. Models are receiver, giver and change (giver minus receiver). Numbers, under the
    corruption: distance (mean attention distance of patches, in patches), cls_mass (mean weight that patches give
    CLS, 0 to 1; only with CLS), entropy (nats), and entropy_difference, corrupted minus clean (positive: the
    corruption spread it out).
    """
    effect: Float[Tensor, "images layers heads"]
    """The quantity with the head's z taken from the giver, minus the receiver's own."""
    quantity: Effect = "logit_difference"
    """Quantity that is changed: the logit difference, or KL(giver | receiver) in nats (negative is nearer to it)."""

    def to_frame(
        self, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0, **labels: str
    ) -> pd.DataFrame:
        """Return one row per model, statistic and head, averaged over images with bootstrap intervals.

        Columns: the labels, model, number, layer, head, value, low, high, effect, effect_low, effect_high.
        """
        import pandas as pd

        effect = self._rows(self.effect, resamples, seed, level)
        layers, heads = self.effect.shape[1:]
        parts = []
        for (model, number), values in self.numbers.items():
            part = pd.DataFrame({"model": model, "number": number, "layer": np.repeat(np.arange(layers), heads)})
            part["head"] = np.tile(np.arange(heads), layers)
            part[["value", "low", "high"]] = self._rows(values, resamples, seed, level)
            part[["effect", "effect_low", "effect_high"]] = effect
            parts.append(part)
        frame = pd.concat(parts, ignore_index=True)
        return labelled(frame, labels)

    def correlations(
        self, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0, **labels: str
    ) -> pd.DataFrame:
        """Compute Spearman's correlation, over heads, of each statistic with the effect (both means over images).

        The interval comes from the paired bootstrap over images: the uncertainty of this correlation among these heads
        of these two models. Whether random heads would correlate as much is tested by p, from a permutation test over
        heads.

        Returns:
            one row per model and number: the labels, model, number, heads (how many), value, low, high, p (two-sided,
            from 0 to 1). The model "size of change" has the size of each head's mean change, whatever its sign.
        """
        import pandas as pd

        stacked = torch.stack([self.effect, *self.numbers.values()], 1).flatten(2)
        columns, heads = stacked.shape[1:]
        means = resampled_means(stacked.flatten(1).numpy(), resamples=resamples, seed=seed)
        effect, *others = means.reshape(len(means), columns, heads).swapaxes(0, 1)
        drawn = dict(zip(self.numbers, others, strict=True))
        drawn |= {(SIZE, number): np.abs(values) for (model, number), values in drawn.items() if model == CHANGE}
        rows = [
            (
                *labels.values(),
                *name,
                heads,
                *interval(rank_correlation(values, effect), level),
                permutation_p(values[0], effect[0], seed=seed),
            )
            for name, values in drawn.items()
        ]
        return pd.DataFrame(rows, columns=[*labels, "model", "number", "heads", "value", "low", "high", "p"])

    def summary(self, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0) -> pd.DataFrame:
        """Return `correlations`."""
        return self.correlations(resamples=resamples, level=level, seed=seed)

    def _rows(self, values: Tensor, resamples: int, seed: int, level: float) -> Float[np.ndarray, "heads 3"]:
        """Return each head's mean with its interval."""
        return intervals(resampled_means(values.flatten(1).numpy(), resamples=resamples, seed=seed), level).T


@checked
@torch.inference_mode()
def head_links(
    receiver: HookedViT,
    giver: HookedViT,
    images: Images,
    corruption: Condition | str,
    patching: Patching,
    *,
    tokens: str = "all",
    quantity: Effect = "logit_difference",
    batch_size: int | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> HeadLinks:
    """Measure every head's attention in both models, clean and corrupted, beside its patching effect.

    Args:
        receiver, giver, images, corruption: as given to `patch_models`.
        patching: the result of `patch_models`, with the kind "head".
        tokens: tokens at which heads were patched.
        quantity: the one on which the effect is measured, "logit_difference" or "divergence", which needs no labels.
        batch_size: images per pass; None takes 32 on a CPU, else 128, limited to 256 MiB of attention patterns.
        seed, progress: as in `evaluate`.

    Raises:
        ValueError: models of different shapes, a patching without heads at these tokens or of other images, and as
            `evaluate`.

    Source: mean attention distance, arXiv:2010.11929 (figure 7); the entropy of the paper's equation 1, by head.
    """
    check_activations_fit(receiver, giver)
    cfg = receiver.cfg
    places = [i for i, c in enumerate(patching.components) if c.kind == "head" and c.tokens == tokens]
    if len(places) != cfg.n_layers * cfg.n_heads:
        raise ValueError(
            f'patching must hold every head at tokens {tokens!r}: call patch_models with kinds=("head",) and '
            f"tokens=({tokens!r},)"
        )
    (applied,) = check_same_image([corruption], "a comparison of heads")
    ids: list[Tensor] = []
    found: dict[tuple[str, str], list[Tensor]] = {}
    for batch in image_batches(receiver, images, batch_size, conditions=[applied], patterns=True, progress=progress):
        ids.append(batch.image_ids.cpu())
        conditions = batch, shown_to(receiver, batch, applied, seed=seed)
        for name, model in ((RECEIVER, receiver), (GIVER, giver)):
            clean, own = (_numbers(model, shown, f"{name} {model_name(model)}") for shown in conditions)
            for number, values in {**own, "entropy_difference": own["entropy"] - clean["entropy"]}.items():
                found.setdefault((name, number), []).append(values)
    image_id = torch.cat(ids)
    if not torch.equal(image_id, patching.image_id):
        raise ValueError(
            f"images must be those of patching, in its order; got {len(image_id)} and {len(patching.image_id)}"
        )
    numbers = {key: torch.cat(parts) for key, parts in found.items()}
    numbers |= {
        (CHANGE, number): numbers[GIVER, number] - values
        for (name, number), values in list(numbers.items())
        if name == RECEIVER
    }
    effect = patching.effect_on(quantity)[places].T.double().unflatten(1, (cfg.n_layers, cfg.n_heads))
    return HeadLinks(image_id, tokens, numbers, effect, quantity)


def _numbers(model: HookedViT, batch: ImageBatch, name: str) -> dict[str, Float[Tensor, "batch layer head"]]:
    """Compute each head's statistics, layer by layer as patterns are computed."""
    layers = []

    def reduce(pattern: Tensor, hook: Any) -> None:
        check_finite("attention weights", [pattern], name, batch.image_ids, numbers=[hook.layer()])
        layers.append(head_numbers(pattern.float().cpu(), model.cfg.grid, model.cfg.n_prefix_tokens))

    hooks = [(f"blocks.{layer}.attn.hook_pattern", reduce) for layer in range(model.cfg.n_layers)]
    model.run_with_hooks(pixel_values(model, batch), return_type=None, fwd_hooks=hooks)
    found = {name: torch.stack([getattr(layer, name) for layer in layers], 1) for name in ("distance", "entropy")}
    if model.cfg.cls_token:
        found["cls_mass"] = torch.stack([layer.prefix_mass[..., 0] for layer in layers], 1)
    return {name: found[name] for name in HEAD_STATISTICS if name in found}
