"""Show one picture in one or more models: answers, attention of each head, patch lens, top latents, on one page.

    mechvit look cat.jpg --model runs/photos/models/base runs/photos/models/gaussian_blur_4 --out cat.html
    mechvit look scan.png --model BASE TUNED --sae saes/base/batchtopk saes/tuned/batchtopk \\
        --conditions gaussian_blur_4 --out scan.html
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from mechvit.cli.options import DeviceOptions, OutputOptions, own_first
from mechvit.data.conditions import parse_condition
from mechvit.experiment.inputs import load_model, names_of, result_pages
from mechvit.settings_checks import COUNT, SettingError, check, check_common, check_some
from mechvit.terminal import say


@own_first
@dataclass(frozen=True, kw_only=True)
class Options(DeviceOptions, OutputOptions):
    """Options of a look."""

    picture: Positional[Path]
    """Picture file in any format that Pillow opens."""
    model: tuple[str, ...]
    """Folders or Hub ids of the models."""
    out: Path
    """Path of the page, an .html file."""
    sae: tuple[str, ...] = ()
    """Folders of SAEs, one for each model, in their order."""
    conditions: tuple[str, ...] = ()
    """Conditions beside the clean picture: gaussian_blur_4, my_file.py:haze_3."""
    latents: int = 8
    """Number of latents of each SAE."""
    pixel_range: tuple[float, float] | None = None
    """Values of black and white in a picture of more than eight bits that does not state them, for example 0 4095."""

    def __post_init__(self) -> None:
        check_common(self)
        check_some(self, "model")
        check_some(self, "conditions", "sae", or_none=True)
        check(self, COUNT, "latents")
        if self.sae and len(self.sae) != len(self.model):
            raise SettingError("sae", f"must name one for each of the {len(self.model)} models; got {len(self.sae)}")


def main(options: Options) -> None:
    """Load the models and the picture, and write the page."""
    conditions, names = [parse_condition(key) for key in options.conditions], names_of(options.model)
    with result_pages(options, [options.out], options.picture, *options.model, *options.sae):
        from mechvit.data import open_picture
        from mechvit.saes import load_sae
        from mechvit.views import look

        picture = open_picture(options.picture, pixel_range=options.pixel_range)
        models = {name: load_model(path, options.device, options.model_dtype) for name, path in names.items()}
        folders = dict(zip(names, options.sae, strict=True)) if options.sae else {}
        saes = {name: load_sae(path, options.device) for name, path in folders.items()}
        page = look(picture, models, saes, conditions=conditions, latents=options.latents, title=options.picture.name)
        for why in page.missing:
            say(why)
        say(page.save(options.out))
