"""Explore attention over the pictures: every head of one or more models, clean and corrupted, on one offline page.

    mechvit explore-attention --model runs/photos/models/base \\
        runs/photos/models/gaussian_blur_4 --out explorer.html --lens lens.html
    mechvit explore-attention --model BASE TUNED --pictures a.jpg b.jpg \\
        --corruptions gaussian_noise_4 --layers 9 10 11 --out explorer.html

--lens writes a second page: the class that the logit lens reads from each patch, layer by layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechvit.cli.options import (
    DeviceOptions,
    OutputOptions,
    PictureOptions,
    UnlabelledOptions,
    images_for,
    models_of,
    opened_pictures,
    own_first,
)
from mechvit.data.corruption_spec import Condition
from mechvit.data.sources.load import ALL
from mechvit.experiment.inputs import check_corruptions, corruptions_named, load_model, names_of, result_pages
from mechvit.settings_checks import COUNT, COUNT_OR_ZERO, check, check_common, check_some
from mechvit.terminal import say

if TYPE_CHECKING:
    from mechvit.models import HookedViT

DEFAULT_COUNT = 8
"""Number of images that are shown where no limit is given."""


@own_first
@dataclass(frozen=True, kw_only=True)
class Options(PictureOptions, UnlabelledOptions, DeviceOptions, OutputOptions):
    """Options of the attention explorer."""

    model: tuple[str, ...]
    """Folders or Hub ids of models of one shape, with or without heads, with their image processors; two are displayed
    initially."""
    out: Path
    """Path of the explorer's page, an .html file."""
    lens: Path | None = None
    """Path of the patch lens's page, an .html file; None writes none. It needs classifiers."""
    corruptions: tuple[str, ...] = ("gaussian_blur_4",)
    """Corruptions shown beside the clean picture: FAMILY_LEVEL, as in gaussian_blur_4 (deviation in pixels at the
    model's input size) or gaussian_noise_2 (ImageNet-C severity)."""
    layers: tuple[int, ...] | None = None
    """Blocks, 0 to n_layers - 1; None uses all."""
    heads: tuple[int, ...] | None = None
    """Heads, 0 to n_heads - 1; None uses all."""
    limit: int | None = None
    """Largest number of pictures; None takes eight of --images, or all of --pictures."""
    max_bytes: int = 20_000_000
    """Largest size of all patterns in the page: the pictures that fit are stored patch by patch, others in blocks."""
    seed: int = 0
    """Seed of the images' parts, the crops and the noise."""
    overwrite: bool = False
    """Replace earlier pages at OUT and LENS."""

    def __post_init__(self) -> None:
        check_common(self)
        check_some(self, "model", "corruptions")
        check(self, COUNT, "max_bytes")
        check_some(self, "layers", "heads", or_none=True)
        if self.pictures is not None:
            check_some(self, "pictures")
        check(self, COUNT_OR_ZERO, "layers", "heads", or_none=True)


def main(options: Options) -> None:
    """Load the models and the pictures, and write the pages."""
    corruptions, names = corruptions_named(options.corruptions), names_of(options.model)
    pages = [page for page in (options.out, options.lens) if page is not None]
    if len(set(pages)) < len(pages):
        raise ValueError(f"--out and --lens must be two pages; got {options.out} for both")
    with result_pages(options, pages, *options.model, *(options.pictures or ())):
        draw(options, corruptions, names)


def draw(options: Options, corruptions: Sequence[Condition], names: dict[str, str]) -> None:
    """Compute the pages and write them."""
    models = dict(zip(names, models_of(options, names.values(), load_model), strict=True))
    first = next(iter(models.values()))
    check_corruptions(corruptions, first.cfg.image_size)
    limit = options.limit or (len(options.pictures) if options.pictures else DEFAULT_COUNT)
    images = shown(options, first, limit)
    from mechvit.views import attention_explorer, patch_lens_view

    shared: dict[str, Any] = {"limit": limit, "seed": options.seed}
    chosen: dict[str, Any] = {name: getattr(options, name) for name in ("layers", "heads", "max_bytes")}
    explorer = attention_explorer(models, images, corruptions, **chosen, **shared)
    lens = patch_lens_view(models, images, corruptions, **shared) if options.lens is not None else None
    say(explorer.save(options.out))
    if lens is not None and options.lens is not None:
        say(lens.save(options.lens))


def shown(options: Options, model: HookedViT, limit: int) -> Any:
    """Return the picture files by caption, or the first images, and print which they are."""
    if options.pictures is None:
        return images_for(options, ALL, [model], limit=limit, needs_labels=False, is_measured=False)
    pictures = opened_pictures(options)
    if limit < len(pictures):
        say(f"{limit:,} of {len(pictures):,} pictures: the first")
    return pictures
