"""Write every figure of a finished run as files for a paper, at a column's width (needs kaleido and chromium).

    mechvit export-figures --run runs/photos                                  # SVG and PDF, both widths
    mechvit export-figures --run runs/photos --formats png,svg,pdf --columns single --out figures

A figure is named ID_COLUMN.FORMAT: `single` is 3.375 inches wide and `double` 7, with text of 7 and 8 pt and no title.
SVG and PDF keep text as text; a PNG has 300 dots per inch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mechvit.settings_checks import check_choice, check_common, check_some
from mechvit.terminal import say


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the export."""

    run: Path
    """Folder of a finished run."""
    out: Path | None = None
    """Folder of the files, `figures` in the run by default; unedited files of the same names are replaced."""
    formats: tuple[str, ...] = ("svg", "pdf")
    """png, svg, pdf; separated by commas or spaces."""
    columns: tuple[str, ...] = ("single", "double")
    """Widths: single, double, or both."""

    def __post_init__(self) -> None:
        check_common(self)
        check_some(self, "formats", "columns")
        check_choice(self, columns=("single", "double"))


def main(options: Options) -> None:
    """Write the files and print their paths."""
    from mechvit.visualization.export.figure_files import export_figures

    for path in export_figures(options.run, options.out, options.formats, options.columns):
        say(path)
