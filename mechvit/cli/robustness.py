"""Measure models' mean corruption error on ImageNet-C's corruptions of any images, and Fourier sensitivity.

    mechvit robustness --model runs/photos/models/base \\
        runs/photos/models/gaussian_blur_4 --out robustness
    mechvit robustness --model google/vit-base-patch16-224 \\
        --images folder:DIR --limit 1000 --reference alexnet \\
        --fourier 15 --out robustness
    mechvit robustness --model BASE TUNED --images folder:DIR \\
        --families paired:IMAGENET_C/fog my_file.py:haze pgd@self --levels 1 3 5 --out robustness

OUT contains performance.parquet (per image), robustness.parquet (error, corruption error and relative error by
corruption, severity, group, band of measured frequencies and over all, with bootstrap intervals), spectra.parquet
(power spectrum of the change that each corruption makes), with --fourier fourier.parquet, and figures/*.html, each
readable offline. Corruptions are computed as in ImageNet-C (frost with a generated texture); its own files are read
where --families names them. Spectra of an attack on each model itself are those of the attack on the first.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mechvit.cli.options import (
    BatchOptions,
    DeviceOptions,
    ImageOptions,
    OutputOptions,
    images_for,
    models_of,
    own_first,
)
from mechvit.data.conditions import ATTACKS, PAIRED, Attack, PairedImages, bound, parse_condition
from mechvit.data.corruption_spec import CORRUPTION_FAMILIES, IMAGENET_C, SEVERITIES, Condition
from mechvit.data.functions import load_function
from mechvit.data.sources.load import ALL
from mechvit.experiment.inputs import check_corruptions, names_of, result_folder
from mechvit.files import write_tables
from mechvit.settings_checks import Range, SettingError, check, check_common, check_some
from mechvit.terminal import say

if TYPE_CHECKING:
    import datasets
    import pandas as pd

    from mechvit import HookedViT

SPECTRUM_IMAGES = 64
"""Number of images over which corruptions' spectra are averaged."""


@own_first
@dataclass(frozen=True, kw_only=True)
class Options(ImageOptions, DeviceOptions, BatchOptions, OutputOptions):
    """Options of the measurement of robustness."""

    model: tuple[str, ...]
    """Folders or Hub ids of image classifiers with their image processors; all with the same classes."""
    out: str
    """Folder for tables and figures."""
    families: tuple[str, ...] = IMAGENET_C
    """Corruptions over which the mean is taken, any others too; functions, as my_file.py:haze; attacks, as pgd@self (on
    each model) or pgd@base; partners, as paired:IMAGENET_C/fog with a folder for each level, or paired:NIGHT."""
    levels: tuple[int, ...] = SEVERITIES
    """Severities of each corruption, levels of each function, radii of each attack in 255ths."""
    reference: Literal["first", "alexnet"] = "first"
    """Model whose errors count as 1: the first, or AlexNet on ImageNet-C (for ImageNet's images and classes only)."""
    fourier: int = 0
    """Frequencies along each side of the Fourier map: (n^2 + 1) / 2 + 1 passes over the images; 0 makes none."""

    def __post_init__(self) -> None:
        check_common(self)
        check_some(self, "model", "families", "levels")
        check(self, Range(0, 1025), "fourier")


def main(options: Options) -> None:
    """Test all models, print their mean corruption errors, and write tables and figures as one folder."""
    names = names_of(options.model)
    if not options.families or not options.levels or "clean" in options.families:
        known = ", ".join(CORRUPTION_FAMILIES)
        raise ValueError(f"--families and --levels must each name at least one, not clean; families are {known}")
    corruptions = [each for family in options.families for each in conditions_of(family, options.levels)]
    for corruption in corruptions:
        bound(corruption, names)  # refuses an attack that does not say which model it attacks
    paired = (f"{PAIRED}{each.root}" for each in corruptions if isinstance(each, PairedImages))
    with result_folder(options, "robustness", *options.model, *paired) as folder:
        models = load_models(names, options)
        first = next(iter(models.values()))
        if options.reference == "alexnet" and len(first.cfg.id2label) != 1000:
            classes = len(first.cfg.id2label)
            raise SettingError("reference", f"alexnet is for ImageNet's 1000 classes; {options.model[0]} has {classes}")
        if options.reference == "alexnet" and (others := {c.series for c in corruptions} - set(alexnet(corruptions))):
            raise SettingError(
                "reference", f"alexnet knows ImageNet-C's 15 corruptions, not {', '.join(sorted(others))}"
            )
        check_corruptions(corruptions, first.cfg.image_size)
        images = images_for(options, ALL, models.values(), limit=options.limit)
        tables, spectra = make_tables(models, images, corruptions, options)
        write_tables(folder, tables)
        drawn = draw(tables, spectra, folder / "figures")
    whole = tables["robustness"].query("family == 'all' or family == 'clean'")
    shown = whole.pivot(index=["model", "group"], columns="quantity", values="value").rename_axis(columns=None)
    say(f"{len(images)} images, {len(corruptions)} corruptions; errors relative to {options.reference}'s\n")
    say(shown.reset_index().to_string(index=False, float_format="%.4f"))
    say(f"\n{options.out}: {len(tables)} tables, {drawn} figures")


def conditions_of(family: str, levels: Collection[int]) -> list[Condition]:
    """Return the conditions of one of --families at every level; the one that there is where it has no levels.

    Raises:
        ValueError: as `parse_condition`.
    """
    if family.startswith(PAIRED):
        root = Path(family.removeprefix(PAIRED)).expanduser()
        numbered = root.is_dir() and any(place.is_dir() and place.name.isdecimal() for place in root.iterdir())
        return [parse_condition(f"{PAIRED}{root / str(n)}") for n in levels] if numbered else [parse_condition(family)]
    method, at, victim = family.partition("@")
    if method in ATTACKS:
        return [parse_condition(f"{method}_{level}{at}{victim}") for level in levels]
    if ":" in family:
        load_function(family)
    known = CORRUPTION_FAMILIES.get(family.rpartition(":")[2])
    whole = known is not None and known.highest == 0
    return [parse_condition(family)] if whole else [parse_condition(f"{family}_{level}") for level in levels]


def alexnet(conditions: Collection[Condition]) -> dict[str, float]:
    """Return AlexNet's errors by family, those on ImageNet-C's own files by the names of their folders."""
    from mechvit.analysis import ALEXNET_ERROR

    files = {c.series: Path(c.root).parent.name for c in conditions if isinstance(c, PairedImages) and c.level}
    return ALEXNET_ERROR | {series: ALEXNET_ERROR[name] for series, name in files.items() if name in IMAGENET_C}


def load_models(names: dict[str, str], options: Options) -> dict[str, HookedViT]:
    """Load all models, so that each batch is corrupted once, and check that they have the same classes."""
    models = dict(zip(names, models_of(options, names.values()), strict=True))
    classes = next(iter(models.values())).cfg.id2label
    for name, model in models.items():
        if model.cfg.id2label != classes:
            raise ValueError(f"{names[name]} must have the first model's classes, in its order; its id2label differs")
    return models


def make_tables(
    models: dict[str, HookedViT], images: datasets.Dataset, corruptions: list[Condition], options: Options
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """Compute the tables, and the spectra of the most severe corruptions for the figure."""
    import pandas as pd

    from mechvit import analysis

    shared: Any = {"batch_size": options.batch_size, "seed": options.seed}
    performance = analysis.corrupted_performance(models, images, corruptions, progress="Corruptions", **shared)
    reference = next(iter(models)) if options.reference == "first" else alexnet(corruptions)
    few = images.select(range(min(SPECTRUM_IMAGES, len(images))))
    own: Any = {"image_processor": next(iter(models.values())).image_processor, "seed": options.seed}
    spectra = [(c, analysis.corruption_spectrum(few, with_model(c, models), **own)) for c in corruptions]
    summary = analysis.spectrum_summary(spectra)
    bands = analysis.family_bands(summary)
    tables = {
        "performance": performance,
        "robustness": analysis.mean_corruption_error(performance, reference=reference, bands=bands),
        "spectra": summary,
    }
    if options.fourier:
        maps = []
        for name, model in models.items():
            found = analysis.fourier_sensitivity(
                model, images, resolution=options.fourier, progress=f"Waves, {name}", **shared
            )
            maps.append(found.to_frame(model=name))
        tables["fourier"] = pd.concat(maps, ignore_index=True)
    strongest = [(c, s) for c, s in spectra if c.level in (0, max(options.levels))]
    return tables, pd.concat([s.to_frame(corruption=c.key, group=c.group) for c, s in strongest], ignore_index=True)


def with_model(condition: Condition, models: dict[str, HookedViT]) -> Condition:
    """Return a condition in which an attack knows its model: one on each model itself the first."""
    known = bound(condition, models)
    unknown = isinstance(known, Attack) and known.model is None
    return known.against(next(iter(models.values()))) if unknown and isinstance(known, Attack) else known


def draw(tables: dict[str, pd.DataFrame], spectra: pd.DataFrame, folder: Path) -> int:
    """Draw every table and return the number of figures."""
    from mechvit.visualization import figures
    from mechvit.visualization.html_page.figure_page import write_figure_pages

    drawn = {
        "corruption_errors": figures.corruption_errors(tables["robustness"]),
        "corruption_spectra": figures.corruption_spectra(spectra),
    }
    if "fourier" in tables:
        drawn["fourier_map"] = figures.fourier_map(tables["fourier"])
    return write_figure_pages(drawn, folder)
