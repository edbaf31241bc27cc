"""The report, one self-contained offline page on a finished run, with every number read from the run's folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mechvit.arguments import checked
from mechvit.visualization.attention.circuitsvis_view import AttentionPanel, AttentionView, attention_spec, pooled_grid
from mechvit.visualization.attention.pattern_pooling import pool_patterns, token_names
from mechvit.visualization.html_page.licence_notices import embedded
from mechvit.visualization.html_page.page import escaped_json, picture_uri, render, write_whole
from mechvit.visualization.html_page.plotly_json import figure_spec
from mechvit.visualization.style import DARK, in_order, title_of, tuned_title

from . import html_tables as tables
from . import provenance_rows as made
from .claims_table import claim_rows, summary, tally
from .run_figures import RunFigure, draw_figure, sections
from .run_results import RunResults, read_run
from .sections import CLAIMS, FigureSpec, Section
from .table_downloads import Offer, Offers

COARSE = 128
"""Side in pixels below which pictures are enlarged pixel by pixel, so that the page shows the model's input exactly."""


@dataclass(frozen=True, kw_only=True)
class PageFigure:
    """One figure on the page."""

    spec: FigureSpec
    title: str
    reading: list[str]
    height: int
    """Height in pixels."""
    plotly_json: Markup
    """plotly's JSON."""
    offer: Offer
    """The figure's data."""
    bears: list[tuple[str, str]]
    """Ids and names of the claims that the figure concerns."""


@dataclass(frozen=True, kw_only=True)
class PageSection:
    """One section on the page: its figures, and the plots whose tables are missing."""

    section: Section
    figures: list[PageFigure]
    missing: list[FigureSpec]
    table: tuple[str, list[str], list[tables.RowGroup], Offer] | None
    """A caption, column titles, groups of rows, and the table's data."""

    @property
    def folds(self) -> list[tuple[str, list[PageFigure]]]:
        """Consecutive figures by the heading under which they are folded; the heading is empty if they are visible."""
        return [(fold, list(group)) for fold, group in groupby(self.figures, lambda figure: figure.spec.fold)]


@dataclass(frozen=True, kw_only=True)
class FigureSection:
    """One section of a page that holds figures alone."""

    id: str
    title: str
    lead: str
    figures: list[PageFigure]
    missing: str = ""
    """Text shown if there is nothing to draw."""


@checked
def render_report(run: str | Path, out: str | Path | None = None) -> Path:
    """Write the report of a finished run and return its path.

    The page holds the claims table, every figure of `run_figures.sections` whose table the run has, example images,
    attention views and the run's provenance. It is one file that requests nothing, written atomically.

    Args:
        run: folder of the run, with at least the files of `run_results.REQUIRED`.
        out: path of the page; `report.html` in the run's folder when None.

    Raises:
        FileNotFoundError: the run is not finished: a file that every report needs is missing.
        ValueError: a file cannot be read, or a table cannot be drawn.
    """
    opened = read_run(run)
    return write_whole(Path(out) if out is not None else opened.path / "report.html", report_html(opened))


def report_html(run: RunResults) -> str:
    """Return the text of the whole page."""
    views = {  # read before anything is drawn: what cannot be read is named at once
        "examples": _examples(run),
        "attention": _attention(run),
        "explorer": run.view("explorer"),
        "lens": lens_of_run(run),
    }
    offers = Offers()
    forest = next(iter(_page_figures(run, (CLAIMS,), offers)), None)
    parts = [_page_section(run, section, offers) for section in sections(run)]
    figures = [figure for part in parts for figure in part.figures]
    return render(
        "report.html.j2",
        run=run,
        summary=summary(run),
        tally=tally(run.claims),
        claims=claim_rows(run.claims),
        questions=claim_rows(run.questions),
        forest=forest,
        shown_in={
            claim["id"]: [(figure.spec.id, figure.title) for figure in figures if bears_on(figure.spec, claim["id"])]
            for claim in [*run.claims, *run.questions]
        },
        sections=parts,
        offers=list(offers.held.values()),
        features=(run.path / "features.html").is_file(),
        **views,
        config=made.rows(run.config),
        provenance=made.provenance(run),
        parquet=made.table_rows(run),
        dark=DARK,
        **embedded("plotly.js", "circuitsvis"),
    )


def page_figure(found: RunFigure, offers: Offers, bears: Sequence[str] = ()) -> PageFigure:
    """Return a figure for the page, whose own heading replaces the figure's title.

    Args:
        found: the figure, its data and its paragraphs.
        offers: tables of the page, to which the figure's data are added.
        bears: ids of the claims that the figure concerns.
    """
    figure, spec = found.figure, found.spec
    title, height = str(figure.layout.title.text), int(figure.layout.height)
    room = min(32, int(figure.layout.margin.t))
    figure.update_layout(title=None, margin_t=figure.layout.margin.t - room, height=height - room)
    return PageFigure(
        spec=spec,
        title=title,
        reading=found.reading,
        height=height - room,
        plotly_json=figure_spec(figure),
        offer=offers.add(spec.id if spec.summarise else spec.table, title, found.table),
        bears=[(claim, claim.replace("_", " ")) for claim in bears],
    )


def bears_on(spec: FigureSpec, claim: str) -> bool:
    """Return whether a figure concerns the claim with this id."""
    return claim.startswith(spec.claims) if spec.claims else False


def _page_section(run: RunResults, section: Section, offers: Offers) -> PageSection:
    figures = _page_figures(run, section.figures, offers)
    there = {figure.spec.id for figure in figures}
    missing = [spec for spec in section.figures if spec.id not in there]
    return PageSection(section=section, figures=figures, missing=missing, table=_table(run, section, offers))


def _page_figures(run: RunResults, specs: Sequence[FigureSpec], offers: Offers) -> list[PageFigure]:
    """Return those plots that can be drawn."""
    found = [draw_figure(run, spec) for spec in specs]
    ids = [str(claim["id"]) for claim in [*run.claims, *run.questions]]
    return [page_figure(one, offers, [id for id in ids if bears_on(one.spec, id)]) for one in found if one is not None]


def _table(
    run: RunResults, section: Section, offers: Offers
) -> tuple[str, list[str], list[tables.RowGroup], Offer] | None:
    """Return the section's numbers as a table: Table 1, or the SAEs' quality."""
    if section.id == "performance":
        caption = (
            "Table 1: every model on each family's strongest corruption. After each value, half its 95% bootstrap "
            "interval; the best value of each column is bold."
        )
        summary_table = run.table("performance_summary")
        return caption, *tables.table_one(summary_table), offers.add("performance_summary", "Table 1", summary_table)
    if section.id == "saes" and run.has("sae_quality"):
        caption = (
            "Quality of each SAE, loaded from its published folder. Recovered: how good the model is with the "
            "reconstruction in place of its residual stream, from 0 (as bad as with zeros) to 1 (as good as untouched)."
        )
        quality = run.table("sae_quality")
        return caption, *tables.sae_quality(quality), offers.add("sae_quality", "the SAEs’ quality", quality)
    return None


def _examples(run: RunResults) -> dict[str, Any] | None:
    """Return a grid of pictures, one row per example image and one column per corruption, or None without images."""
    listed, arrays = run.examples()
    if not listed:
        return None
    corruptions = in_order(key.partition("/")[2] for key in arrays)
    rows = [
        (str(about["label"]), [picture_uri(arrays[f"{about['image_id']}/{corruption}"]) for corruption in corruptions])
        for about in listed
    ]
    side = next(iter(arrays.values())).shape[-1]
    return {
        "titles": [title_of(key, short=True) for key in corruptions],
        "names": [title_of(key) for key in corruptions],
        "rows": rows,
        "coarse": side < COARSE,
        "side": side,
    }


def _attention(run: RunResults) -> dict[str, Any] | None:
    """Return one image's attention, clean and corrupted, base and tuned, a set per corruption; None without any."""
    about, patterns = run.attention()
    if not patterns:
        return None
    _, pictures = run.examples()
    grid, prefix = (int(about["grid"][0]), int(about["grid"][1])), int(about["n_prefix_tokens"])
    panels: list[AttentionPanel] = []
    places: dict[str, int] = {}
    sets: dict[str, list[int]] = {}
    most = max_tokens(next(iter(patterns.values())).shape[1])
    for corruption in (key for key in in_order(about["corruptions"]) if key != "clean"):
        chosen = [model for model in ("base", corruption) if model in about["models"]]
        for key in (f"{model}/{condition}" for model in chosen for condition in ("clean", corruption)):
            if key not in places:
                model, _, condition = key.partition("/")
                picture = pictures.get(f"{about['image_id']}/{condition}")
                places[key] = len(panels)
                panels.append(
                    AttentionPanel(
                        title=f"{tuned_title(model)}, {'clean' if condition == 'clean' else title_of(condition)} image",
                        patterns=pool_patterns(patterns[key], grid, prefix, most),
                        picture=None if picture is None else picture_uri(picture),
                    )
                )
            sets.setdefault(title_of(corruption), []).append(places[key])
    layers, heads = panels[0].patterns.shape[:2]
    view = AttentionView(
        panels=tuple(panels),
        tokens=tuple(token_names(grid, about.get("prefix", prefix), most)),
        grid=pooled_grid(grid, prefix, most),
        layers=tuple(range(layers)),
        heads=tuple(range(heads)),
    )
    return {"label": str(about["label"]), "spec": attention_spec(view, sets), "pooled": view.grid != grid}


def lens_of_run(run: RunResults) -> dict[str, Any] | None:
    """Return the patch lens of a run's pictures; None without any."""
    found = run.view("lens")
    return found and {"spec": found["spec"], "figures": [escaped_json(figure) for figure in found["figures"]]}


def max_tokens(heads: int) -> int:
    """Return the tokens at which circuitsvis draws four panels in two or three seconds: 35 with 12 heads."""
    return int(50 * math.sqrt(6 / heads))
