"""Find the components that carry the difference between two models, by patching each in turn from one into the other.

    mechvit patch-models --receiver runs/photos/models/base \\
        --giver runs/photos/models/gaussian_blur_4 \\
        --corruption gaussian_blur_4 --out patching
    mechvit patch-models --receiver BASE --giver BASE \\
        --corruption gaussian_noise_4 --giver-corruption clean \\
        --images folder:DIR --limit 500 --tokens all cls patches --out harm

The receiver runs on corrupted images with one component's activation taken from the giver on the same images. With a
base model as receiver and its tuned model as giver, this locates the gain; swapped, it shows which components the gain
depends on; with one model twice and clean images for the giver, it shows through which components the corruption does
harm.

OUT contains summary.parquet (accuracy, logit difference and divergence of every component, and the share of the giver's
lead that it recovers, with bootstrap intervals), patching.parquet and references.parquet (per image); with
--attribution, first-order effects of components and MLP neurons (attribution.parquet, neurons.parquet) and their errors
(attribution_error.parquet, attribution_agreement.parquet); if heads are patched, statistics of their attention with
their effects (head_links.parquet, head_correlations.parquet); and figures/*.html, each readable offline. Where an image
has no label, effects are on KL(giver | receiver), in nats, in the place of the logit difference, for all images.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mechvit.cli.options import (
    BatchOptions,
    DeviceOptions,
    OutputOptions,
    UnlabelledOptions,
    images_for,
    models_of,
    own_first,
)
from mechvit.data.conditions import bound, parse_condition
from mechvit.data.corruption_spec import Condition
from mechvit.data.sources.load import ALL
from mechvit.experiment.inputs import check_corruptions, result_folder
from mechvit.files import write_tables
from mechvit.settings_checks import COUNT_OR_ZERO, SettingError, check, check_common, check_some
from mechvit.terminal import say

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from mechvit import HookedViT

ComponentKind = Literal["resid", "attn", "mlp", "head", "head_input", "logits"]


@own_first
@dataclass(frozen=True, kw_only=True)
class Options(UnlabelledOptions, DeviceOptions, BatchOptions, OutputOptions):
    """Options of the patching of activations."""

    receiver: str
    """Folder or Hub id of the classifier that runs, with its image processor."""
    giver: str
    """Model that the activations are taken from; of the same shape and classes, or the same model."""
    corruption: str
    """Condition of the receiver's images: FAMILY_LEVEL, as in gaussian_blur_4, clean, or any other; pgd_4@base attacks
    the receiver, pgd_4@tuned the giver."""
    out: str
    """Folder for tables and figures."""
    giver_corruption: str | None = None
    """Condition of the giver's images; the same when None."""
    kinds: tuple[ComponentKind, ...] = ("resid", "attn", "mlp", "head")
    """Kinds of components to patch: the residual stream that enters each block and the head; the output of attention
    and of the MLP of each block; each single head; the head's input; the logits (the giver itself)."""
    tokens: tuple[Literal["all", "cls", "patches"], ...] = ("all",)
    """Tokens at which to patch, each setting separately."""
    attribution: bool = True
    """Also approximate all effects, including MLP neurons', by the gradient, and compare."""
    neurons: tuple[int, int] = (16, 48)
    """MLP neurons to patch exactly: the number with the largest approximate effects, and the number drawn at random."""
    batch_size: int | None = None
    """Images per forward pass, including patched copies; None uses 32 on a CPU, else 128."""

    def __post_init__(self) -> None:
        check_common(self)
        check_some(self, "kinds", "tokens")
        check(self, COUNT_OR_ZERO, "neurons")


def main(options: Options) -> None:
    """Patch, print the components that recover most, and write tables and figures as one folder."""
    corruption = parse_condition(options.corruption)
    given = corruption if options.giver_corruption is None else parse_condition(options.giver_corruption)
    if options.receiver == options.giver and given == corruption:
        raise ValueError(
            "the receiver is the giver and sees the same images, so that patching changes nothing: give another "
            "--giver, or --giver-corruption clean"
        )
    if options.attribution and not sum(options.neurons):
        raise SettingError("neurons", f"must not both be 0; got {options.neurons}, or give --no-attribution")
    from mechvit.analysis.condition_images import check_same_image

    with result_folder(options, "patching", options.receiver, options.giver) as folder:
        receiver, giver = models_of(options, (options.receiver, options.giver))
        check_corruptions((corruption, given), receiver.cfg.image_size)
        pair = {"base": receiver, "tuned": giver}
        if options.receiver == options.giver:  # plain pgd_4 attacks that one model
            corruption, given = (bound(each, pair, plain_is_base=True) for each in (corruption, given))
        corruption, given = (check_same_image([each], "patching", pair)[0] for each in (corruption, given))
        tables, passes = make_tables(receiver, giver, corruption, given, options)
        write_tables(folder, tables)
        drawn = draw(tables, folder / "figures")
    summary, references = tables["summary"], tables["references"].groupby("condition")["correct"].mean()
    quantity = quantity_of(tables)
    shown = summary[summary["quantity"] == quantity].drop(columns=["quantity", "recovered_reason"])
    how = (
        f"accuracy of the receiver {references['receiver']:.3f}, of the giver {references['giver']:.3f}"
        if quantity == "logit_difference"
        else "recovered is 1 - KL(giver | patched) / KL(giver | receiver), which needs no labels"
    )
    say(
        f"{len(tables['references']) // 2} images, {len(shown)} components, {passes:.1f} forward passes an image; "
        f"{how}\n"
    )
    say(shown.nlargest(12, "recovered").to_string(index=False, float_format="%.3f"))
    say(f"\n{options.out}: {len(tables)} tables, {drawn} figures")


def make_tables(
    receiver: HookedViT, giver: HookedViT, corruption: Condition, given: Condition, options: Options
) -> tuple[dict[str, pd.DataFrame], float]:
    """Compute all tables, and the number of forward passes per image that patching took."""
    from mechvit import analysis
    from mechvit.analysis.interventions.components import COMPONENT_KINDS, components_of
    from mechvit.analysis.interventions.model_pair import check_activations_fit

    check_activations_fit(receiver, giver)
    components_of(receiver.cfg, options.kinds, options.tokens)
    images = images_for(options, ALL, [receiver], limit=options.limit, needs_labels=False)
    quantity: Any = "logit_difference" if min(images["label"][:]) >= 0 else "divergence"
    shared: dict[str, Any] = {"batch_size": options.batch_size, "seed": options.seed}
    patching = analysis.patch_models(
        receiver,
        giver,
        images,
        corruption,
        giver_corruption=given,
        kinds=options.kinds,
        tokens=options.tokens,
        progress="Patching",
        **shared,
    )
    tables = {
        "summary": patching.summary(),
        "patching": patching.to_frame(),
        "references": patching.references(),
    }
    if options.attribution:
        attribution = analysis.attribution_patching(
            receiver,
            giver,
            images,
            corruption,
            giver_corruption=given,
            kinds=tuple(kind for kind in options.kinds if kind in COMPONENT_KINDS) or COMPONENT_KINDS,
            tokens=options.tokens,
            quantity=quantity,
            progress="Gradients",
            **shared,
        )
        tables |= {"attribution": attribution.to_frame(), "neurons": attribution.neurons()}
        if set(attribution.components) & set(patching.components):
            error = analysis.attribution_error(attribution, patching)
            tables |= {"attribution_error": error.components, "attribution_agreement": error.overall}
        top, random = options.neurons
        chosen = analysis.choose_neurons(attribution, top=top, random=random, seed=options.seed)
        shared["quantity"] = quantity
        exact = analysis.patch_neurons(
            receiver, giver, images, corruption, chosen, giver_corruption=given, progress="Neurons", **shared
        )
        tables |= {"neuron_error": exact.to_frame(), "neuron_agreement": exact.agreement()}
    if "head" in options.kinds and "all" in options.tokens:
        shared["quantity"] = quantity
        links = analysis.head_links(receiver, giver, images, corruption, patching, progress="Attention", **shared)
        tables |= {"head_links": links.to_frame(), "head_correlations": links.correlations()}
    return tables, patching.passes


def quantity_of(tables: dict[str, pd.DataFrame]) -> str:
    """Return the quantity whose changes are effects: the divergence where an image has no label."""
    unlabelled = tables["references"]["logit_difference"].isna().any()
    return "divergence" if unlabelled else "logit_difference"


def draw(tables: dict[str, pd.DataFrame], folder: Path) -> int:
    """Draw every table and return the number of figures."""
    from mechvit.visualization import figures
    from mechvit.visualization.html_page.figure_page import write_figure_pages

    effect = quantity_of(tables)
    drawn: dict[str, go.Figure] = {
        f"patching_{quantity}": figures.patching_map(tables["summary"], quantity=quantity)
        for quantity in (("logit_difference", "accuracy") if effect == "logit_difference" else ("divergence",))
    }
    if "attribution_error" in tables:
        error = tables["attribution_error"], tables["attribution_agreement"]
        drawn["attribution"] = figures.attribution_scatter(*error, quantity=effect)
    if "head_links" in tables:
        drawn["head_links"] = figures.head_links(tables["head_links"], tables["head_correlations"], quantity=effect)
    return write_figure_pages(drawn, folder)
