"""Take the screenshots of a run's report for the README, with chromium and playwright (in the `dev` extra).

    mechvit screenshots --run runs/photos --out docs --overwrite

Writes report.png, claims.png, gain.png, explorer.png, lens.png and features.png; existing ones only with --overwrite.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mechvit.cli.options import OutputOptions, own_first
from mechvit.files import write_bytes
from mechvit.settings_checks import COUNT_OR_ZERO, check, check_choice, check_common
from mechvit.terminal import say

if TYPE_CHECKING:
    from playwright.sync_api import Page

PICTURES = ("report", "claims", "gain", "explorer", "lens", "features")
DRAWN = """() => [...document.querySelectorAll(".plot")]
    .every((plot) => plot.closest("details:not([open])") || plot.querySelector(".main-svg"))
  && [...document.querySelectorAll(".ex")].every((view) => view.dataset.drawn)"""


@own_first
@dataclass(frozen=True, kw_only=True)
class Options(OutputOptions):
    """Options of the screenshots."""

    run: Path
    """Folder of a finished run, with its report.html."""
    out: Path
    """Folder for the pictures."""
    picture: int = 1
    """Index of the example image that the views show, from 0."""
    theme: str = "light"
    """`light` or `dark`."""
    overwrite: bool = False
    """Replace files of these names in OUT, even those written by others."""

    def __post_init__(self) -> None:
        check_common(self)
        check(self, COUNT_OR_ZERO, "picture")
        check_choice(self, theme=("light", "dark"))


def main(options: Options) -> None:
    """Open the report offline and take each screenshot."""
    report, chromium = options.run / "report.html", shutil.which("chromium")
    if not report.is_file():
        raise ValueError(f"{options.run} has no report.html: finish the run first")
    if chromium is None:
        raise ValueError("screenshots need chromium on the PATH: apt-get install chromium")
    there = [path for path in (options.out / f"{name}.png" for name in PICTURES) if path.exists()]
    if there and not options.overwrite:
        raise ValueError(f"{', '.join(map(str, there))} would be replaced: give another --out, or --overwrite")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = browser.new_context(
            offline=True,
            viewport={"width": 1280, "height": 980},
            color_scheme="dark" if options.theme == "dark" else "light",
            device_scale_factor=1.5,
        )
        page = context.new_page()
        page.goto(report.resolve().as_uri())
        wait(page, DRAWN)  # figures and views are drawn while the browser is idle
        for name, show in {"report": top, "claims": claims, "gain": gain, "explorer": explorer, "lens": lens}.items():
            show(page, options.picture)
            page.wait_for_timeout(1000)  # while patterns are decompressed
            keep(page, name, options)
        features = options.run / "features.html"
        if features.is_file():  # a run may have no SAEs
            page.goto(features.resolve().as_uri())
            page.locator("tbody tr").nth(options.picture).click()
            page.wait_for_timeout(1500)
            keep(page, "features", options)
        browser.close()


def keep(page: Page, name: str, options: Options) -> None:
    """Take a screenshot of the window."""
    place = options.out / f"{name}.png"
    write_bytes(place, page.screenshot(), ours=lambda path: options.overwrite)
    say(place)


def wait(page: Page, condition: str) -> None:
    """Poll a JavaScript function until it returns true (the page's policy forbids playwright's own wait)."""
    for _ in range(600):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(100)
    raise ValueError(f"the page was not drawn within a minute: {condition}")


def top(page: Page, picture: int) -> None:
    """Show the first screen: the claims, each with its measurement and a verdict."""


def claims(page: Page, picture: int) -> None:
    """Show every claim's measurements with their intervals."""
    page.evaluate("document.querySelector('#claims-figure').scrollIntoView({ behavior: 'instant' })")


def gain(page: Page, picture: int) -> None:
    """Show the localisation of the tuned models' gain by activation."""
    page.evaluate("document.querySelector('#gain-patching').scrollIntoView({ behavior: 'instant' })")


def choose(page: Page, view: str, picture: int, patch: tuple[float, float]) -> None:
    """Scroll a view to the top of the window, select a picture, and lock the patch at a position of its first panel."""
    page.evaluate("(view) => document.querySelector(view).scrollIntoView({ behavior: 'instant' })", view)
    page.locator(f"{view} .ex-stage").first.wait_for()
    if page.locator(f"{view} .ex-strip input").count() > picture:
        page.locator(f"{view} .ex-strip input").nth(picture).check(force=True)
    page.wait_for_timeout(500)
    box = page.locator(f"{view} .ex-stage").first.bounding_box()
    assert box is not None
    page.locator(f"{view} .ex-stage").first.click(
        position={"x": box["width"] * patch[0], "y": box["height"] * patch[1]}
    )
    page.evaluate("(view) => document.querySelector(view).scrollIntoView({ behavior: 'instant' })", view)


def explorer(page: Page, picture: int) -> None:
    """Show the attention explorer, with one patch locked."""
    choose(page, ".ex:not(.pl)", picture, (0.56, 0.44))


def lens(page: Page, picture: int) -> None:
    """Show the patch lens, with one patch locked."""
    choose(page, ".ex.pl", picture, (0.56, 0.44))
