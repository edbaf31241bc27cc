"""Find the latents of an SAE that a corruption changes, in one or several models, and ablate them.

    mechvit ablate-features --model runs/photos/models/base \\
        --sae runs/photos/saes/base/batchtopk \\
        --corruptions gaussian_blur_4 --out ablation
    mechvit ablate-features --sae saes/both/batchtopk \\
        --model runs/photos/models/base runs/photos/models/gaussian_blur_4 \\
        --corruptions gaussian_blur_4 --target clean_mean --out ablation

With several models and an SAE trained on all of them (mechvit train-sae --also-model), feature_change lists the change
of each latent in each model. Latents are selected on one part of the images and ablated on another, together with as
many controls of matched firing rate. OUT contains feature_change.parquet (one row per corruption, model and latent),
ablated_sets.parquet (the latents), ablation.parquet (per image) and ablation_summary.parquet (with bootstrap
intervals), where selected_by is the corruption by which latents were selected, and figures/*.html, readable offline.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mechvit.cli.options import (
    BatchOptions,
    DeviceOptions,
    OutputOptions,
    PartOptions,
    images_for,
    models_of,
    own_first,
)
from mechvit.data.corruption_spec import Condition
from mechvit.experiment.inputs import check_corruptions, check_halves, corrupted_named, names_of, result_folder
from mechvit.files import write_tables
from mechvit.settings_checks import COUNT, Range, SettingError, check, check_choice, check_common, check_some
from mechvit.terminal import say

if TYPE_CHECKING:
    import pandas as pd


@own_first
@dataclass(frozen=True, kw_only=True)
class Options(PartOptions, DeviceOptions, BatchOptions, OutputOptions):
    """Options of the ablation of latents."""

    model: tuple[str, ...]
    """Folders or Hub ids of image classifiers with their image processors, the base first."""
    sae: str
    """Folder of one SAE (with cfg.json), as mechvit train-sae writes it, trained on these models."""
    corruptions: tuple[str, ...]
    """FAMILY_LEVEL, as in gaussian_blur_4; the latents that each corruption changes most are ablated, on clean images
    and under it."""
    out: str
    """Folder for tables and figures."""
    images: str = "photos"
    """`photos` (embedded), `folder:DIR` (a sub-folder for each class; train, val and test folders are its parts) or a
    Hub data set (ID:CONFIG@SPLIT). Latents are selected on the part `sae_validation` and ablated on the test part."""
    counts: tuple[int, ...] = (1, 4, 16, 64)
    """Numbers of latents to ablate together."""
    draws: int = 10
    """Number of draws of controls of matched firing rate."""
    caliper: float = 1.2
    """Largest ratio, in either direction, of the firing rates of a latent and its control."""
    target: Literal["zero", "clean_mean"] = "zero"
    """Value to which an ablated latent is set: zero, or its mean activation on clean images."""
    limit: int | None = None
    """Largest number of images of either part; None uses all."""
    allow_other_model: bool = False
    """Accept an SAE that was trained on other weights than a model's."""

    def __post_init__(self) -> None:
        check_common(self)
        check_some(self, "model", "corruptions", "counts")
        check(self, COUNT, "counts", "draws")
        check(self, Range(1, open_below=True, whole=False), "caliper")
        check_choice(self, target=("zero", "clean_mean"))


def main(options: Options) -> None:
    """Ablate for every corruption and model, print the changes, and write tables and figures."""
    names = names_of(options.model)
    corruptions = corrupted_named(options.corruptions, names)
    with result_folder(options, "ablation of latents", *options.model, options.sae) as folder:
        tables = make_tables(names, corruptions, options)
        write_tables(folder, tables)
        drawn = draw(tables, folder / "figures")
    chosen = tables["ablation_summary"].query("kind == 'sensitive' and quantity == 'accuracy'")
    shown = ["model", "selected_by", "corruption", "n", "value"]
    shown += [f"{number}{end}" for number in ("change", "beyond") for end in ("", "_low", "_high")]
    say("accuracy with the most sensitive latents ablated, its change, and the change beyond that of the controls\n")
    say(chosen[shown].to_string(index=False, float_format="%.4f"))
    say(f"\n{options.out}: {len(tables)} tables, {drawn} figures")


def make_tables(names: dict[str, str], corruptions: tuple[Condition, ...], options: Options) -> dict[str, pd.DataFrame]:
    """Compute every table; `selected_by` is the corruption by which latents were selected."""
    import pandas as pd

    from mechvit.analysis.statistics.tidy_tables import labelled
    from mechvit.saes import ablate_features, feature_change, load_sae, sensitive_features

    models = dict(zip(names, models_of(options, names.values()), strict=True))
    base = next(iter(models.values()))
    check_corruptions(corruptions, base.cfg.image_size)
    sae = load_sae(options.sae, device=str(base.cfg.device))
    if max(options.counts) > sae.cfg.d_sae // 2:
        raise SettingError(
            "counts", f"must be at most half of the SAE's {sae.cfg.d_sae} latents; got {max(options.counts)}"
        )
    choose, measure = (
        images_for(options, part, models.values(), limit=options.limit) for part in ("sae_validation", "test")
    )
    check_halves(choose)
    shared: Any = {"batch_size": options.batch_size, "seed": options.seed}
    shared |= {"allow_other_model": options.allow_other_model}
    parts: dict[str, list[pd.DataFrame]] = {}
    for corruption in corruptions:
        change = feature_change(models, sae, choose, corruption, progress=f"Latents, {corruption.key}", **shared)
        parts.setdefault("feature_change", []).append(change.to_frame(selected_by=corruption.key))
        for name, model in models.items():
            own = change.models[name]
            sets = sensitive_features(
                sae, own, max(options.counts), draws=options.draws, caliper=options.caliper, seed=options.seed
            )
            found = ablate_features(
                model,
                sae,
                measure,
                [corruption],
                sets,
                counts=options.counts,
                target=options.target,
                clean_mean=own.clean,
                progress=f"Ablations, {name}, {corruption.key}",
                **shared,
            )
            labels = {"model": name, "selected_by": corruption.key}
            parts.setdefault("ablated_sets", []).append(sets.to_frame(**labels))
            for table, frame in (("ablation", found.per_image), ("ablation_summary", found.summary())):
                parts.setdefault(table, []).append(labelled(frame, labels))
    return {name: pd.concat(frames, ignore_index=True) for name, frames in parts.items()}


def draw(tables: dict[str, pd.DataFrame], folder: Path) -> int:
    """Draw one figure per model and corruption and, for several models, one per corruption; return their number."""
    from mechvit.visualization import figures
    from mechvit.visualization.html_page.figure_page import write_figure_pages

    drawn = {
        f"feature_ablation_{model}_{key}".replace("/", "_"): figures.feature_ablations(part)
        for (model, key), part in tables["ablation_summary"].groupby(["model", "selected_by"], sort=False)
    }
    for key, part in tables["feature_change"].groupby("selected_by", sort=False):
        if part["model"].nunique() > 1:
            drawn[f"feature_change_{key}"] = figures.feature_changes(part)
    return write_figure_pages(drawn, folder)
