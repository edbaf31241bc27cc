"""Compare a base with models tuned from it, on any images: one report of what differs, and where.

    mechvit compare runs/photos/models/base runs/photos/models/gaussian_blur_4 --out comparison
    mechvit compare google/vit-base-patch16-224-in21k ./my-vit --images folder:my-images --quick --out first-look
    mechvit compare BASE TUNED OTHER --images folder:scans@val --groups parent \\
        --conditions gaussian_blur_4 my_file.py:haze_3 pgd_4 --out comparison
    mechvit compare BASE TUNED --pictures a.jpg b.png --out two-pictures

The first model is the base. Models may be bare encoders or have other classes: see --head. Before it starts, the
command prints the sections, how many images each takes, and about how long; OUT/report.html is the result, and
OUT/tables holds every number. An interrupted run continues when the command is given again.
"""

from __future__ import annotations

from dataclasses import dataclass

from tyro.conf import Positional

from mechvit.cli.options import own_first
from mechvit.experiment.comparison.config import CompareConfig
from mechvit.terminal import say


@own_first
@dataclass(frozen=True, kw_only=True)
class Options(CompareConfig):
    """Options of a comparison."""

    models: Positional[tuple[str, ...]]
    """The base, then one or several models tuned from it: folders or Hub ids."""


def main(options: Options) -> None:
    """Run the comparison, and print where the report is."""
    from mechvit.experiment.comparison import run_comparison

    say(str(run_comparison(options, say)))
