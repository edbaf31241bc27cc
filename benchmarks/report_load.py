"""Size of the offline pages, and time until they can be used: the report of a run and synthetic pages.

    benchmarks/report_load.py --out runs/benchmarks/report_load
    benchmarks/report_load.py --run runs/photos --out runs/benchmarks/report_load

"First figure" and "everything" are seconds from the opening of the file, by the page's clock, until the first figure
stands, and until every figure and view stands and answers; figures folded away are drawn when their fold is opened, and
"unfolding" is the time until the first one stands. circuitsvis's patterns are drawn when they come into view:
"attention heads" is the time from scrolling there until every panel shown stands. A redraw is what a pointer's move
over a picture costs until the page is laid out again. The synthetic report has 8 pictures of 224 px, 12 layers of 12
heads and two models, its tables and patterns drawn at random by the tests' own makers; the synthetic features page 200
latents.

OUT/result.json holds every time, OUT/table.md the table.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from timing import spread

from mechvit.cli.command_line import read, run
from mechvit.files import check_out
from mechvit.settings_checks import COUNT, check, check_common

if TYPE_CHECKING:
    from pages import PageTimes
    from report import Measure

TESTS = Path(__file__).parents[1] / "tests"
LARGEST, FIRST, WHOLE, FRAME = 25.0, 2.0, 5.0, 0.016
"""Budgets: MB, seconds, seconds, and seconds of one redraw."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the benchmark."""

    out: str
    """Folder of the result: result.json, table.md."""
    run: Path | None = None
    """A finished run whose pages are measured, too."""
    synthetic: bool = True
    """Measure the pages of the stated size."""
    rounds: int = 6
    """Times that every page is opened."""
    overwrite: bool = False
    """Replace an earlier result at OUT."""

    def __post_init__(self) -> None:
        check_common(self)
        check(self, COUNT, "rounds")
        if self.run is not None and not (self.run / "report.html").is_file():
            raise ValueError(f"{self.run} has no report.html: finish the run first")


def synthetic_pages(folder: Path) -> dict[str, Path]:
    """Write a report and a features page of the size for which the budgets are stated, and return their paths."""
    sys.path[:0] = [str(TESTS / "visualization"), str(TESTS / "models")]
    from fake_run import write_large_run
    from feature_pages import large_browser

    from mechvit.visualization import render_report

    report = render_report(write_large_run(folder / "run"))
    return {"synthetic report": report, "synthetic features": large_browser().save(folder / "features.html")}


def measures_of(name: str, path: Path, times: list[PageTimes]) -> list[Measure]:
    """Return the rows of one page."""
    from report import Measure

    first, whole = spread([one.first for one in times]), spread([one.all for one in times])
    size = spread([path.stat().st_size / 1e6])
    rows = [
        Measure(part=name, contender="size", over="", seconds=whole, value=size, unit="MB", limit=LARGEST),
        Measure(part=name, contender="first figure", over="", seconds=first, value=first, unit="s", limit=FIRST),
        Measure(part=name, contender="everything", over="", seconds=whole, value=whole, unit="s", limit=WHOLE),
    ]
    if times[0].heads is not None:
        heads = spread([one.heads for one in times if one.heads is not None])
        rows.append(
            Measure(part=name, contender="attention heads", over="", seconds=heads, value=heads, unit="s", limit=WHOLE)
        )
    if times[0].unfolding:
        opening = spread([cost for one in times for cost in one.unfolding])
        rows.append(Measure(part=name, contender="unfolding", over="", seconds=opening, value=opening, unit="s"))
    for view in times[0].redraws:
        costs = [cost for one in times for cost in one.redraws[view]]
        redraw, milliseconds = spread(costs), spread([1e3 * cost for cost in costs])
        rows.append(
            Measure(
                part=name, contender=view, over="", seconds=redraw, value=milliseconds, unit="ms", limit=1e3 * FRAME
            )
        )
    return rows


def main(options: Options) -> None:
    """Open every page in turn, round by round, print the table and write it."""
    check_out(options.out, "benchmark", overwrite=options.overwrite, flag="--overwrite")
    from pages import chromium, open_page
    from report import Beginning, publish
    from timing import Timing, orders

    beginning = Beginning.now()
    pages: dict[str, Path] = {}
    if options.run is not None:
        places = {"report": options.run / "report.html", "features": options.run / "features.html"}
        pages |= {f"{name} of {options.run.resolve().name}": path for name, path in places.items() if path.is_file()}
    with tempfile.TemporaryDirectory() as folder:
        if options.synthetic:
            pages |= synthetic_pages(Path(folder))
        if not pages:
            raise ValueError("there is no page to measure: give --run, or leave out --no-synthetic")
        found: dict[str, list[PageTimes]] = {name: [] for name in pages}
        with chromium() as browser:
            for order in orders(list(pages), options.rounds, 0):
                for name in order:
                    found[name].append(open_page(browser, pages[name]))
        measures = [row for name, path in pages.items() for row in measures_of(name, path, found[name])]
    timings = {
        name: Timing(seconds={"first figure": tuple(t.first for t in times), "everything": tuple(t.all for t in times)})
        for name, times in found.items()
    }
    publish(options, beginning, title="Opening the pages", measures=measures, timings=timings)


if __name__ == "__main__":
    run(main, read(Options, __doc__))
