"""The report of a comparison, one self-contained offline page, with every number read from the run's folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mechvit.arguments import checked
from mechvit.files.reading import read_object
from mechvit.visualization.html_page.licence_notices import embedded
from mechvit.visualization.html_page.page import picture_uri, render, write_whole
from mechvit.visualization.report import provenance_rows as made
from mechvit.visualization.report.report_page import FigureSection, PageFigure, lens_of_run, page_figure
from mechvit.visualization.report.run_figures import draw_figure
from mechvit.visualization.report.run_results import RunResults, read_run_of_page
from mechvit.visualization.report.table_downloads import Offers
from mechvit.visualization.style import DARK

from . import lead as words
from .null_words import PLAIN, null_models_of
from .sections import comparison_sections
from .text_tables import TextTable, text_tables

REQUIRED = ("comparison.json", "config.json", "provenance.json")


@checked
def render_comparison(run: str | Path, out: str | Path | None = None) -> Path:
    """Write the report of a finished comparison and return its path.

    It is one file that requests nothing, written atomically.

    Args:
        run: folder of the run, with at least the files of `REQUIRED`.
        out: path of the page; `report.html` in the run's folder when None.

    Raises:
        FileNotFoundError: the run is not finished: a file that the page needs is missing.
        ValueError: a table cannot be drawn.
    """
    opened = read_run_of_page(Path(run), "the report of a comparison", REQUIRED)
    about, config = read_object(opened.path / REQUIRED[0]), opened.config
    offers = Offers()
    sections = _sections(opened, about, offers)
    shown = about["pictured"]  # a run keeps the views of an earlier call that asked for pictures
    text = render(
        "comparison.html.j2",
        run=opened,
        title=words.title(about),
        lead=words.lead(opened, about),
        model_columns=words.MODEL_COLUMNS,
        models=words.models(about),
        compared=words.compared(opened, about),
        sections=sections,
        gallery=_gallery(opened) if shown else [],
        gallery_lead="Images in order of KL(base ‖ tuned), the largest first, as the base sees them.",
        explorer=opened.view("explorer") if shown else None,
        lens=lens_of_run(opened) if shown else None,
        unmeasured=words.unmeasured(about),
        has_nulls=bool(about.get("nulls")),
        nulls=null_models_of(about, config),
        only_seeds=PLAIN if any(heads != ["own"] for heads in about["heads"].values()) else None,
        offers=offers.held.values(),
        config=made.rows(config),
        provenance=made.provenance(opened),
        parquet=made.table_rows(opened),
        dark=DARK,
        **embedded("plotly.js"),
    )
    return write_whole(Path(out) if out is not None else opened.path / "report.html", text)


def comparison_lead(run: str | Path) -> list[str]:
    """Return the first paragraphs of a finished comparison's report, one for each tuned model."""
    path = Path(run)
    about, config = read_object(path / REQUIRED[0]), read_object(path / REQUIRED[1])
    return words.lead(RunResults(path=path, claims=[], config=config, provenance={}), about)


@dataclass(frozen=True, kw_only=True)
class ComparedSection(FigureSection):
    """One section of a comparison: its figures, then its tables."""

    tables: list[TextTable]


def _sections(run: RunResults, about: dict[str, Any], offers: Offers) -> list[ComparedSection]:
    found = []
    for section in comparison_sections(run, about):
        drawn = [draw_figure(run, spec) for spec in section.figures]
        figures: list[PageFigure] = [page_figure(one, offers) for one in drawn if one is not None]
        tables = text_tables(run, about, section.id, offers)
        if figures or tables:
            found.append(
                ComparedSection(id=section.id, title=section.title, lead=section.lead, figures=figures, tables=tables)
            )
    return found


def _gallery(run: RunResults) -> list[dict[str, Any]]:
    """Return the rows of pictures that differ most, with what each model answers, for each tuned model."""
    listed, arrays = run.examples()
    parts: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for row in listed:
        pixels = arrays[row["key"]]
        parts.setdefault(row["tuned"], {}).setdefault(row["title"], []).append(
            {
                "uri": picture_uri(pixels),
                "side": max(96, min(224, pixels.shape[-1])),
                "alt": f"image {row['image_id']}",
                "lines": row["lines"],
            }
        )
    return [{"title": tuned, "rows": list(rows.items())} for tuned, rows in parts.items()]
