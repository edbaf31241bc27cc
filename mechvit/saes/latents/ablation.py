"""Effect on a model's predictions of ablating the latents that a corruption changes most, compared with controls."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvit.analysis.behaviour.performance import check_logits, label_rank, require_classifier, unrounded
from mechvit.analysis.finite import model_name
from mechvit.analysis.inputs import Images, corrupted_batches, on_cpu, wide
from mechvit.analysis.statistics.bootstrap import LEVEL, RESAMPLES, interval, resampled_means
from mechvit.analysis.statistics.results import Result
from mechvit.analysis.statistics.tidy_tables import labelled
from mechvit.arguments import checked
from mechvit.data.batches import ImageBatch
from mechvit.data.conditions import as_condition
from mechvit.data.corruption_spec import CLEAN, Condition
from mechvit.saes.hook_site import shared_site
from mechvit.saes.splicing import SiteActivation, read_site

from .ablation_sets import CONTROL, SENSITIVE, FeatureSets
from .directions import check_fixed_scale, latent_directions

if TYPE_CHECKING:
    import pandas as pd
    from sae_lens import SAE

    from mechvit.models import HookedViT

AblationTarget = Literal["zero", "clean_mean"]
ABLATION_QUANTITIES = ("accuracy", "loss")
UNTOUCHED = "untouched"


@dataclass(frozen=True, kw_only=True, repr=False)
class FeatureAblation(Result):
    """Table with one row per ablation, condition and image: corruption, kind, n (latents ablated), draw (of the
    controls), image_id, accuracy (0 or 1), loss (nats)."""

    per_image: pd.DataFrame
    sets: FeatureSets
    target: str

    def to_frame(self, **labels: str) -> pd.DataFrame:
        """Return `per_image`; `labels` are constant columns put first."""
        return labelled(self.per_image, labels)

    def summary(self, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0) -> pd.DataFrame:
        """Return `ablation_summary`, with a column `rate`: the mean firing rate of the ablated latents (for controls
        over all draws); NaN for the untouched model."""
        found = ablation_summary(self.per_image, resamples=resamples, level=level, seed=seed)
        sets = zip(found["kind"], found["n"], strict=True)
        return found.assign(rate=[np.nan if kind == UNTOUCHED else self.sets.mean_rate(kind, n) for kind, n in sets])


@checked
@torch.inference_mode()
def ablate_features(
    model: HookedViT,
    sae: SAE,
    images: Images,
    corruptions: Collection[Condition | str],
    sets: FeatureSets,
    *,
    counts: Sequence[int] = (1, 4, 16, 64),
    target: AblationTarget = "zero",
    clean_mean: Float[Tensor, " d_sae"] | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    allow_other_model: bool = False,
    progress: str | None = None,
) -> FeatureAblation:
    """Ablate the n most sensitive latents, or their controls, and run the rest of the network.

    With z the codes of an activation x, S the latents and W_j what a unit of latent j writes (`latent_directions`), x +
    (target - z_S) W_S replaces x at every token that the SAE reads: the SAE's error is kept, and with S empty nothing
    changes, to the bit. The network up to the SAE runs once per condition.

    Args:
        model: a model with a head.
        sae: a published SAE, at any hook point with one vector per token.
        images: images disjoint from those that the latents were selected on; labels are the model's own class ids.
        corruptions: conditions to measure besides clean.
        sets: the result of `sensitive_features`.
        counts: numbers n of latents to ablate, each at most as many as `sets` holds.
        target: `zero`, or `clean_mean`: the latent's mean clean activation over all tokens.
        clean_mean: the mean of each latent, `LatentChange.clean`; required by that target.
        batch_size, seed, allow_other_model, progress: as in `evaluate_saes`.

    Raises:
        ValueError: the model has no head, the SAE does not fit it or scales its input, a count exceeds the sets,
            `clean_mean` is missing, or activations or logits are not finite.

    Source: ablation through the SAE with its error term kept, as in arXiv:2403.19647 (section 2).
    """
    conditions = dict.fromkeys((CLEAN, *map(as_condition, corruptions)))
    counts = tuple(dict.fromkeys(counts))
    _check(model, sae, sets, counts, target, clean_mean)
    site = shared_site(model, {"sae": sae}, allow_other_model)
    directions = latent_directions(sae)
    device = directions.device
    to = torch.zeros(sae.cfg.d_sae) if target == "zero" or clean_mean is None else clean_mean.float()
    found: dict[tuple[str, str, int, int], list[Tensor]] = defaultdict(list)
    ids = []
    for batch in corrupted_batches({"ablated": model}, images, conditions, batch_size, seed=seed, progress=progress):
        for condition, shown in batch.conditions:
            if condition == CLEAN:
                ids.append(on_cpu(shown.image_ids))
            seen = read_site(model, site, shown, condition)
            who = f"under {condition.key} the model {model_name(model)!r}"
            found[condition.key, UNTOUCHED, 0, 0].append(_scores(seen.untouched(), shown, who))
            codes = sae.encode(seen.x.to(device))
            for kind, draw, latents in sets.each():
                for n in counts:
                    logits = ablated(seen, directions, codes, latents[:n].to(device), to.to(device))
                    scores = _scores(logits, shown, f"{who} without {n} latents ({kind})")
                    found[condition.key, kind, draw, n].append(scores)
    return FeatureAblation(per_image=_table(found, torch.cat(ids)), sets=sets, target=target)


def ablated(
    seen: SiteActivation,
    directions: Float[Tensor, "d_sae d"],
    codes: Float[Tensor, "batch read d_sae"],
    latents: Int[Tensor, " n"],
    to: Float[Tensor, " d_sae"],
) -> Float[Tensor, "batch class"]:
    """Return the logits with some latents set to `to`, given the latents' directions (`latent_directions`); the rest of
    the activation stays as it is, including the SAE's error."""
    chosen = wide(codes[..., latents])
    change = (to[latents].to(chosen) - chosen) @ directions[latents]
    return seen.spliced(seen.x + change.to(seen.x))


@checked
def ablation_summary(
    per_image: pd.DataFrame, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> pd.DataFrame:
    """Compute means over images of every ablation, and its change against the untouched model and the controls.

    A control's outcome on an image is the mean over draws; `draw_low` and `draw_high` are the lowest and highest mean
    over images of a single draw.

    Returns:
        corruption, kind (untouched, sensitive, control), n, quantity, value, low, high, change (minus untouched),
        change_low, change_high, beyond (of sensitive: minus control), beyond_low, beyond_high, draw_low, draw_high.
        Accuracy is a fraction, loss is in nats; intervals are bootstrapped over images, paired over all rows.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    import pandas as pd

    from mechvit.analysis.summaries.bootstrap_draws import image_matrix

    rows = []
    for quantity in ABLATION_QUANTITIES:
        columns, values = image_matrix(per_image, quantity, ["corruption", "kind", "n", "draw"])
        means = dict(zip(columns, resampled_means(values, resamples=resamples, seed=seed).T, strict=True))
        over_draws: dict[tuple[Any, ...], list[np.ndarray]] = defaultdict(list)
        for (corruption, kind, n, _), draws in means.items():
            over_draws[corruption, kind, n].append(draws)
        whole = {key: np.mean(parts, axis=0) for key, parts in over_draws.items()}
        for (corruption, kind, n), value in whole.items():
            change = value - whole[corruption, UNTOUCHED, 0]
            nothing = np.full(3, np.nan)
            control = whole.get((corruption, CONTROL, n))
            beyond = interval(value - control, level) if kind == SENSITIVE and control is not None else nothing
            of_draws = [float(draws[0]) for draws in over_draws[corruption, kind, n]]
            single = (min(of_draws), max(of_draws))
            rows.append(
                (corruption, kind, n, quantity, *interval(value, level), *interval(change, level), *beyond, *single)
            )
    names = "corruption kind n quantity value low high change change_low change_high beyond beyond_low beyond_high"
    frame = pd.DataFrame(rows, columns=[*names.split(), "draw_low", "draw_high"])
    order = {key: place for place, key in enumerate([*dict.fromkeys(per_image["corruption"]), *_KINDS])}
    return frame.sort_values(
        ["quantity", "corruption", "kind", "n"], key=lambda c: c.map(order) if c.name in ("corruption", "kind") else c
    ).reset_index(drop=True)


_KINDS = (UNTOUCHED, SENSITIVE, CONTROL)


def _scores(logits: Float[Tensor, "batch class"], batch: ImageBatch, who: str) -> Float[Tensor, "batch 2"]:
    """Return `ABLATION_QUANTITIES` of each image, in float32."""
    check_logits(logits, batch.labels, batch.image_ids, who)
    loss = torch.nn.functional.cross_entropy(unrounded(logits), batch.labels, reduction="none").float()
    return on_cpu(torch.stack([(label_rank(logits, batch.labels) == 0).float(), loss], dim=1))


def _table(found: dict[tuple[str, str, int, int], list[Tensor]], ids: Tensor) -> pd.DataFrame:
    import pandas as pd

    parts = []
    for (corruption, kind, draw, n), batches in found.items():
        about = {"corruption": corruption, "kind": kind, "n": n, "draw": draw, "image_id": ids.numpy()}
        values = torch.cat(batches).numpy()
        parts.append(pd.DataFrame({**about, **{name: values[:, i] for i, name in enumerate(ABLATION_QUANTITIES)}}))
    return pd.concat(parts, ignore_index=True)


def _check(
    model: HookedViT,
    sae: SAE,
    sets: FeatureSets,
    counts: tuple[int, ...],
    target: str,
    clean_mean: Tensor | None,
) -> None:
    if model.head is None:
        raise ValueError(f"ablation is measured on a classifier's answers; this {model.cfg.architecture} has no head")
    require_classifier(model)
    check_fixed_scale(sae)
    if not counts or not 1 <= min(counts) <= max(counts) <= len(sets.sensitive):
        raise ValueError(f"counts must lie between 1 and the {len(sets.sensitive)} latents chosen; got {counts}")
    if target not in ("zero", "clean_mean"):
        raise ValueError(f"target must be zero or clean_mean; got {target!r}")
    if target == "clean_mean" and clean_mean is None:
        raise ValueError("the target clean_mean needs clean_mean: LatentChange.clean of the images chosen on")
