"""Which latents of an SAE a corruption moves, in which model, and what ablating them does to the answers.

    mechvit ablate-features --model runs/photos/models/base \\
        --sae runs/photos/saes/base/batchtopk \\
        --corruptions gaussian_blur_4 --out ablation
    mechvit ablate-features --sae saes/both/batchtopk \\
        --model runs/photos/models/base runs/photos/models/gaussian_blur_4 \\
        --corruptions gaussian_blur_4 --target clean_mean --out ablation

Give several models with an SAE that was trained on all of them (train_sae.py --also-model): then feature_change tells
which latents move in which. Latents are chosen on the images of one part and ablated on those of another, beside as
many others of the same frequency. OUT gets feature_change.parquet (one row a corruption, model and latent),
ablated_sets.parquet (which latents), ablation.parquet (per image) and ablation_summary.parquet (with bootstrap
intervals), in which selected_by is the corruption that latents were chosen by, and figures/*.html, readable offline.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mechvit.cli.options import BatchOptions, DeviceOptions, ImageOptions, OutputOptions, images_of, own_first
from mechvit.data.corruption_spec import CLEAN, Corruption
from mechvit.experiment.inputs import (
    check_corruptions,
    check_halves,
    corruptions_named,
    load_classifier,
    names_of,
    result_folder,
)
from mechvit.files import write_tables
from mechvit.settings_checks import COUNT, Range, SettingError, check, check_choice, check_common, check_some
from mechvit.terminal import say

if TYPE_CHECKING:
    import datasets
    import pandas as pd

    from mechvit import HookedViT


@own_first
@dataclass(frozen=True, kw_only=True)
class Options(ImageOptions, DeviceOptions, BatchOptions, OutputOptions):
    """What is ablated in what."""

    model: tuple[str, ...]
    """Folders or hub ids of image classifiers with their image processors, the base first."""
    sae: str
    """Folder of one SAE (with cfg.json), as train_sae.py writes it, trained on these models."""
    corruptions: tuple[str, ...]
    """FAMILY_LEVEL, as in gaussian_blur_4; for each the latents that it moves most are ablated, on clean images and on
    its own."""
    out: str
    """Folder for tables and figures."""
    images: str = "photos"
    """`photos` (embedded), `folder:PATH` (a sub-folder for each class) or a hub data set's id. Latents are chosen on
    the part `sae_validation` and ablated on the test part."""
    counts: tuple[int, ...] = (1, 4, 16, 64)
    """How many latents are ablated at a time."""
    draws: int = 10
    """Sets of other latents of the same frequency."""
    caliper: float = 1.2
    """A control fires at most so many times as often as what it stands for, and at least one over so many."""
    target: Literal["zero", "clean_mean"] = "zero"
    """What an ablated latent is set to: zero, or its mean activation on clean images."""
    limit: int | None = None
    """At most this many images of either part; None takes them whole."""
    allow_other_model: bool = False
    """Take an SAE that says it was trained on other weights than a model's, too."""

    def __post_init__(self) -> None:
        check_common(self)
        check_some(self, "model", "corruptions", "counts")
        check(self, COUNT, "counts", "draws")
        check(self, Range(1, open_below=True, whole=False), "caliper")
        check_choice(self, target=("zero", "clean_mean"))


def main(options: Options) -> None:
    """Choose and ablate for every corruption and model; print what ablation changes; write tables and figures."""
    corruptions = [c for c in corruptions_named(options.corruptions) if c != CLEAN]
    names = names_of(options.model)
    if not corruptions:
        raise SettingError("corruptions", "must name one besides clean")
    with result_folder(options, "ablation of latents", *options.model, options.sae) as folder:
        tables = make_tables(names, corruptions, options)
        write_tables(folder, tables)
        drawn = draw(tables, folder / "figures")
    chosen = tables["ablation_summary"].query("kind == 'sensitive' and quantity == 'accuracy'")
    shown = [
        "model",
        "selected_by",
        "corruption",
        "n",
        "value",
        "change",
        "change_low",
        "change_high",
        "beyond",
        "beyond_low",
        "beyond_high",
    ]
    say("accuracy with the most sensitive latents ablated; its change, and that beyond others as frequent\n")
    say(chosen[shown].to_string(index=False, float_format="%.4f"))
    say(f"\n{options.out}: {len(tables)} tables, {drawn} figures")


def make_tables(names: dict[str, str], corruptions: list[Corruption], options: Options) -> dict[str, pd.DataFrame]:
    """Every table that is written; `selected_by` is the corruption that latents were chosen by."""
    import pandas as pd

    from mechvit.analysis.statistics.tidy_tables import labelled
    from mechvit.saes import ablate_features, feature_change, load_sae, sensitive_features

    models = {
        name: load_classifier(checkpoint, options.device, options.model_dtype) for name, checkpoint in names.items()
    }
    base = next(iter(models.values()))
    check_corruptions(corruptions, base.cfg.image_size)
    sae = load_sae(options.sae, device=str(base.cfg.device))
    if max(options.counts) > sae.cfg.d_sae // 2:
        raise SettingError(
            "counts", f"must be at most half of the SAE's {sae.cfg.d_sae} latents; got {max(options.counts)}"
        )
    choose, measure = (part_of(options, models, part) for part in ("sae_validation", "test"))
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


def part_of(options: Options, models: dict[str, HookedViT], part: str) -> datasets.Dataset:
    """One part of the images, as each model takes them, with the base's classes."""
    base = next(iter(models.values()))
    return images_of(
        options, part, base.hf_config, [model.image_processor for model in models.values()], limit=options.limit
    )


def draw(tables: dict[str, pd.DataFrame], folder: Path) -> int:
    """A figure a model and corruption, and with several models one a corruption; returns how many."""
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
