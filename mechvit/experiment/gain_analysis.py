"""Localisation of a tuned model's gain: every analysis of one base and one tuned model, as tidy tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mechvit.data.corruption_spec import CLEAN, Condition

from .sections.exchanges import (
    CLEAN_INTO_CORRUPTED,
    INTO_BASE,
    INTO_TUNED,
    Exchange,
    Tables,
    interpolation,
    patched,
    patching_table,
    smallest_set,
    steered,
    swaps,
)
from .sections.representations import FEWEST, lens_tables, similarity_table

if TYPE_CHECKING:
    import datasets
    from sae_lens import SAE

    from mechvit.analysis.representations.cka import View
    from mechvit.models import HookedViT

MOST_COST = 0.02
"""Largest loss of clean accuracy, 0 to 1, with which a block and scale may be chosen."""
NO_ABLATION = ["model", "corruption", "kind", "n", "quantity"]
"""Columns of the table if too few latents fire for an ablation."""
ABLATED_COUNTS = (1, 4, 16, 64)
"""Numbers of latents that are ablated together."""


@dataclass(frozen=True, kw_only=True)
class Isolation(Exchange):
    """A base and a tuned model, the corruption that it was tuned on, and disjoint sets of images.

    Everything is measured on `images`.
    """

    corruption: Condition
    train: datasets.Dataset
    """Images from which steering directions, translators and latents are derived."""
    held_out: datasets.Dataset
    """Images on which the translators' epochs are chosen."""
    saes: Mapping[str, SAE]
    """SAEs of `base` and `tuned`, at the same hook point."""
    shared: SAE
    """An SAE trained on both models."""


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
    from mechvit import analysis
    from mechvit.analysis.interventions.components import COMPONENT_KINDS, ENDS

    base, tuned, corruption = pair.base, pair.tuned, pair.corruption
    every, branches = (*COMPONENT_KINDS, *ENDS), ("resid", "attn", "mlp")
    found = patched(pair, corruption, {INTO_BASE: every, INTO_TUNED: every, CLEAN_INTO_CORRUPTED: branches})
    places = analysis.patch_models(
        base, tuned, pair.images, corruption, kinds=("resid",), tokens=_places(base), **pair.asked
    )
    approximate = analysis.attribution_patching(base, tuned, pair.images, corruption, **pair.asked)
    error = analysis.attribution_error(approximate, found[INTO_BASE], **pair.bootstrap)
    chosen = analysis.choose_neurons(approximate, top=16, random=16, seed=pair.seed)
    neurons = analysis.patch_neurons(base, tuned, pair.images, corruption, chosen, **pair.asked, progress="Neurons")
    heads = analysis.head_links(base, tuned, pair.images, corruption, found[INTO_BASE], **pair.asked)
    return {
        "gain_patching": patching_table([*found.items(), (INTO_BASE, places)], pair.bootstrap),
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
    from mechvit import analysis

    branches = tuple(analysis.part_groups(pair.base, "branches"))
    return {
        "gain_swaps": swaps(
            pair, [pair.corruption], {INTO_BASE: {}, INTO_TUNED: {"parts": branches, "cumulative": None}}
        ),
        "gain_interpolation": interpolation(pair, [CLEAN, pair.corruption]),
        "gain_weight_change": analysis.weight_change(pair.base, pair.tuned).part_frame(),
        "gain_smallest_set": smallest_set(pair, pair.corruption),
    }


def control(pair: Isolation) -> Tables:
    """Steer the base towards its clean activations after every other block: gain_steering (by scale),
    gain_steering_chosen (held out)."""
    from mechvit import analysis
    from mechvit.saes import sae_steering_direction
    from mechvit.saes.latents.steering import MOST_LATENTS

    directions = analysis.steering_directions(
        pair.base, pair.train, pair.corruption, hook_names=pair.steered_hooks, progress="Directions", **pair.asked
    )
    sae = pair.saes["base"]
    directions.append(
        sae_steering_direction(
            pair.base, sae, pair.train, pair.corruption, n_latents=min(MOST_LATENTS, sae.cfg.d_sae), seed=pair.seed
        )
    )
    found = steered(pair, pair.corruption, directions)
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

    def names(a: View, b: View) -> dict[str, str]:
        own = {"model_a": a.model, "corruption_a": a.corruption.key}
        return own | {"model_b": b.model, "corruption_b": b.corruption.key}

    cka, level = pd.DataFrame(columns=["model_a", "model_b"]), pair.bootstrap["level"]
    if len(pair.images) >= FEWEST:
        views = analysis.clean_and_corrupted(pair.models, [pair.corruption])
        cka = similarity_table(pair.models, pair.images, views, names, level, **pair.asked)
    readings = []
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
            found = analysis.compare_lenses(model, lenses, pair.images, corruption, **pair.asked)
            readings += [
                ({"model": name, "corruption": corruption.key, "lens": lens}, read) for lens, read in found.items()
            ]
    read, depth = lens_tables(readings, pair.bootstrap)
    return {"gain_cka": cka, "gain_lens": read, "gain_depth": depth}


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
        pair.images,
        pair.corruption,
        matches={"tuned": match},
        seed=pair.seed,
        progress="Latents under corruption",
    )
    together = saes.feature_change(
        pair.models, pair.shared, pair.images, pair.corruption, seed=pair.seed, progress="Shared latents"
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
            pair.images,
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
