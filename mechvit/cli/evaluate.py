"""Measure accuracy, top-5, top-10 and calibration error of models on clean and corrupted images.

    mechvit evaluate --model runs/photos/models/base \\
        runs/photos/models/gaussian_blur_4
    mechvit evaluate --model google/vit-base-patch16-224 \\
        --images folder:DIR --limit 1000 --corruptions clean gaussian_noise_4
    mechvit evaluate --model BASE TUNED --out evaluation

With --out, the per-image table is written to OUT/performance.parquet, and its summary, with bootstrap intervals and
gains over the first model, to OUT/performance_summary.parquet.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from mechvit.cli.options import BatchOptions, DeviceOptions, ImageOptions, OutputOptions, images_for, own_first
from mechvit.data.corruption_spec import CLEAN, PAPER_CORRUPTIONS, Condition
from mechvit.experiment.inputs import check_corruptions, corruptions_named, load_classifier, names_of, result_folder
from mechvit.files import write_tables
from mechvit.settings_checks import check_common, check_some
from mechvit.terminal import say


@own_first
@dataclass(frozen=True, kw_only=True)
class Options(ImageOptions, DeviceOptions, BatchOptions, OutputOptions):
    """Options of the evaluation."""

    model: tuple[str, ...]
    """Folders or Hub ids of ViTForImageClassification models with their image processors."""
    corruptions: tuple[str, ...] = tuple(c.key for c in (CLEAN, *PAPER_CORRUPTIONS))
    """FAMILY_LEVEL, as in gaussian_blur_4 (deviation in pixels at the model's input size) or gaussian_noise_2
    (severity), or clean; or any other condition (docs/conditions.md)."""
    out: str | None = None
    """Folder for the tables; None writes none."""

    def __post_init__(self) -> None:
        check_common(self)
        check_some(self, "model", "corruptions")


def main(options: Options) -> None:
    """Evaluate the models one after the other, print one row per model and corruption, and write the tables."""
    names = names_of(options.model)
    corruptions = corruptions_named(options.corruptions, names)
    with nullcontext() if options.out is None else result_folder(options, "evaluation", *options.model) as folder:
        measure(options, corruptions, names, folder)
    if options.out is not None:
        say(f"\n{options.out}: performance.parquet, performance_summary.parquet")


def measure(options: Options, corruptions: Sequence[Condition], names: dict[str, str], folder: Path | None) -> None:
    """Evaluate and print; write the tables into `folder` unless it is None."""
    import pandas as pd

    from mechvit.analysis import evaluate, performance_summary

    frames = []
    for name, checkpoint in names.items():
        model = load_classifier(checkpoint, options.device, options.model_dtype)
        check_corruptions(corruptions, model.cfg.image_size)
        images = images_for(options, "test", [model], limit=options.limit)
        for corruption in corruptions:
            found = evaluate(
                model,
                images,
                corruption,
                batch_size=options.batch_size,
                seed=options.seed,
                progress=f"{name} on {corruption.title}",
            )
            frames.append(found.to_frame(model=name, corruption=corruption.key))
    performance = pd.concat(frames, ignore_index=True)
    summary = performance_summary(performance, base=next(iter(names)))
    wide = summary.pivot(index=["model", "corruption"], columns="metric", values="value").rename_axis(columns=None)
    rows = [(name, corruption.key) for name in names for corruption in corruptions]
    shown = wide.loc[rows, ["accuracy", "top5", "top10", "ece"]].reset_index()
    say(f"{len(images)} images; accuracy, top5 and top10 are fractions, ece has 15 bins")
    if shown.isna().any(axis=None):
        say("n/a: top-k is not defined with k classes or fewer")
    say("")
    say(shown.to_string(index=False, float_format="%.4f", na_rep="n/a"))
    if folder is not None:
        write_tables(folder, {"performance": performance, "performance_summary": summary})
