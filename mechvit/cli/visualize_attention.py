"""Show attention on pictures, clean and corrupted, of one model or of two side by side.

    mechvit visualize-attention --model runs/photos/models/base \\
        --pictures photo.jpg --out attention.html
    mechvit visualize-attention --model BASE --tuned TUNED --pictures photo.jpg \\
        --corruption gaussian_noise_4 --layers 9 10 11 --heads 0 5 \\
        --out attention.html

The page is one file that needs no network and shows circuitsvis's attention heads in linked panels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mechvit.cli.options import DeviceOptions, OutputOptions, opened_pictures, own_first
from mechvit.data.corruption_spec import CLEAN, Condition
from mechvit.experiment.inputs import check_corruptions, corruptions_named, load_model, result_pages
from mechvit.settings_checks import COUNT, COUNT_OR_ZERO, check, check_common, check_some
from mechvit.terminal import say


@own_first
@dataclass(frozen=True, kw_only=True)
class Options(DeviceOptions, OutputOptions):
    """Options of the attention page."""

    model: str
    """Folder or Hub id of a vision transformer, with or without a head, with its image processor."""
    pictures: tuple[Path, ...]
    """Picture files in any format that Pillow opens, shown beside each other."""
    pixel_range: tuple[float, float] | None = None
    """Values of black and white in pictures of more than eight bits that do not state them, for example 0 4095."""
    out: Path
    """Path of the page, an .html file."""
    tuned: str | None = None
    """Model tuned from it, shown beside it."""
    corruption: str = "gaussian_blur_4"
    """Condition shown beside the clean image: FAMILY_LEVEL, as in gaussian_blur_4 (deviation in pixels at the model's
    input size) or gaussian_noise_2 (severity); or any other condition (docs/conditions.md); clean shows that alone."""
    layers: tuple[int, ...] | None = None
    """Blocks, 0 to n_layers - 1; None uses all, displayed one at a time."""
    heads: tuple[int, ...] | None = None
    """Heads, 0 to n_heads - 1; None uses all."""
    max_tokens: int | None = 50
    """Largest number of tokens after pooling patches in square blocks; None for full resolution (choose few heads)."""
    seed: int = 0
    """Seed of the corruptions' noise."""
    overwrite: bool = False
    """Replace an earlier page at OUT."""

    def __post_init__(self) -> None:
        check_common(self)
        check_some(self, "pictures")
        check_some(self, "layers", "heads", or_none=True)
        check(self, COUNT_OR_ZERO, "layers", "heads", or_none=True)
        check(self, COUNT, "max_tokens", or_none=True)


def main(options: Options) -> None:
    """Corrupt the pictures at the models' input size, and show the models' attention."""
    pair = {"base": options.model} | ({"tuned": options.tuned} if options.tuned else {})
    (corruption,) = corruptions_named([options.corruption], pair)
    with result_pages(options, [options.out], options.model, options.tuned, *options.pictures):
        draw(options, corruption)


def draw(options: Options, corruption: Condition) -> None:
    """Compute the page and write it."""
    pictures = opened_pictures(options)
    models = {"Base" if options.tuned else "": load_model(options.model, options.device, options.model_dtype)}
    if options.tuned is not None:
        models["Tuned"] = load_model(options.tuned, options.device, options.model_dtype)
    for model in models.values():
        check_corruptions([corruption], model.cfg.image_size)
    from mechvit.views import attention_view
    from mechvit.views.example_images import captioned_images, conditioned_images

    conditions = tuple(dict.fromkeys((CLEAN, corruption)))
    seen = {}
    for name, model in models.items():
        batch, captions = captioned_images(model, pictures, len(pictures))
        for image in conditioned_images({name: model}, batch, captions, conditions, options.seed):
            seen[image.title, name] = dict(zip(conditions, image.pixel_values[0], strict=True))
    views = [
        attention_view(
            model,
            {panel(name, caption if len(pictures) > 1 else "", c): pixels for c, pixels in seen[caption, name].items()},
            options.layers,
            options.heads,
            max_tokens=options.max_tokens,
            title=f"Attention on {', '.join(pictures)}",
        )
        for caption in pictures
        for name, model in models.items()
    ]
    say(views[0].beside(*views[1:]).save(options.out))


def panel(model: str, caption: str, corruption: Condition) -> str:
    """Return the name of a panel: the model and the picture, where there are several, and the corruption."""
    before = [name for name in (model, caption) if name]
    return ", ".join([*before, corruption.title.lower()]) if before else corruption.title
