"""The report's section on where the gain arises; its figures depend on the models that the run analysed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd

from mechvit.visualization.figures import feature_ablation, patching, representations, steering, transfers, weights
from mechvit.visualization.figures.table_checks import pick
from mechvit.visualization.style import family_of, in_order, title_of

from . import gain_captions as readings
from .sections import INTO_BASE, FigureSpec, Section, entitled

if TYPE_CHECKING:
    from .run_results import RunResults

LEAD = (
    "Which difference between the base and a tuned model causes the gain? Can it be isolated? Can the gain be obtained "
    "without tuning, and does it transfer to other filters? Each model tuned on a family’s strongest level is compared "
    "with the base on that corruption. A recovered share of 0 is the unchanged base, 1 the tuned model."
)
OPEN = "Section 5, future work"
LATENT_COLUMNS = [
    "tuned_on",
    "model",
    "feature",
    "difference",
    "low",
    "high",
    "q",
    "beyond",
    "beyond_low",
    "beyond_high",
    "beyond_q",
]


def gain_section(run: RunResults) -> Section | None:
    """Return the section for a run, or None if the run analysed no model's gain."""
    if not run.has("gain_patching"):
        return None
    models = in_order(run.table("gain_patching", ["tuned_on"])["tuned_on"])
    own = [replace(spec, fold=f"Tuned on {title_of(model)}") for model in models for spec in _of_one(run, model)]
    return Section(id="gain", title="Where the gain lives", lead=LEAD, figures=(*_of_all(), *own))


def _of_all() -> Iterator[FigureSpec]:
    """Yield the figures that show all models."""
    yield FigureSpec(
        id="gain-patching",
        table="gain_patching",
        summarise=_into_base,
        figure=patching.patching_map,
        reading=readings.patching,
        source=OPEN,
        definition="The base runs on corrupted images with one of its activations, at all tokens, replaced by the "
        "tuned model’s on the same images. Numbers are the share of the tuned model’s lead that this recovers, in "
        "logit difference: the label’s logit minus that of the wrong class which is likeliest to both models together. "
        "Bold where the bootstrap interval over images excludes zero.",
        claims=("open_isolate", "open_heads"),
    )
    yield FigureSpec(
        id="gain-related",
        table="related",
        figure=transfers.transfer_matrix,
        reading=readings.related,
        source=OPEN,
        definition="Accuracy minus the base’s on the same test images, in percentage points, on filters that models "
        "were tuned on and on others. Bold where the paired interval excludes zero. The first row is the base’s own "
        "accuracy.",
        claims=("open_transfer",),
    )
    yield FigureSpec(
        id="gain-steering",
        table="gain_steering_chosen",
        summarise=lambda table: table[(table["quantity"] == "accuracy") & table["recovered"].notna()],
        figure=steering.steering_cost,
        reading=readings.steering,
        source=OPEN,
        definition="A direction is added to the base’s residual stream after one block: the mean clean minus the mean "
        "corrupted residual, or the decoder directions of the SAE latents that change most. Block and scale are chosen "
        "on half of the images, among those that cost at most two points of clean accuracy; the figure shows the other "
        "half. Grey: random directions of the same length, chosen in the same way.",
        claims=("open_control",),
    )
    yield FigureSpec(
        id="gain-similarity",
        table="gain_cka",
        summarise=_named,
        figure=representations.model_similarity,
        reading=readings.similarity,
        source="Section 4.4",
        definition="Linear CKA (unbiased) of the mean patch residuals of base and tuned model on the same images; "
        "bands are jackknife intervals over groups of images.",
    )
    yield FigureSpec(
        id="gain-depth",
        table="gain_depth",
        summarise=_named,
        figure=representations.depth_change,
        reading=readings.depth,
        source="Section 4.2",
        definition="Prediction depth: the first layer from which the lens predicts the model’s final class at every "
        "layer. Tuned lens: an affine map for each layer, trained on other images. The figure shows tuned minus base, "
        "with paired intervals.",
        claims=("earlier",),
    )


def _of_one(run: RunResults, model: str) -> Iterator[FigureSpec]:
    """Yield the figures of one tuned model."""
    only, name, family = partial(_only, model=model), title_of(model), family_of(model)

    smallest = _only(run.table("gain_smallest_set"), model) if run.has("gain_smallest_set") else pd.DataFrame()
    yield FigureSpec(
        id=f"gain-swaps-{model}",
        table="gain_swaps",
        summarise=lambda table: _into_base(only(table[table["corruption"] == model])),
        figure=lambda table: entitled(weights.swap_recovery(table), name),
        reading=lambda table: [*readings.swaps(table), *filter(None, [readings.smallest(smallest)])],
        source=OPEN,
        definition="The base with the weights of one part replaced by the tuned model’s. Bars are bootstrap intervals "
        "over images.",
        claims=(f"open_isolate_{family}",),
    )
    yield FigureSpec(
        id=f"gain-interpolation-{model}",
        table="gain_interpolation",
        summarise=only,
        figure=lambda table: entitled(weights.interpolation_curves(table), name),
        reading=readings.interpolation,
        source=OPEN,
        definition="The model with weights base + alpha (tuned − base): alpha 0 is the base, 1 the tuned model, and "
        "above 1 lie points beyond it. Bands are bootstrap intervals over images.",
    )
    yield from _activations(run, model)
    yield FigureSpec(
        id=f"gain-latents-{model}",
        table="gain_latents",
        columns=LATENT_COLUMNS,
        summarise=lambda table: only(table).replace({"model": {"tuned": model}}),
        figure=lambda table: entitled(feature_ablation.feature_changes(table), name),
        reading=readings.latents,
        source="Section 4.4",
        definition="One dot per latent of the base’s SAE with a match in the tuned model’s SAE. Its mean activation on "
        "corrupted minus that on clean images, in the base (across) and in the tuned model (up); on the dotted line "
        "both change equally. Filled where the changes differ at a false discovery rate of 5%.",
        claims=(f"open_latents_{family}",),
    )
    if run.has("gain_latents_shared"):
        yield FigureSpec(
            id=f"gain-shared-{model}",
            table="gain_latents_shared",
            columns=LATENT_COLUMNS,
            summarise=lambda table: only(table).replace({"model": {"tuned": model}}),
            figure=lambda table: entitled(
                feature_ablation.feature_changes(table).update_layout(title_text="One SAE trained on both models"), name
            ),
            reading=readings.shared_latents,
            source="Section 4.4",
            definition="The same for one BatchTopK SAE trained on both models together, so that no latents have to be "
            "matched: one dot per latent.",
        )
    yield FigureSpec(
        id=f"gain-ablation-{model}",
        table="gain_ablation",
        summarise=lambda table: only(table).query("model == 'base'"),
        figure=lambda table: entitled(feature_ablation.feature_ablations(table), name),
        reading=readings.ablation,
        source="Section 4.4",
        definition="The base’s SAE latents whose mean activation the corruption changes most (chosen on other images) "
        "are set to zero; the SAE’s reconstruction error is kept. For comparison, as many others with firing rates "
        "within a factor of 1.2 of theirs. Changes are from the untouched base.",
        claims=(f"open_latents_{family}",),
    )


def _activations(run: RunResults, model: str) -> Iterator[FigureSpec]:
    """Yield the figures of the heads that matter, and of attribution patching against patching."""
    only, name, family = partial(_only, model=model), title_of(model), family_of(model)
    names = ("gain_head_correlations", "gain_attribution", "gain_neuron_agreement")
    correlations, overall, neurons = (only(run.table(table)) for table in names)
    yield FigureSpec(
        id=f"gain-heads-{model}",
        table="gain_heads",
        summarise=lambda table: only(table).query("model == 'change'"),
        figure=lambda table: entitled(patching.head_links(table, pick(correlations, model="change")), name),
        reading=lambda table: readings.heads(correlations),
        source=OPEN,
        definition="One dot per head. Up: the change of the logit difference when its z is patched from the tuned "
        "model into the base. Across: the tuned model’s statistic of its attention under the corruption minus the "
        "base’s. ρ is Spearman’s correlation over heads, with a bootstrap interval over images.",
        claims=(f"open_heads_{family}",),
    )
    yield FigureSpec(
        id=f"gain-attribution-{model}",
        table="gain_attribution_components",
        summarise=only,
        figure=lambda table: entitled(patching.attribution_scatter(table, overall), name),
        reading=lambda table: [*readings.attribution(table, overall), *readings.neurons(neurons)],
        source=OPEN,
        definition="Effect of each component on the logit difference, in logits: exact, by patching it (across), and "
        "approximate, from one gradient for all components (attribution patching, up).",
    )


def _only(table: pd.DataFrame, model: str) -> pd.DataFrame:
    """Return the rows of one tuned model."""
    return table[table["tuned_on"] == model].drop(columns="tuned_on").reset_index(drop=True)


def _into_base(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows for the tuned model's parts in the base, at all tokens, with models named by their corruption."""
    table = table[table["direction"] == INTO_BASE]
    table = table[table["tokens"] == "all"] if "tokens" in table else table
    return table.rename(columns={"tuned_on": "model"}).drop(columns="direction").reset_index(drop=True)


def _named(table: pd.DataFrame) -> pd.DataFrame:
    """Rename the models `tuned` to the corruption that they were tuned on; the base's rows are kept once."""
    named = table.copy()
    for column in ("model", "model_a", "model_b"):
        if column in named:
            named[column] = named[column].where(named[column] != "tuned", named["tuned_on"])
    return named.drop(columns="tuned_on").drop_duplicates(ignore_index=True)
