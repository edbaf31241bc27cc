"""Locate a fine-tuning's gain in the weights: parts of the tuned model in the base, and interpolation between the two.

    mechvit swap-weights --base runs/photos/models/base \\
        --tuned runs/photos/models/gaussian_blur_4 \\
        --corruptions gaussian_blur_4 --out weights
    mechvit swap-weights --base BASE --tuned TUNED \\
        --images folder:DIR --limit 1000 --corruptions fog_3 frost_3 \\
        --cumulative branches --reverse --out weights

Every block, attention, MLP and LayerNorm of the tuned model is put into the base one at a time, then the first k and
the last k parts together; base + alpha (tuned - base) is evaluated from alpha -0.25 to 1.5; and under the first of
--corruptions, the smallest set of parts that carries --share of the gain is searched on half of the images and reported
on the others. Prints that set. OUT contains swaps.parquet (accuracy, logit difference and divergence with intervals,
and the recovered share of the gap to the tuned model: 0 the base, 1 the tuned model), with --reverse
swaps_reverse.parquet (the base model's parts in the tuned one), interpolation.parquet, smallest_set.parquet,
weight_change.parquet (one row per tensor: relative change, ranks, overlaps), weight_change_parts.parquet,
weight_change_spectra.parquet, and figures/*.html, each readable offline.
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
from mechvit.data.corruption_spec import CLEAN
from mechvit.data.sources.load import ALL
from mechvit.experiment.inputs import check_corruptions, check_halves, corrupted_named, names_of, result_folder
from mechvit.files import write_tables
from mechvit.settings_checks import SHARE_ABOVE_ZERO, SettingError, check, check_common, check_some
from mechvit.terminal import say

if TYPE_CHECKING:
    import pandas as pd

    from mechvit import HookedViT

Quantity = Literal["logit_difference", "accuracy", "divergence"]


@own_first
@dataclass(frozen=True, kw_only=True)
class Options(UnlabelledOptions, DeviceOptions, BatchOptions, OutputOptions):
    """Options of the swapping of weights."""

    base: str
    """Folder or Hub id of the model before fine-tuning: an image classifier with its image processor."""
    tuned: str
    """Folder or Hub id of a model that was fine-tuned from it."""
    corruptions: tuple[str, ...]
    """FAMILY_LEVEL, as in gaussian_blur_4 or fog_3, first the one that was tuned on; clean is always included."""
    out: str
    """Folder for tables and figures."""
    cumulative: Literal["blocks", "branches", "parts"] = "blocks"
    """Unit that is added at a time from either end: whole blocks; attention and MLP, each with its LayerNorm; or every
    single part. `branches` and `parts` take more passes."""
    reverse: bool = False
    """Also put the base model's parts into the tuned one, to see which of them the gain depends on."""
    share: float = 0.9
    """Share of the gain that the smallest set must carry."""
    unit: Literal["blocks", "branches", "parts"] = "branches"
    """Unit of which the smallest set consists."""
    quantity: Quantity | None = None
    """Quantity by which the smallest set's share is measured, and which the figures of swaps show: None takes the logit
    difference, or where an image has no label the divergence, KL(giver | mixed), which needs none."""

    def __post_init__(self) -> None:
        check_common(self)
        check_some(self, "corruptions")
        check(self, SHARE_ABOVE_ZERO, "share")


def main(options: Options) -> None:
    """Swap, interpolate and search; print the smallest set, and write tables and figures as one folder."""
    corruptions = corrupted_named(options.corruptions)
    from mechvit.analysis.condition_images import check_same_image
    from mechvit.analysis.interventions.model_pair import check_weights_fit

    with result_folder(options, "swapped weights", options.base, options.tuned) as folder:
        base, tuned = models_of(options, (options.base, options.tuned))
        check_weights_fit(base, tuned)
        images = images_for(options, ALL, [base], limit=options.limit, needs_labels=False)
        quantity = quantity_for(images, options.quantity)
        check_corruptions(corruptions, base.cfg.image_size)
        corruptions = check_same_image(corruptions, "swapping weights", {"base": base, "tuned": tuned})
        check_halves(images)
        tables = make_tables(base, tuned, images, corruptions, quantity, options)
        write_tables(folder, tables)
        drawn = draw(tables, quantity, folder / "figures")
    if quantity == "divergence":
        say("shares are 1 - KL(tuned | mixed) / KL(tuned | base), which needs no labels")
    if "smallest_set" in tables:
        say(f"the smallest set of {options.unit} with {options.share:.0%} of the gain under {corruptions[0].key}\n")
        shown = ["step", "added", "images", "value", "recovered", "recovered_low", "recovered_high"]
        say(tables["smallest_set"][shown].to_string(index=False, float_format="%.4f"))
    say(f"\n{options.out}: {len(tables)} tables, {drawn} figures")


def quantity_for(images: Any, asked: Quantity | None) -> Quantity:
    """Return the quantity to measure: the one that is asked for, else the divergence where an image has no label."""
    labelled = min(images["label"][:]) >= 0
    if asked not in (None, "divergence") and not labelled and max(images["label"][:]) < 0:
        raise SettingError("quantity", "must be divergence, which needs no labels, for images without labels")
    return asked or ("logit_difference" if labelled else "divergence")


def make_tables(
    base: HookedViT,
    tuned: HookedViT,
    images: Any,
    corruptions: tuple[Any, ...],
    quantity: Quantity,
    options: Options,
) -> dict[str, pd.DataFrame]:
    """Compute every table."""
    from mechvit import analysis

    shared: Any = {"batch_size": options.batch_size, "seed": options.seed}
    conditions = (CLEAN, *corruptions)
    (name,) = names_of([options.tuned])
    change = analysis.weight_change(base, tuned)
    swapped: Any = {"cumulative": options.cumulative, **shared}
    swaps = analysis.swap_weights(base, tuned, images, conditions, progress="Swaps", **swapped)
    tables = {"swaps": swaps.summary()}
    try:
        config = analysis.SmallestSetConfig(share=options.share, quantity=quantity, unit=options.unit)
        found = analysis.smallest_set(
            base, tuned, images, corruptions[0], config=config, progress="Smallest set", **shared
        )
        tables["smallest_set"] = found.to_frame()
    except analysis.NoGap as reason:
        say(f"no smallest set: {reason}")
    if options.reverse:
        reverse = analysis.swap_weights(tuned, base, images, conditions, progress="Reverse swaps", **swapped)
        tables["swaps_reverse"] = reverse.summary()
    line = analysis.interpolate_weights(base, tuned, images, conditions, progress="Interpolation", **shared)
    return tables | {
        "interpolation": line.summary(),
        "weight_change": change.to_frame(model=name),
        "weight_change_parts": change.part_frame(model=name),
        "weight_change_spectra": change.spectrum_frame(model=name),
    }


def draw(tables: dict[str, pd.DataFrame], quantity: str, folder: Path) -> int:
    """Draw what the tables allow and return the number of figures."""
    from mechvit.visualization import figures
    from mechvit.visualization.html_page.figure_page import write_figure_pages

    along = ("accuracy", "logit_difference", "loss", *(["divergence"] if quantity == "divergence" else []))
    drawn = {
        "interpolation_curves": figures.interpolation_curves(tables["interpolation"], along),
        "weight_changes": figures.weight_changes(tables["weight_change_parts"]),
    }
    for name in ("swaps", "swaps_reverse"):
        if name not in tables:
            continue
        drawn[f"{name}_recovery"] = figures.swap_recovery(tables[name], quantity=quantity)
        if tables[name][tables[name]["quantity"] == quantity]["recovered"].notna().any():
            drawn[f"{name}_curves"] = figures.swap_curves(tables[name], quantity=quantity)
        else:
            say(f"no figure {name}_curves: no gap in {quantity} between the models under any corruption")
    return write_figure_pages(drawn, folder)
