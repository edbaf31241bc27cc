"""Measure how well sparse autoencoders reconstruct a model's activations, and describe their latents.

    mechvit evaluate-sae --model runs/photos/models/base \\
        --saes runs/photos/saes/base
    mechvit evaluate-sae --model DIR --saes saes/mine/batchtopk \\
        --images folder:DIR --limit 200 --corruptions gaussian_blur_4 \\
        --out sae_evaluation
    mechvit evaluate-sae --model DIR --saes saes/sweep saes/seed1 \\
        --stability --top-images 0 --out frontier

Prints explained variance, L0, dead latents, and the accuracy and cross-entropy recovered with the reconstruction in
place of the activation (0: zero ablation, 1: the untouched model). With --out, these tables are written (.parquet), in
which the column architecture is the SAE's name: sae_quality, sae_baselines (untouched, zero and mean ablation),
sae_settings, sae_density (a histogram of firing rates), sae_features (one row per latent, with its top images and
classes), sae_sensitivity (clean against corrupted, by latent), sae_cosine (the same, by patch) and, with --stability,
sae_matches; and the figures frontier.html and density.html.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechvit.cli.options import BatchOptions, DeviceOptions, OutputOptions, UnlabelledOptions, images_for, own_first
from mechvit.data.corruption_spec import CLEAN, PAPER_CORRUPTIONS
from mechvit.experiment.inputs import (
    check_corruptions,
    corruptions_named,
    load_model,
    names_of,
    result_folder,
    sae_folders,
)
from mechvit.files import write_tables
from mechvit.settings_checks import COUNT_OR_ZERO, SHARE, check, check_common, check_some
from mechvit.terminal import say

if TYPE_CHECKING:
    import datasets
    import pandas as pd

    from mechvit.models import HookedViT
    from mechvit.saes import SAEEvaluation

PRINTED_METRICS = (
    "explained_variance",
    "l0",
    "dead_fraction",
    "accuracy",
    "accuracy_recovered",
    "cross_entropy_recovered",
    "cross_entropy_recovered_from_mean",
)


@own_first
@dataclass(frozen=True, kw_only=True)
class Options(UnlabelledOptions, DeviceOptions, BatchOptions, OutputOptions):
    """Options of the evaluation of SAEs."""

    model: str
    """Folder or Hub id of the model on whose activations the SAEs were trained."""
    saes: tuple[str, ...]
    """Folders of SAEs (with cfg.json), or folders of such folders, as mechvit train-sae writes them, of any points."""
    images: str = "photos"
    """`photos` (embedded), `folder:DIR` (a sub-folder for each class; train, val and test folders are its parts) or a
    Hub data set (ID:CONFIG@SPLIT); the test part. Without labels the reconstruction alone is measured."""
    corruptions: tuple[str, ...] = tuple(c.key for c in PAPER_CORRUPTIONS)
    """FAMILY_LEVEL, as in gaussian_blur_4 (deviation in pixels at the model's input size) or gaussian_noise_2
    (severity); or any other condition (docs/conditions.md). Clean images are always included."""
    top_images: int = 16
    """Images kept for each latent, with the patch where it is strongest; 0 omits sae_features and sae_sensitivity."""
    dense_above: float = 0.1
    """Share of tokens above which a latent that fires on them counts as dense."""
    stability: bool = False
    """Match the latents of every two SAEs of one kind and hook point, such as those of two seeds, by the cosine of
    their decoder directions."""
    probe: bool = False
    """Measure accuracy through a linear probe on the part `train` in place of the model's head, which a bare encoder
    lacks; without a head and without a probe the reconstruction alone is measured."""
    allow_other_model: bool = False
    """Accept SAEs that were trained on other weights than the model's."""
    batch_size: int | None = None
    """Images per forward pass; None uses 32 on a CPU, else 128, and at most 256 MiB of one SAE's codes."""
    out: str | None = None
    """Folder for the tables and figures; None writes none."""

    def __post_init__(self) -> None:
        check_common(self)
        check_some(self, "saes", "corruptions")
        check(self, COUNT_OR_ZERO, "top_images")
        check(self, SHARE, "dense_above")


def main(options: Options) -> None:
    """Evaluate all SAEs, those of one hook point in one pass; print the quality and write the tables."""
    folders = sae_folders(options.saes)
    inputs = options.model, *options.saes
    with nullcontext() if options.out is None else result_folder(options, "evaluation of SAEs", *inputs) as folder:
        tables = measure(options, folders, folder)
    if options.out is not None:
        say(f"\n{options.out}: {', '.join(tables)}; frontier.html, density.html")


def measure(options: Options, folders: dict[str, str], folder: Path | None) -> dict[str, pd.DataFrame]:
    """Evaluate and print; write tables and figures into `folder` unless it is None."""
    tables = make_tables(folders, options)
    wide = (
        tables["sae_quality"]
        .pivot(index=["architecture", "corruption"], columns="metric", values="value")
        .rename_axis(columns=None)
        .reset_index()
    )
    say(
        wide[["architecture", "corruption", *(name for name in PRINTED_METRICS if name in wide)]].to_string(
            index=False, float_format="%.4g"
        )
    )
    if "sae_matches" in tables:
        live = tables["sae_matches"].query("firing_rate > 0")
        cosines = live.groupby(["sae_a", "sae_b"], sort=False)[["cosine", "nearest_cosine"]].mean().reset_index()
        say("\nmean cosine of matched latents, of those of sae_a that fire on clean images")
        say(cosines.to_string(index=False, float_format="%.4g"))
    if folder is not None:
        write_tables(folder, tables)
        draw(wide.merge(tables["sae_settings"], on="architecture"), tables["sae_density"], folder)
    return tables


def make_tables(folders: dict[str, str], options: Options) -> dict[str, pd.DataFrame]:
    """Compute every table for all SAEs."""
    import pandas as pd

    from mechvit.saes.evaluation.evaluate import evaluate_saes, load_sae
    from mechvit.saes.evaluation.sae_table import sae_settings
    from mechvit.saes.hook_site import sae_site

    corruptions = tuple(c for c in corruptions_named(options.corruptions) if c != CLEAN)
    model = load_model(options.model, options.device, options.model_dtype)
    check_corruptions(corruptions, model.cfg.image_size)
    (name,) = names_of([options.model])
    sites: dict[Any, dict[str, Any]] = {}
    for key, folder in folders.items():
        sae = load_sae(folder, device=str(model.cfg.device))
        sites.setdefault(sae_site(model, sae, f"the SAE {key!r}"), {})[key] = sae
    images = images_for(options, "test", [model], limit=options.limit, needs_labels=False)
    if options.probe:
        model = probed(model, images_for(options, "train", [model], limit=options.limit))
    parts: dict[str, list[pd.DataFrame]] = {}
    for site, saes in sites.items():
        found = evaluate_saes(
            model,
            saes,
            images,
            corruptions,
            top_images=options.top_images or None,
            dense_above=options.dense_above,
            batch_size=options.batch_size,
            seed=options.seed,
            allow_other_model=options.allow_other_model,
            progress=f"SAEs of {site}",
        )
        own = {
            "sae_quality": found.quality_frame(model=name),
            "sae_baselines": found.baseline_frame(model=name, hook_name=site.hook, hook_tokens=site.tokens),
            "sae_settings": sae_settings(saes, model=name),
            "sae_density": found.density_frame(model=name),
            "sae_cosine": found.cosine_frame(model=name),
        }
        for key, features in found.features.items():
            parts.setdefault("sae_features", []).append(features.to_frame(model=name, architecture=key))
            parts.setdefault("sae_sensitivity", []).append(features.sensitivity_frame(model=name, architecture=key))
        if options.stability:
            parts.setdefault("sae_matches", []).extend(matches(saes, found, own["sae_settings"]))
        for table, frame in own.items():
            parts.setdefault(table, []).append(frame)
    return {table: pd.concat(frames, ignore_index=True) for table, frames in parts.items() if frames}


def probed(model: HookedViT, images: datasets.Dataset) -> HookedViT:
    """Return the model with a probe in place of its head, fitted on other images than those that are measured."""
    from mechvit.analysis import fit_shared_probe, with_probe

    head = fit_shared_probe({"model": model}, images, progress="probe")
    say(str(head))
    return with_probe(model, head)


def matches(saes: dict[str, Any], found: SAEEvaluation, settings: pd.DataFrame) -> list[pd.DataFrame]:
    """Match the latents of every two SAEs of one kind, with the firing rates of the first one's on clean images."""
    from mechvit.saes.latents.matching import match_features

    kind = dict(zip(settings["architecture"], settings["kind"], strict=True))
    parts = []
    for a, b in combinations(saes, 2):
        if kind[a] == kind[b]:
            frame = match_features(saes[a], saes[b]).to_frame(sae_a=a, sae_b=b)
            parts.append(frame.assign(firing_rate=found.firing[a, CLEAN.key].rate.numpy()))
    return parts


def draw(points: pd.DataFrame, density: pd.DataFrame, folder: Path) -> None:
    """Draw the frontier and the density histograms, as pages that need no network."""
    from mechvit.visualization import figures
    from mechvit.visualization.html_page.figure_page import write_figure_pages

    drawn = {"frontier": figures.frontier(points), "density": figures.feature_density(density)}
    write_figure_pages(drawn, folder)
