"""A run's figures as PNG, SVG and PDF files at the width of a paper's column, written by kaleido and chromium."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechvit.arguments import checked
from mechvit.files import Lock, begin, check_replaceable, is_empty, keep, out_folder, read_marker, write_bytes
from mechvit.visualization.report.run_figures import figures_of_run
from mechvit.visualization.report.run_results import read_run

from .print_layout import INCH, PAPER_COLUMNS, for_paper

if TYPE_CHECKING:
    import plotly.graph_objects as go

FORMATS = ("png", "svg", "pdf")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
"""Names on a PATH of the browsers that kaleido can control."""
DOTS = 300
"""Resolution of a PNG in dots per inch."""


def formats_named(names: Sequence[str]) -> tuple[str, ...]:
    """Return the formats named one by one or separated by commas, each once.

    Raises:
        ValueError: a format is unknown.
    """
    found = dict.fromkeys(part.strip() for name in names for part in name.split(",") if part.strip())
    if unknown := [name for name in found if name not in FORMATS]:
        raise ValueError(f"figures can be written as {', '.join(FORMATS)}; got {', '.join(unknown)}")
    return tuple(found)


def require_exporter() -> str:
    """Return the path of the browser that will draw the figures.

    Raises:
        ValueError: kaleido or a browser is missing; says how to install it.
    """
    if importlib.util.find_spec("kaleido") is None:
        raise ValueError("writing figures as files needs kaleido: pip install 'mechvit[export]'")
    named = os.environ.get("BROWSER_PATH")
    found = shutil.which(named) if named else next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        what = f"BROWSER_PATH names {named}, which is no program" if named else "there is none on the PATH"
        raise ValueError(
            f"writing figures as files needs chromium or Chrome, and {what}: apt-get install chromium, or set "
            "BROWSER_PATH to one"
        )
    return found


@checked
def export_figures(
    run: str | Path,
    out: str | Path | None = None,
    formats: Sequence[str] = ("svg", "pdf"),
    columns: Collection[str] = tuple(PAPER_COLUMNS),
) -> list[Path]:
    """Write every figure of a finished run as files of a paper's width, without a title.

    Args:
        run: folder of the run.
        out: folder of the files, `figures` in the run when None; files of the same names are replaced unless they were
            edited.
        formats: some of `FORMATS`. SVG and PDF keep text as text; a PNG has 300 dots per inch.
        columns: `single` (3.375 in), `double` (7 in) or both; a file is named `ID_COLUMN.FORMAT`.

    Returns:
        the files, in the report's order.

    Raises:
        ValueError: a format or column is unknown, or kaleido or a browser is missing (found before anything is drawn);
            or the browser could not draw a figure.
        FileNotFoundError: the run is not finished.
    """
    chosen, browser = formats_named(formats), require_exporter()
    if not chosen or not columns:
        raise ValueError(f"give at least one format and one column; got {list(formats)} and {list(columns)}")
    opened = read_run(run)
    figures = {
        f"{figure.spec.id}_{column}": for_paper(figure.figure, column)
        for figure in figures_of_run(opened)
        for column in columns
    }
    return write_figures(figures, Path(out) if out is not None else opened.path / "figures", chosen, browser)


def write_figures(figures: dict[str, go.Figure], out: Path, formats: Sequence[str], browser: str) -> list[Path]:
    """Draw all figures in one browser, in a temporary folder, and then write each file to its place.

    Raises:
        ValueError: a figure could not be drawn, or a file of the same name was edited or not written by this package;
            then no file is written.
    """
    import kaleido

    place = out_folder(out, replaceable=False)
    if not place.is_dir() or is_empty(place):
        begin(place, "figures")
    elif read_marker(place) is None:
        raise ValueError(f"{out} holds other files: give a new folder")
    written = [place / f"{name}.{kind}" for name in figures for kind in formats]
    for path in written:
        check_replaceable(path)
    with Lock(place), tempfile.TemporaryDirectory(prefix="figures-") as folder:
        asked: list[dict[str, Any]] = [
            {
                "fig": figure.to_dict(),
                "path": Path(folder) / f"{name}.{kind}",
                "opts": {
                    "format": kind,
                    "width": figure.layout.width,
                    "height": figure.layout.height,
                    "scale": DOTS / INCH if kind == "png" else 1,
                },
            }
            for name, figure in figures.items()
            for kind in formats
        ]
        failed = kaleido.write_fig_from_object_sync(asked, kopts={"path": browser, "mathjax": False})
        if failed:
            raise ValueError(f"{len(failed)} of {len(asked)} figures could not be written: {failed[0]}")
        for one, final in zip(asked, written, strict=True):
            check_replaceable(final)  # again: drawing took minutes
            write_bytes(final, one["path"].read_bytes())
            keep(final)
    return [out / path.name for path in written]
