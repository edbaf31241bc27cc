"""Analyse what changed inside: performance, logit lens and attention of a base model and of models tuned from it.

    mechvit analyze --base runs/photos/models/base \\
        --tuned runs/photos/models/gaussian_blur_4 --out analysis
    mechvit analyze --base BASE --tuned tuned/gaussian_noise_4 \\
        --images folder:DIR --limit 1000 --attention-limit 200 \\
        --corruptions gaussian_noise_4 --out analysis

OUT contains tidy Parquet tables (per image, and summaries with bootstrap intervals) and figures/*.html, each readable
offline. Figures group models by the corruption that they were tuned on, which is read from the names of their folders,
such as gaussian_blur_4. With other names, only tables are written.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mechvit.cli.options import (
    BatchOptions,
    DeviceOptions,
    GroupOptions,
    ImageOptions,
    OutputOptions,
    images_of,
    own_first,
)
from mechvit.data.corruption_spec import PAPER_CORRUPTIONS, Condition
from mechvit.data.sources.load import ALL
from mechvit.experiment.inputs import (
    check_corruptions,
    corrupted_named,
    load_classifier,
    names_of,
    read_checkpoint,
    result_folder,
)
from mechvit.files import write_tables
from mechvit.settings_checks import check_common, check_some
from mechvit.terminal import say

if TYPE_CHECKING:
    import pandas as pd


@own_first
@dataclass(frozen=True, kw_only=True)
class Options(ImageOptions, GroupOptions, DeviceOptions, BatchOptions, OutputOptions):
    """Options of the analysis."""

    base: str
    """Folder or Hub id of the model before fine-tuning: a ViTForImageClassification with its image processor."""
    tuned: tuple[str, ...]
    """Folders of the models tuned from it, each named after its corruption, as in gaussian_blur_4."""
    out: str
    """Folder for tables and figures."""
    corruptions: tuple[str, ...] = tuple(c.key for c in PAPER_CORRUPTIONS)
    """FAMILY_LEVEL, as in gaussian_blur_4 (deviation in pixels at the model's input size) or gaussian_noise_2
    (severity); or any other condition (docs/conditions.md). Clean images are always included."""
    attention_limit: int | None = None
    """Largest number of images, from the first, on which attention is compared; None uses all."""
    batch_size: int | None = None
    """Images per forward pass; None uses 32 on a CPU, else 128, and at most 256 MiB of attention patterns."""

    def __post_init__(self) -> None:
        check_common(self)
        check_some(self, "tuned", "corruptions")


def main(options: Options) -> None:
    """Study the models one after the other, then write tables and figures as one folder."""
    tuned = names_of(options.tuned)
    corruptions = corrupted_named(options.corruptions, {"base": options.base, **tuned})
    if "base" in tuned:
        raise ValueError(f"a tuned model must not be called base, which names --base: rename {tuned['base']}")
    with result_folder(options, "analysis", options.base, *options.tuned) as folder:
        tables = make_tables({"base": options.base, **tuned}, corruptions, options)
        write_tables(folder, tables)
        drawn = draw(tables, list(tuned), corruptions, folder / "figures")
    say(f"{options.out}: {len(tables)} tables, {drawn} figures")


def make_tables(
    models: dict[str, str], corruptions: tuple[Condition, ...], options: Options
) -> dict[str, pd.DataFrame]:
    """Compute per-image tables of all models on the same images, resized by each model's processor, and summaries."""
    import pandas as pd

    from mechvit import analysis
    from mechvit.analysis.summaries.groups import with_image_groups, with_image_units
    from mechvit.experiment.sections.study import study_summaries

    parts = []
    processors = [read_checkpoint(checkpoint)[1] for checkpoint in models.values()]
    for name, checkpoint in models.items():
        model = load_classifier(checkpoint, options.device, options.model_dtype)
        if name == "base":
            classes = model.cfg.id2label
            check_corruptions(corruptions, model.cfg.image_size)
            images = images_of(options, ALL, model.hf_config, processors, limit=options.limit)
        if model.cfg.id2label != classes:
            raise ValueError(f"{checkpoint} must have the base model's classes, in its order; its id2label differs")
        parts.append(
            analysis.study(
                {name: model},
                images,
                corruptions,
                attention_limit=options.attention_limit,
                batch_size=options.batch_size,
                seed=options.seed,
                progress=f"Study of {name}",
            )
        )
    kinds = ("performance", "lens", "attention")
    tables = {kind: pd.concat([getattr(part, kind) for part in parts], ignore_index=True) for kind in kinds}
    tables |= study_summaries(tables)
    if options.groups is not None:
        grouped = with_image_groups(tables["performance"], images)
        by = [name for name in grouped if name not in tables["performance"]]
        tables["performance_by_group"] = analysis.performance_by_group(grouped, by)
    tables["performance"] = with_image_units(tables["performance"], images)
    if "base" not in set(tables["first_correct"]["model"]):
        tables.pop("first_correct_summary", None)
        say("no first_correct_summary: the base model gets no image right at any layer")
    return tables


def draw(tables: dict[str, pd.DataFrame], tuned: list[str], corruptions: tuple[Condition, ...], folder: Path) -> int:
    """Draw what the models' names and the tables allow, report what is left out, and return the number of figures."""
    tested = [c.key for c in corruptions]
    if others := [name for name in tuned if name not in tested]:
        say(
            f"no figures: {', '.join(others)} must be named after the corruption it was tuned on, one of "
            f"--corruptions ({', '.join(tested)})"
        )
        return 0
    from mechvit.visualization.html_page.figure_page import write_figure_pages
    from mechvit.visualization.report.sections import ATTENTION, LENS, PERFORMANCE

    drawn = {}
    for spec in (spec for section in (PERFORMANCE, LENS, ATTENTION) for spec in section.figures):
        name = spec.figure.__name__
        if spec.table not in tables or tables[spec.table].empty:
            say(f"no figure {name}: the table {spec.table} is empty")
            continue
        drawn[name] = spec.figure(tables[spec.table])
    return write_figure_pages(drawn, folder)
