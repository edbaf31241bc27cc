"""Compare the layers of a base and of tuned models by CKA, and the depth at which each settles on its prediction.

    mechvit compare-representations --corruptions gaussian_blur_4 \\
        --model runs/photos/models/base runs/photos/models/gaussian_blur_4 \\
        --out representations
    mechvit compare-representations --model DIR TUNED --images folder:DIR \\
        --corruptions gaussian_noise_4 --tokens cls --every-pair \\
        --limit 1000 --out representations

OUT contains cka.parquet (linear CKA of base and tuned on the same images, and of each model's clean and corrupted
images, layer by layer, with jackknife intervals), lens_readings.parquet (per image) and lens_comparison.parquet
(predictions of the logit lens and a tuned lens), prediction_depth.parquet (per image) and depth_change.parquet (tuned
minus base, with bootstrap intervals), lenses/NAME of each model, and figures/*.html, each readable offline. The tuned
lenses are trained on images other than those of all measurements.
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
from mechvit.experiment.inputs import check_corruptions, corrupted_named, load_model, names_of, result_folder
from mechvit.files import note, write_tables
from mechvit.settings_checks import COUNT_OR_ZERO, SettingError, check, check_common, check_some
from mechvit.terminal import say

if TYPE_CHECKING:
    import datasets
    import pandas as pd

    from mechvit import HookedViT
    from mechvit.analysis import TunedLens


@own_first
@dataclass(frozen=True, kw_only=True)
class Options(UnlabelledOptions, DeviceOptions, BatchOptions, OutputOptions):
    """Options of the comparison of representations."""

    model: tuple[str, ...]
    """Folders or Hub ids of models with their image processors, the base first; lenses need classifiers."""
    out: str
    """Folder for tables, lenses and figures."""
    corruptions: tuple[str, ...]
    """FAMILY_LEVEL, as in gaussian_blur_4 (deviation in pixels at the model's input size) or gaussian_noise_2
    (severity); or any other condition (docs/conditions.md). Clean images are always included."""
    images: str = "photos"
    """`photos` (embedded), `folder:DIR` (a sub-folder for each class; train, val and test folders are its parts) or a
    Hub data set (ID:CONFIG@SPLIT).
    Lenses are trained on the part `sae`, and everything is measured on the test part; without lenses (of images without
    labels, or --lens-epochs 0) on all images."""
    tokens: Literal["cls", "mean", "patch"] = "mean"
    """Vector that represents an image for CKA: its class token, the mean of its patches, or one random patch."""
    every_pair: bool = False
    """Compare every layer with every layer, for similarity_matrix.html."""
    biased: bool = False
    """Use the biased estimator of CKA, for comparison with published values; it is too high if images are few."""
    lens_epochs: int = 20
    """Largest number of epochs for training tuned lenses; each layer keeps its best held-out one. 0 trains none."""
    lens_limit: int | None = None
    """Largest number of images for training the lenses; None uses the whole part."""
    lens_validation_limit: int | None = None
    """Largest number of images for selecting the lenses' epoch; None uses the whole part."""
    limit: int | None = None
    """Largest number of test images; None uses the whole part."""

    def __post_init__(self) -> None:
        check_common(self)
        check_some(self, "model", "corruptions")
        check(self, COUNT_OR_ZERO, "lens_epochs")


def main(options: Options) -> None:
    """Compare all models, print the change of prediction depth, and write tables, lenses and figures as one folder."""
    names = names_of(options.model)
    corruptions = corrupted_named(options.corruptions, names)
    if len(names) < 2:
        raise SettingError("model", "must name a base and at least one other")
    from mechvit.analysis.representations.cka import check_views, clean_and_corrupted

    with result_folder(options, "representations", *options.model) as folder:
        models = dict(zip(names, models_of(options, names.values(), load_model), strict=True))
        check_corruptions(corruptions, next(iter(models.values())).cfg.image_size)
        images, plain = measured_images(options, models)
        compared = clean_and_corrupted(models, corruptions)
        groups = groups_of(images)
        check_views(models, images, compared, tokens=options.tokens, every_pair=options.every_pair, groups=groups)
        lenses = trained_lenses(models, corruptions, options) if options.lens_epochs and not plain else {}
        tables = make_tables(models, lenses, images, corruptions, options, with_lenses=not plain)
        write_tables(folder, tables)
        note(folder / "lenses", under=True)
        for name, lens in lenses.items():
            lens.save(folder / "lenses" / name)
        drawn = draw(tables, folder / "figures")
    if plain:
        say(f"no lenses, which need {plain}")
    else:
        shown = tables["depth_change"].query("subset == 'all'").drop(columns="subset")
        say(f"prediction depth in layers, its change from {next(iter(models))}'s\n")
        say(shown.to_string(index=False, float_format="%.3f"))
    say(f"\n{options.out}: {len(tables)} tables, {len(lenses)} lenses, {drawn} figures")


def groups_of(images: datasets.Dataset) -> int:
    """Return the number of groups of images for CKA's interval: the default, or fewer where images are few."""
    from mechvit.analysis.representations.cka import IMAGE_GROUPS

    return max(2, min(IMAGE_GROUPS, len(images) // 2))


def measured_images(options: Options, models: dict[str, HookedViT]) -> tuple[datasets.Dataset, str]:
    """Load the images that everything is measured on, and say why lenses cannot be among it; empty where they can.

    They are the test part where lenses are trained on others, else all.
    """
    lacking = [f"{name} ({model.cfg.no_softmax})" for name, model in models.items() if model.cfg.no_softmax]
    plain = f"softmax classifiers: {', '.join(lacking)}" if lacking else ""
    trains = bool(options.lens_epochs) and not plain
    taken: Any = {"limit": options.limit, "needs_labels": False}
    images = images_for(options, "test" if trains else ALL, models.values(), **taken)
    if plain or min(images["label"][:]) >= 0:
        return images, plain
    return (images_for(options, ALL, models.values(), **taken) if trains else images), "labels of all images"


def trained_lenses(
    models: dict[str, HookedViT], corruptions: tuple[Any, ...], options: Options
) -> dict[str, TunedLens]:
    """Train a tuned lens for each model, on images of the part `sae`."""
    from mechvit.analysis import LensTraining, train_tuned_lens

    config = LensTraining(epochs=options.lens_epochs, seed=options.seed)
    training, held_out = (
        images_for(options, part, models.values(), limit=limit)
        for part, limit in (("sae", options.lens_limit), ("sae_validation", options.lens_validation_limit))
    )
    return {
        name: train_tuned_lens(model, training, held_out, corruptions, config=config, progress=f"Lens, {name}")
        for name, model in models.items()
    }


def make_tables(
    models: dict[str, HookedViT],
    lenses: dict[str, TunedLens],
    images: datasets.Dataset,
    corruptions: tuple[Any, ...],
    options: Options,
    *,
    with_lenses: bool,
) -> dict[str, pd.DataFrame]:
    """Compute every table; the first model keeps its name, and changes are relative to it."""
    import pandas as pd

    from mechvit import analysis

    shared: Any = {"batch_size": options.batch_size, "seed": options.seed}
    similar = analysis.compare_views(
        models,
        images,
        analysis.clean_and_corrupted(models, corruptions),
        tokens=options.tokens,
        every_pair=options.every_pair,
        debiased=not options.biased,
        groups=groups_of(images),
        progress="CKA",
        **shared,
    )
    cka = [
        found.to_frame(model_a=a.model, corruption_a=a.corruption.key, model_b=b.model, corruption_b=b.corruption.key)
        for (a, b), found in similar.items()
    ]
    if not with_lenses:
        return {"cka": pd.concat(cka, ignore_index=True)}
    readings, depths = [], []
    for name, model in models.items():
        read_through = {"logit": None} | ({"tuned": lenses[name]} if name in lenses else {})
        for corruption in (CLEAN, *corruptions):
            found = analysis.compare_lenses(
                model, read_through, images, corruption, progress=f"{name}, {corruption.key}", **shared
            )
            for lens, reading in found.items():
                labels = {"model": name, "corruption": corruption.key, "lens": lens}
                readings.append(reading.to_frame(**labels))
                depths.append(analysis.PredictionDepth.of(reading).to_frame(**labels))
    tables = {
        "cka": pd.concat(cka, ignore_index=True),
        "lens_readings": pd.concat(readings, ignore_index=True),
        "prediction_depth": pd.concat(depths, ignore_index=True),
    }
    tables["lens_comparison"] = analysis.lens_comparison_summary(tables["lens_readings"])
    tables["depth_change"] = analysis.depth_summary(tables["prediction_depth"], base=next(iter(models)))
    return tables


def draw(tables: dict[str, pd.DataFrame], folder: Path) -> int:
    """Draw every table, with the first model as the base, and return the number of figures."""
    from mechvit.visualization import figures
    from mechvit.visualization.html_page.figure_page import write_figure_pages

    first = tables["cka"]["model_a"].iloc[0]
    called = {first: "base"} | ({} if first == "base" else {"base": "other base"})
    shown = {
        name: frame.replace({column: called for column in ("model", "model_a", "model_b") if column in frame})
        for name, frame in tables.items()
    }
    drawn = {
        "model_similarity": figures.model_similarity(shown["cka"]),
        "corruption_similarity": figures.corruption_similarity(shown["cka"]),
    }
    if "depth_change" in shown:
        drawn["lens_comparison"] = figures.lens_comparison(shown["lens_comparison"])
        drawn["depth_change"] = figures.depth_change(shown["depth_change"])
    if (shown["cka"]["layer_a"] != shown["cka"]["layer_b"]).any():
        drawn["similarity_matrix"] = figures.similarity_matrix(shown["cka"])
    return write_figure_pages(drawn, folder)
