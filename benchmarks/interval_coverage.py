"""Coverage of the 95% intervals of `mechvit.analysis.statistics` in simulated data whose effects are known.

    benchmarks/interval_coverage.py --out runs/benchmarks/interval_coverage

Means over clusters of images, over clusters and training seeds, ratios, jackknifed statistics, and limits for one more
null model. Gaussian data must be covered in 93% to 97% of draws; skewed data, pure interaction of seeds and images,
and statistics that are no means in 92% at least. Shown for comparison are intervals that take images for units or one
training for all, and the range of the nulls. The file has this name because `coverage` is a package that others import.

OUT/result.json holds every number, OUT/table.md the table.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mechvit.cli.command_line import read, run
from mechvit.files import check_out
from mechvit.settings_checks import SEED, Range, check, check_common

if TYPE_CHECKING:
    from collections.abc import Sequence

    from interval_cases import Coverage

TITLE = "Coverage of 95% intervals"
QUICK = 400
"""Draws of a quick run: a coverage of 95% is then known to about 2 points."""
DRAWS_RANGE = Range(50)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the benchmark."""

    out: str
    """Folder of the result: result.json, table.md."""
    draws: int = 8000
    """Data sets of each case; statistics by the jackknife have an eighth of these, null limits half."""
    seed: int = 0
    """Seed of all draws."""
    quick: bool = False
    """400 draws a case, in place of `draws`: does it run?"""
    overwrite: bool = False
    """Replace an earlier result at OUT."""

    def __post_init__(self) -> None:
        check_common(self)
        check(self, DRAWS_RANGE, "draws")
        check(self, SEED, "seed")


def main(options: Options) -> None:
    """Simulate all cases, print the table and write it."""
    check_out(options.out, "benchmark", overwrite=options.overwrite, flag="--overwrite")
    from interval_cases import every_case
    from report import Beginning

    from mechvit.files import new_folder, write_json, write_text
    from mechvit.terminal import say

    beginning = Beginning.now()
    draws = QUICK if options.quick else options.draws
    rows = list(every_case(draws, options.seed))
    table = markdown(rows, f"{draws} draws, seed {options.seed}.")
    result = {
        "title": TITLE,
        "settings": {"draws": draws, "seed": options.seed},
        "measures": [dataclasses.asdict(row) | {"verdict": row.verdict} for row in rows],
        "versions": beginning.versions,
        "hardware": beginning.hardware,
        "started": beginning.started,
    }
    with new_folder(options.out, "benchmark", overwrite=options.overwrite, flag="--overwrite") as folder:
        write_json(folder / "result.json", result)
        write_text(folder / "table.md", table)
    say(f"\n{table}\n{options.out}: result.json, table.md")


def markdown(rows: Sequence[Coverage], about: str) -> str:
    """Return the table of coverages, with their limits."""
    lines = ["| | data | interval | coverage | half-width | allowed | |", "|---|---|---|---:|---:|---|---|"]
    for row in rows:
        allowed = "" if row.limits is None else f"{row.limits[0]:g} to {row.limits[1]:g}"
        lines.append(
            f"| {row.part} | {row.case} | {row.method} | {row.coverage:.3f} ± {row.error:.3f} | {row.half_width:.2f} | "
            f"{allowed} | {row.verdict} |"
        )
    note = (
        "Coverage with its standard error. Half-width: the mean, over the deviation of the estimate; of null limits, "
        "over the deviation of one null of the row."
    )
    return "\n".join([f"# {TITLE}", "", *lines, "", note, about, ""])


if __name__ == "__main__":
    run(main, read(Options, __doc__))
