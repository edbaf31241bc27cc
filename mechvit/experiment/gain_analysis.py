"""Localisation of a tuned model's gain: every analysis of one base and one tuned model, as tidy tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mechvit.data.corruption_spec import CLEAN, Condition

if TYPE_CHECKING:
    import datasets
    import pandas as pd
    from sae_lens import SAE

    from mechvit.models import HookedViT

Tables = dict[str, "pd.DataFrame"]
INTO_BASE, INTO_TUNED, CLEAN_INTO_CORRUPTED = "tuned into base", "base into tuned", "clean into corrupted"
"""Directions of patching: the tuned model's component into the base, the reverse, and the clean image's into the
corrupted one's within the base."""
ALPHAS = (-0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
"""Points on the line from the base's weights to the tuned model's."""
SCALES = (1.0, 2.0, 4.0)
"""Multiples of a steering direction."""
CONTROLS = 2
"""Number of random directions of the same length per direction."""
MOST_COST = 0.02
"""Largest loss of clean accuracy, 0 to 1, with which a block and scale may be chosen."""
NO_ABLATION = ["model", "corruption", "kind", "n", "quantity"]
"""Columns of the table if too few latents fire for an ablation."""
ABLATED_COUNTS = (1, 4, 16, 64)
"""Numbers of latents that are ablated together."""


@dataclass(frozen=True, kw_only=True)
class Isolation:
    """A base and a tuned model, the corruption that it was tuned on, and disjoint sets of images."""

    base: HookedViT
    tuned: HookedViT
    corruption: Condition
    test: datasets.Dataset
    """Images on which everything is measured."""
    train: datasets.Dataset
    """Images from which steering directions, translators and latents are derived."""
    held_out: datasets.Dataset
    """Images on which the translators' epochs are chosen."""
    saes: Mapping[str, SAE]
    """SAEs of `base` and `tuned`, at the same hook point."""
    shared: SAE
    """An SAE trained on both models."""
    seed: int
    """Seed of the corruptions' noise."""
    bootstrap: Mapping[str, Any]
    """The arguments resamples, level and seed of every interval."""

    @property
    def models(self) -> dict[str, HookedViT]:
        """Both models by name."""
        return {"base": self.base, "tuned": self.tuned}


def isolate(pair: Isolation) -> Tables:
    """Compute every table for one pair; see the functions below."""
    found: Tables = {}
    for part in PARTS:
        found |= part(pair)
    return found


def patching(pair: Isolation) -> Tables:
    """Patch activations of each model into the other, and relate heads' effects to their attention.

    gain_patching: direction, and the columns of `Patching.summary`; gain_attribution: kind, components, quantity,
    value, low, high; gain_attribution_components: as `AttributionError.components`; gain_neurons and
    gain_neuron_agreement: as `NeuronPatching.to_frame` and `agreement`; gain_heads: as `HeadLinks.to_frame`;
    gain_head_correlations: as `HeadLinks.correlations`.
    """
    import pandas as pd

    from mechvit import analysis
    from mechvit.analysis.interventions.components import COMPONENT_KINDS, ENDS

    base, tuned, corruption = pair.base, pair.tuned, pair.corruption
    every, branches = (*COMPONENT_KINDS, *ENDS), ("resid", "attn", "mlp")
    ways = {
        INTO_BASE: (base, tuned, corruption, every),
        INTO_TUNED: (tuned, base, corruption, every),
        CLEAN_INTO_CORRUPTED: (base, base, CLEAN, branches),
    }
    found = {
        way: analysis.patch_models(
            receiver,
            giver,
            pair.test,
            corruption,
            giver_corruption=other,
            kinds=kinds,
            seed=pair.seed,
            progress=f"Patching, {way}",
        )
        for way, (receiver, giver, other, kinds) in ways.items()
    }
    places = analysis.patch_models(
        base, tuned, pair.test, corruption, kinds=("resid",), tokens=_places(base), seed=pair.seed
    )
    summaries = [way.summary(**pair.bootstrap).assign(direction=name) for name, way in found.items()]
    summaries.append(places.summary(**pair.bootstrap).assign(direction=INTO_BASE))
    approximate = analysis.attribution_patching(base, tuned, pair.test, corruption, seed=pair.seed)
    error = analysis.attribution_error(approximate, found[INTO_BASE], **pair.bootstrap)
    chosen = analysis.choose_neurons(approximate, top=16, random=16, seed=pair.seed)
    neurons = analysis.patch_neurons(base, tuned, pair.test, corruption, chosen, seed=pair.seed, progress="Neurons")
    heads = analysis.head_links(base, tuned, pair.test, corruption, found[INTO_BASE], seed=pair.seed)
    return {
        "gain_patching": pd.concat(summaries, ignore_index=True),
        "gain_attribution": error.overall,
        "gain_attribution_components": error.components,
        "gain_neurons": neurons.to_frame(**pair.bootstrap),
        "gain_neuron_agreement": neurons.agreement(**pair.bootstrap),
        "gain_heads": heads.to_frame(**pair.bootstrap),
        "gain_head_correlations": heads.correlations(**pair.bootstrap),
    }


def _places(model: HookedViT) -> tuple[str, ...]:
    return ("cls", "patches") if model.cfg.cls_token else ("patches",)


def weights(pair: Isolation) -> Tables:
    """Put weights of each model into the other, interpolate between them, and find the smallest set with the gain.

    gain_swaps: direction, and the columns of `Swaps.summary`; gain_interpolation; gain_weight_change: one row per part;
    gain_smallest_set: as `SmallestSet.to_frame`, without rows if there is no gain.
    """
    import pandas as pd

    from mechvit import analysis

    base, tuned = pair.base, pair.tuned
    asked: dict[str, Any] = {"seed": pair.seed}
    needed = analysis.swap_weights(
        tuned,
        base,
        pair.test,
        [pair.corruption],
        parts=tuple(analysis.part_groups(base, "branches")),
        cumulative=None,
        progress=f"Swapping, {INTO_TUNED}",
        **asked,
    )
    enough = analysis.swap_weights(
        base, tuned, pair.test, [pair.corruption], progress=f"Swapping, {INTO_BASE}", **asked
    )
    swaps = [
        found.summary(**pair.bootstrap).assign(direction=name)
        for name, found in ((INTO_BASE, enough), (INTO_TUNED, needed))
    ]
    line = analysis.interpolate_weights(
        base, tuned, pair.test, [CLEAN, pair.corruption], alphas=ALPHAS, progress="Interpolation", **asked
    )
    return {
        "gain_swaps": pd.concat(swaps, ignore_index=True),
        "gain_interpolation": line.summary(**pair.bootstrap),
        "gain_weight_change": analysis.weight_change(base, tuned).part_frame(),
        "gain_smallest_set": _smallest_set(pair),
    }


def _smallest_set(pair: Isolation) -> pd.DataFrame:
    """Return the smallest set, with the number of all parts in the column `of`; no rows if there is no gap."""
    import pandas as pd

    from mechvit import analysis
    from mechvit.analysis.weights.smallest_set import NoGap

    parts = len(analysis.part_groups(pair.base, "branches"))
    settings: dict[str, Any] = {name: value for name, value in pair.bootstrap.items() if name != "seed"}
    config = analysis.SmallestSetConfig(**settings)
    try:
        found = analysis.smallest_set(
            pair.base, pair.tuned, pair.test, pair.corruption, config=config, seed=pair.seed, progress="Smallest set"
        )
    except NoGap:
        return pd.DataFrame(columns=["step", "groups", "images", "of"])
    return found.to_frame().assign(of=parts)


def control(pair: Isolation) -> Tables:
    """Steer the base towards its clean activations after every other block: gain_steering (by scale),
    gain_steering_chosen (held out)."""
    from mechvit import analysis
    from mechvit.saes import sae_steering_direction
    from mechvit.saes.latents.steering import MOST_LATENTS

    hooks = [f"blocks.{layer}.hook_resid_post" for layer in range(0, pair.base.cfg.n_layers, 2)]
    directions = analysis.steering_directions(
        pair.base, pair.train, pair.corruption, hook_names=hooks, seed=pair.seed, progress="Directions"
    )
    sae = pair.saes["base"]
    directions.append(
        sae_steering_direction(
            pair.base, sae, pair.train, pair.corruption, n_latents=min(MOST_LATENTS, sae.cfg.d_sae), seed=pair.seed
        )
    )
    found = analysis.steer(
        pair.base,
        pair.tuned,
        pair.test,
        [pair.corruption],
        directions,
        scales=SCALES,
        controls=CONTROLS,
        seed=pair.seed,
        progress="Steering",
    )
    return {
        "gain_steering": found.summary(**pair.bootstrap),
        "gain_steering_chosen": found.chosen(most_cost=MOST_COST, **pair.bootstrap),
    }


def representations(pair: Isolation) -> Tables:
    """Compute the similarity of the residual streams, and each model's prediction depth.

    gain_cka: model_a, corruption_a, model_b, corruption_b, layer_a, layer_b, cka, low, high; gain_lens: as
    `lens_comparison_summary`; gain_depth: as `depth_summary`.
    """
    import pandas as pd

    from mechvit import analysis

    comparisons = analysis.clean_and_corrupted(pair.models, [pair.corruption])
    groups = min(10, len(pair.test) // 2)  # of images, for the interval; fewer in a quick look
    few = len(pair.test) < 8
    similar = (
        {}
        if few
        else analysis.compare_views(pair.models, pair.test, comparisons, groups=groups, seed=pair.seed, progress="CKA")
    )
    cka = [
        found.to_frame(
            level=pair.bootstrap["level"],
            model_a=a.model,
            corruption_a=a.corruption.key,
            model_b=b.model,
            corruption_b=b.corruption.key,
        )
        for (a, b), found in similar.items()
    ]
    readings, depths = [], []
    for name, model in pair.models.items():
        translator = analysis.train_tuned_lens(
            model,
            pair.train,
            pair.held_out,
            [pair.corruption],
            config=analysis.LensTraining(seed=pair.seed),
            progress=f"Tuned lens of {name}",
        )
        lenses = {"logit": None, "tuned": translator}
        for corruption in (CLEAN, pair.corruption):
            for lens, read in analysis.compare_lenses(model, lenses, pair.test, corruption, seed=pair.seed).items():
                labels = {"model": name, "corruption": corruption.key, "lens": lens}
                readings.append(read.to_frame(**labels))
                depths.append(analysis.PredictionDepth.of(read).to_frame(**labels))
    return {
        "gain_cka": pd.concat(cka, ignore_index=True) if cka else pd.DataFrame(columns=["model_a", "model_b"]),
        "gain_lens": analysis.lens_comparison_summary(pd.concat(readings, ignore_index=True), **pair.bootstrap),
        "gain_depth": analysis.depth_summary(pd.concat(depths, ignore_index=True), **pair.bootstrap),
    }


def features(pair: Isolation) -> Tables:
    """Find the latents that the corruption changes most, in each model's own SAE, and ablate them, with controls.

    gain_latents: model and the columns of `FeatureChange.to_frame`, with the tuned model's latents matched to the
    base's; gain_latents_shared: the same of the SAE trained on both, whose latents need no match; gain_ablation: model
    and the columns of `FeatureAblation.summary`.
    """
    import pandas as pd

    from mechvit import saes

    match = saes.match_features(pair.saes["base"], pair.saes["tuned"]).match
    moved = saes.feature_change(
        pair.models,
        pair.saes,
        pair.test,
        pair.corruption,
        matches={"tuned": match},
        seed=pair.seed,
        progress="Latents under corruption",
    )
    together = saes.feature_change(
        pair.models, pair.shared, pair.test, pair.corruption, seed=pair.seed, progress="Shared latents"
    )
    ablations = []
    for name, model in pair.models.items():
        sae = pair.saes[name]
        change = saes.feature_change({name: model}, sae, pair.train, pair.corruption, seed=pair.seed).models[name]
        alive = int((change.rate > 0).sum())
        counts = [n for n in ABLATED_COUNTS if 2 * n <= alive]
        if not counts:
            continue
        sets = saes.sensitive_features(sae, change, max(counts), draws=5, seed=pair.seed)
        counts = [n for n in counts if n <= len(sets.sensitive)]
        found = saes.ablate_features(
            model,
            sae,
            pair.test,
            [pair.corruption],
            sets,
            counts=counts,
            seed=pair.seed,
            progress=f"Ablation, {name}",
        )
        ablations.append(found.summary(**pair.bootstrap).assign(model=name))
    return {
        "gain_latents": moved.to_frame(level=pair.bootstrap["level"]),
        "gain_latents_shared": together.to_frame(level=pair.bootstrap["level"]),
        "gain_ablation": pd.concat(ablations, ignore_index=True) if ablations else pd.DataFrame(columns=NO_ABLATION),
    }


PARTS: tuple[Callable[[Isolation], Tables], ...] = (patching, weights, control, representations, features)
"""Analyses, in the order of the report."""
