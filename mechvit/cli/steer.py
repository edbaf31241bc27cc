"""Steer a base model from corrupted towards clean: the recovered share of a tuned model's gain, and its cost.

    mechvit steer --base runs/photos/models/base \\
        --tuned runs/photos/models/gaussian_blur_4 \\
        --corruption gaussian_blur_4 --out steering
    mechvit steer --base BASE --tuned TUNED --corruption fog_3 \\
        --images folder:DIR --sae saes/base/batchtopk --latents 16 \\
        --layers 4 8 --scales 0.5 1 2 --out steering

The direction is the mean clean minus the mean corrupted residual stream over training images, after each block; with
--sae, also the part of it that the most different latents write. Test images are split: hook point and scale are chosen
on one half and reported on the other, with random directions of the same length chosen in the same way. Prints the
choice, made by accuracy or, where an image has no label, by the KL divergence from the tuned model. OUT contains
steering.parquet (every direction and scale on the held-out half: accuracy, logit difference and divergence, their
change, and the recovered share of the gap to the tuned model; also on clean images), chosen.parquet, directions.parquet
(hook point, tokens, length) and figures/*.html, each readable offline.
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
from mechvit.data.conditions import parse_condition
from mechvit.data.corruption_spec import CLEAN, Condition
from mechvit.experiment.inputs import check_corruptions, check_halves, result_folder
from mechvit.files import write_tables
from mechvit.settings_checks import COUNT, COUNT_OR_ZERO, POSITIVE, SHARE, SettingError, check, check_common, check_some
from mechvit.terminal import say

if TYPE_CHECKING:
    import pandas as pd

    from mechvit import HookedViT
    from mechvit.analysis import Direction, Steering

Quantity = Literal["accuracy", "divergence"]
"""Quantity by which a hook point and scale are chosen: the divergence from the tuned model where a label is missing."""


@own_first
@dataclass(frozen=True, kw_only=True)
class Options(UnlabelledOptions, DeviceOptions, BatchOptions, OutputOptions):
    """Options of the steering."""

    base: str
    """Folder or Hub id of the model to steer: an image classifier with its image processor."""
    tuned: str
    """Folder or Hub id of a model that was fine-tuned from it, whose gain is to be recovered."""
    corruption: str
    """FAMILY_LEVEL, as in gaussian_blur_4 or fog_3: the corruption that the direction leads away from."""
    out: str
    """Folder for tables and figures."""
    images: str = "photos"
    """`photos` (embedded), `folder:DIR` (a sub-folder for each class, or images without labels; train, val and test
    folders are its parts) or a Hub data set (ID:CONFIG@SPLIT); directions are computed from the part `finetune`, and
    the test part is steered."""
    layers: tuple[int, ...] = ()
    """Blocks after which the direction is added, one at a time; all by default."""
    tokens: Literal["all", "patches", "cls"] = "all"
    """Tokens at which the direction is computed and added."""
    per_position: bool = False
    """Use one direction per token instead of one for all."""
    scales: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)
    """Multiples of the direction to try."""
    controls: int = 3
    """Number of random directions of the same length per direction."""
    most_cost: float = 1.0
    """Largest loss of clean accuracy, as in 0.01, with which a hook point and scale may be chosen; needs labels."""
    sae: str | None = None
    """Folder of an SAE of the base model (with cfg.json) with whose latents to steer as well."""
    latents: int = 32
    """Number of its latents to use, those whose contributions differ most."""
    training_limit: int | None = 1000
    """Largest number of images from which directions are computed; None uses the whole part."""
    limit: int | None = None
    """Largest number of images to steer; None uses the whole part."""
    allow_other_model: bool = False
    """Accept an SAE that was trained on another checkpoint."""

    def __post_init__(self) -> None:
        check_common(self)
        check_some(self, "scales")
        check_some(self, "layers", or_none=True)
        check(self, POSITIVE, "scales")
        check(self, COUNT_OR_ZERO, "layers", "controls")
        check(self, COUNT, "latents")
        check(self, SHARE, "most_cost")


def main(options: Options) -> None:
    """Compute directions and steer with them; print the choice, and write tables and figures as one folder."""
    corruption = parse_condition(options.corruption)
    if corruption == CLEAN:
        raise SettingError("corruption", "must not be clean, which the direction leads to")
    with result_folder(options, "steering", options.base, options.tuned, options.sae) as folder:
        base, tuned = models_of(options, (options.base, options.tuned))
        directions, found, quantity = steer_all(base, tuned, corruption, options)
        tables = make_tables(directions, found, quantity, options.most_cost)
        write_tables(folder, tables)
        drawn = draw(tables, quantity, folder / "figures")
    shown = ["source", "control", "hook_name", "scale", "value", "change", "recovered", "clean_change"]
    what = "accuracy" if quantity == "accuracy" else "KL divergence from the tuned model"
    say(f"{what} under {corruption.key} on held-out images (control 0: the direction itself; others: random)\n")
    chosen = tables["chosen"].query(f"quantity == '{quantity}'")
    say(
        chosen[shown].to_string(index=False, float_format="%.4f")
        if len(chosen)
        else "no direction keeps enough accuracy on clean images"
    )
    say(f"\n{options.out}: {len(tables)} tables, {drawn} figures")


def steer_all(
    base: HookedViT, tuned: HookedViT, corruption: Condition, options: Options
) -> tuple[list[Direction], Steering, Quantity]:
    """Compute directions from the training images, apply them to the test images, and say by what they are chosen."""
    from mechvit import analysis
    from mechvit.analysis.condition_images import check_same_image
    from mechvit.analysis.interventions.model_pair import check_weights_fit

    check_weights_fit(base, tuned)
    hooks = [f"blocks.{layer}.hook_resid_post" for layer in options.layers or range(base.cfg.n_layers)]
    if options.layers and max(options.layers) >= base.cfg.n_layers:
        raise SettingError("layers", f"must be below the model's {base.cfg.n_layers} blocks; got {max(options.layers)}")
    check_corruptions([corruption], base.cfg.image_size)
    (corruption,) = check_same_image([corruption], "steering", {"base": base, "tuned": tuned})
    sae = load(options, base) if options.sae is not None else None
    if sae is not None and options.latents > sae.cfg.d_sae:
        raise SettingError("latents", f"must be at most the SAE's {sae.cfg.d_sae}; got {options.latents}")
    shared: Any = {"batch_size": options.batch_size, "seed": options.seed}
    training = images_for(options, "finetune", [base], limit=options.training_limit, needs_labels=False)
    test = images_for(options, "test", [base], limit=options.limit, needs_labels=False)
    check_halves(test)
    quantity: Quantity = "accuracy" if min(test["label"][:]) >= 0 else "divergence"
    if quantity == "divergence" and options.most_cost < 1:
        raise SettingError("most_cost", "needs a label of every image, and some have none: leave it out")
    directions = analysis.steering_directions(
        base,
        training,
        corruption,
        hook_names=hooks,
        tokens=options.tokens,
        per_position=options.per_position,
        progress="Directions",
        **shared,
    )
    if sae is not None:
        from mechvit.saes import sae_steering_direction

        directions.append(
            sae_steering_direction(
                base,
                sae,
                training,
                corruption,
                n_latents=options.latents,
                seed=options.seed,
                allow_other_model=options.allow_other_model,
                progress="Latents",
            )
        )
    found = analysis.steer(
        base,
        tuned,
        test,
        [corruption],
        directions,
        scales=options.scales,
        controls=options.controls,
        progress="Steering",
        **shared,
    )
    return directions, found, quantity


def load(options: Options, model: HookedViT) -> Any:
    """Load the SAE and check that it fits the model."""
    from mechvit.analysis.interventions.steering_directions import check_point
    from mechvit.saes import load_sae
    from mechvit.saes.hook_site import check_checkpoint, sae_site

    assert options.sae is not None
    sae = load_sae(options.sae, device=str(model.cfg.device))
    check_point(model, sae_site(model, sae, f"the SAE {options.sae!r}").hook)
    if not options.allow_other_model:
        check_checkpoint(model, {options.sae: sae})
    return sae


def make_tables(
    directions: list[Direction], found: Steering, quantity: Quantity, most_cost: float
) -> dict[str, pd.DataFrame]:
    """Compute every table."""
    import pandas as pd

    rows = [(d.source, d.hook_name, d.tokens, len(d.vector), d.norm) for d in directions]
    return {
        "steering": found.summary(),
        "chosen": found.chosen(by=quantity, most_cost=most_cost),
        "directions": pd.DataFrame(rows, columns=["source", "hook_name", "tokens", "rows", "norm"]),
    }


def draw(tables: dict[str, pd.DataFrame], quantity: Quantity, folder: Path) -> int:
    """Draw what the tables allow and return the number of figures."""
    from mechvit.visualization import figures
    from mechvit.visualization.html_page.figure_page import write_figure_pages

    drawn = {"steering_by_scale": figures.steering_by_scale(tables["steering"], quantity=quantity)}
    if len(tables["chosen"].query(f"quantity == '{quantity}' and recovered == recovered")):
        drawn["steering_cost"] = figures.steering_cost(tables["chosen"], quantity=quantity)
    return write_figure_pages(drawn, folder)
