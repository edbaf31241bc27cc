"""Show the latents of sparse autoencoders and their changes under corruptions on one page, which needs no network.

    mechvit browse-features --model runs/photos/models/base \\
        --saes runs/photos/saes/base --out features.html
    mechvit browse-features --model BASE --saes saes/base/batchtopk \\
        --tuned TUNED --tuned-saes saes/tuned/batchtopk \\
        --images folder:DIR --corruptions gaussian_blur_4 --out features.html
    mechvit browse-features --model BASE --saes saes/base/batchtopk \\
        --pictures a.jpg b.jpg --out features.html

The page contains a table of all latents; details of each chosen latent (example images with activation maps, classes,
logits, the effect of ablating it, nearest directions, clean against corrupted); and images whose patches can be
selected to list their strongest latents. Latents of SAEs that read the same hook point are matched and linked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mechvit.cli.options import (
    BatchOptions,
    DeviceOptions,
    OutputOptions,
    PictureOptions,
    UnlabelledOptions,
    images_for,
    own_first,
)
from mechvit.data.corruption_spec import PAPER_CORRUPTIONS, Condition
from mechvit.experiment.inputs import (
    check_corruptions,
    corruptions_named,
    load_model,
    names_of,
    result_pages,
    sae_folders,
)
from mechvit.settings_checks import COUNT, COUNT_OR_ZERO, check, check_common, check_some
from mechvit.terminal import say

if TYPE_CHECKING:
    from sae_lens import SAE

    from mechvit.models import HookedViT


@own_first
@dataclass(frozen=True, kw_only=True)
class Options(PictureOptions, UnlabelledOptions, DeviceOptions, BatchOptions, OutputOptions):
    """Options of the feature browser."""

    model: str
    """Folder or Hub id of the model on whose activations the SAEs were trained."""
    saes: tuple[str, ...]
    """Folders of SAEs (with cfg.json), or folders of such folders, as mechvit train-sae writes them."""
    out: Path
    """The page, an .html file."""
    images: str = "photos"
    """`photos` (embedded), `folder:DIR` (a sub-folder for each class, or images without labels; train, val and test
    folders are its parts) or a Hub data set (ID:CONFIG@SPLIT); the test part. Without labels no latent has a class."""
    tuned: str | None = None
    """Model tuned from it, whose SAEs are shown beside the others."""
    tuned_saes: tuple[str, ...] = ()
    """Folders of the tuned model's SAEs."""
    corruptions: tuple[str, ...] = tuple(c.key for c in PAPER_CORRUPTIONS)
    """FAMILY_LEVEL, as in gaussian_blur_4 (deviation in pixels at the model's input size) or gaussian_noise_2
    (ImageNet-C severity). The most severe of each of the first two families is displayed; clean measures none."""
    n_features: int = 200
    """Latents of each SAE shown with images; the table lists all."""
    features: tuple[int, ...] = ()
    """Latents of the first SAE to include; their matches in the other SAEs are likely to be included too."""
    n_images: int = 12
    """Images whose patches can be selected to list their latents."""
    title: str = "SAE features"
    """Title of the page."""
    allow_other_model: bool = False
    """Accept SAEs that were trained on other weights than the model's."""
    batch_size: int | None = None
    """Images per forward pass; None uses 32 on a CPU, else 128, and at most 256 MiB of one SAE's codes."""
    overwrite: bool = False
    """Replace an earlier page at OUT."""

    def __post_init__(self) -> None:
        check_common(self)
        check_some(self, "saes", "corruptions")
        if self.pictures is not None:
            check_some(self, "pictures")
        check(self, COUNT, "n_features", "n_images")
        check(self, COUNT_OR_ZERO, "features")


def main(options: Options) -> None:
    """Describe the SAEs of one or two models on the same images, and write the page."""
    if (options.tuned is None) != (not options.tuned_saes):
        raise ValueError("--tuned and --tuned-saes go together: give both or neither")
    checkpoints = [options.model] if options.tuned is None else [options.model, options.tuned]
    corruptions = corruptions_named(options.corruptions, names_of(checkpoints))
    read = options.model, options.tuned, *options.saes, *options.tuned_saes
    with result_pages(options, [options.out], *read):
        draw(options, corruptions)


def draw(options: Options, corruptions: Sequence[Condition]) -> None:
    """Compute the page and write it."""
    saes = named_saes(options)
    model = next(iter(saes.values()))[0]
    check_corruptions(corruptions, model.cfg.image_size)
    images = images_for(options, "test", [model], limit=options.limit, needs_labels=False, is_measured=False)
    from mechvit.saes.dashboard.results import Browsing
    from mechvit.views import feature_browser

    settings = Browsing(
        n_features=options.n_features, n_images=options.n_images, batch_size=options.batch_size, seed=options.seed
    )
    browser = feature_browser(
        saes,
        images,
        corruptions,
        features={next(iter(saes)): options.features},
        settings=settings,
        title=options.title,
        allow_other_model=options.allow_other_model,
        progress="SAE features",
    )
    say(browser.save(options.out))


def named_saes(options: Options) -> dict[str, tuple[HookedViT, SAE]]:
    """Return every SAE with its model, by name; with two models, the model's name precedes the SAE's."""
    from mechvit.saes import load_sae

    given = {options.model: options.saes} | ({options.tuned: options.tuned_saes} if options.tuned else {})
    found: dict[str, tuple[HookedViT, SAE]] = {}
    for name, checkpoint in names_of(given).items():
        model = load_model(checkpoint, options.device, options.model_dtype)
        for key, folder in sae_folders(given[checkpoint]).items():
            shown = f"{name} {key}" if len(given) > 1 else key
            found[shown] = (model, load_sae(folder, device=str(model.cfg.device)))
    return found
