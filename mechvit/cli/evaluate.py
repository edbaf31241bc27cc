"""Measure accuracy, top-5, top-10 and calibration error of models on clean and corrupted images.

    mechvit evaluate --model runs/photos/models/base \\
        runs/photos/models/gaussian_blur_4
    mechvit evaluate --model google/vit-base-patch16-224 \\
        --images folder:DIR --limit 1000 --corruptions clean gaussian_noise_4
    mechvit evaluate --model BASE TUNED --images folder:DIR --groups about.csv --out evaluation
    mechvit evaluate --model BASE TUNED --pictures a.jpg b.png

With --out, the per-image table is written to OUT/performance.parquet, and its summary, with bootstrap intervals and
gains over the first model, to OUT/performance_summary.parquet (by --groups to OUT/performance_by_group.parquet). Images
without labels are classified: OUT/predictions.parquet.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mechvit.cli.options import (
    BatchOptions,
    DeviceOptions,
    GroupOptions,
    ImageOptions,
    OutputOptions,
    PictureOptions,
    images_for,
    own_first,
)
from mechvit.data.corruption_spec import CLEAN, PAPER_CORRUPTIONS, Condition
from mechvit.data.sources.folders.clusters import UNITS
from mechvit.data.sources.load import ALL
from mechvit.experiment.inputs import (
    check_corruptions,
    corruptions_named,
    load_classifier,
    names_of,
    result_folder,
)
from mechvit.files import write_tables
from mechvit.settings_checks import check_common, check_some
from mechvit.terminal import say

if TYPE_CHECKING:
    import datasets
    import pandas as pd

    from mechvit.models import HookedViT

MOST_ROWS = 40
"""Rows of a table that are printed; all are in its file."""


@own_first
@dataclass(frozen=True, kw_only=True)
class Options(ImageOptions, PictureOptions, GroupOptions, DeviceOptions, BatchOptions, OutputOptions):
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
        if self.pictures is not None:
            check_some(self, "pictures")


def main(options: Options) -> None:
    """Evaluate the models one after the other, print one row per model and corruption, and write the tables."""
    names = names_of(options.model)
    corruptions = corruptions_named(options.corruptions, names)
    with nullcontext() if options.out is None else result_folder(options, "evaluation", *options.model) as folder:
        tables = measure(options, corruptions, names, folder)
    if options.out is not None:
        say(f"\n{options.out}: {', '.join(f'{name}.parquet' for name in tables)}")


def measure(
    options: Options, corruptions: Sequence[Condition], names: dict[str, str], folder: Path | None
) -> list[str]:
    """Evaluate and print; write the tables into `folder` unless it is None, and return their names."""
    import pandas as pd

    from mechvit.analysis import evaluate, predict
    from mechvit.analysis.summaries.groups import with_image_groups, with_image_units

    frames: list[pd.DataFrame] = []
    for name, checkpoint in names.items():
        model = load_classifier(checkpoint, options.device, options.model_dtype)
        check_corruptions(corruptions, model.cfg.image_size)
        images = evaluated_images(options, model, quiet=bool(frames))
        labelled = max(images["label"][:]) >= 0
        for corruption in corruptions:
            found = (evaluate if labelled else predict)(
                model,
                images,
                corruption,
                batch_size=options.batch_size,
                seed=options.seed,
                progress=f"{name} on {corruption.title}",
            )
            frame = found.to_frame(model=name, corruption=corruption.key)
            if not labelled:
                named = [model.cfg.id2label[index] for index in frame["prediction"]]
                frame = frame.assign(predicted_class=named, path=images["path"][:] if "path" in images.features else "")
            frame = frame if options.groups is None else with_image_groups(frame, images)
            frames.append(with_image_units(frame, images))
    table = pd.concat(frames, ignore_index=True)
    tables = summaries(table, options) if labelled else {"predictions": table}
    show = show_performance if labelled else show_predictions
    show(tables, [(name, corruption.key) for name in names for corruption in corruptions])
    if folder is not None:
        write_tables(folder, tables)
    return list(tables)


def evaluated_images(options: Options, model: HookedViT, *, quiet: bool) -> datasets.Dataset:
    """Load the images in the model's form: those with a label, or all if none has one."""
    from mechvit.data.sources.label_columns import NoLabels

    load = partial(images_for, options, ALL, [model], limit=options.limit, quiet=quiet)
    try:
        return load(unlabelled="keep" if options.pictures else None)
    except NoLabels:
        return load(unlabelled="keep")


def summaries(performance: pd.DataFrame, options: Options) -> dict[str, pd.DataFrame]:
    """Return the per-image table and its summaries, over all images and by group."""
    from mechvit.analysis import performance_by_group, performance_summary

    base = performance["model"].iloc[0]
    tables = {"performance": performance, "performance_summary": performance_summary(performance, base=base)}
    if options.groups is not None:
        known = list(performance.columns).index("rank_present")
        by = [name for name in list(performance.columns)[known + 1 :] if name not in UNITS]
        tables["performance_by_group"] = performance_by_group(performance, by, base=base)
    return tables


def show_performance(tables: dict[str, pd.DataFrame], rows: Sequence[tuple[str, str]]) -> None:
    """Print one row per model and corruption, and per group."""
    summary, performance = tables["performance_summary"], tables["performance"]
    wide = summary.pivot(index=["model", "corruption"], columns="metric", values="value").rename_axis(columns=None)
    present, classes = performance["label"].nunique(), performance["classes"]
    metrics = ["accuracy", "top5", "top10", "ece"]
    if present < classes.max():
        metrics.insert(1, "accuracy_present_classes")
    shown = wide.loc[list(rows), metrics].reset_index()
    say("accuracy, top5 and top10 are fractions, ece has 15 bins")
    if present < classes.max():
        whole = " or ".join(f"{count:,}" for count in sorted(set(classes)))
        say(
            f"accuracy is over all {whole} classes of the model, accuracy_present_classes over the {present:,} that "
            "the images have"
        )
    if shown[["top5", "top10"]].isna().any(axis=None):
        say("n/a: top-k is not defined with k classes or fewer")
    say("")
    say(shown.to_string(index=False, float_format="%.4f", na_rep="n/a"))
    if "performance_by_group" not in tables:
        return
    groups = tables["performance_by_group"].query("metric == 'accuracy'")
    columns = ["group", "n", "model", "corruption", "value", "low", "high"]
    for by, part in groups.groupby("by", sort=False):
        say(f"\naccuracy by {by}, with 95% intervals over the n images of each group\n")
        say(part[columns].head(MOST_ROWS).to_string(index=False, float_format="%.4f"))
        if len(part) > MOST_ROWS:
            say(f"({len(part) - MOST_ROWS:,} more rows)")


def show_predictions(tables: dict[str, pd.DataFrame], rows: Sequence[tuple[str, str]]) -> None:
    """Print what the models predict, since there are no labels to compare it with."""
    table = tables["predictions"]
    say("no accuracy, since the images have no labels; confidence is the probability of the predicted class\n")
    shown = table[["path", "model", "corruption", "predicted_class", "confidence"]]
    order = shown.sort_values("path", kind="stable")
    say(order.head(MOST_ROWS).to_string(index=False, float_format="%.4f"))
    if len(table) > MOST_ROWS:
        say(f"({len(table) - MOST_ROWS:,} more rows)")
