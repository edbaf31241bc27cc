"""The page of a transfer run, self-contained and offline, with every number read from the run's folder."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pandas as pd

from mechvit.arguments import checked
from mechvit.visualization.figures import transfers
from mechvit.visualization.html_page.licence_notices import embedded
from mechvit.visualization.html_page.page import render, write_whole
from mechvit.visualization.style import DARK

from . import provenance_rows as made
from . import transfer_captions as readings
from .report_page import FigureSection, PageFigure, page_figure
from .run_figures import RunFigure
from .run_results import RunResults, read_run_of_page
from .sections import FigureSpec
from .table_downloads import Offers

REQUIRED = (
    "config.json",
    "provenance.json",
    *(f"tables/transfer{end}.parquet" for end in ("", "_means", "_similarity")),
)
GAINS = FigureSpec(
    id="gains",
    table="transfer",
    figure=transfers.transfer_matrix,
    reading=readings.gains,
    source="Gain",
    definition="Accuracy of the model minus the base’s on the same test images, in percentage points (blue more, "
    "orange less); bold where its paired bootstrap interval over images excludes zero. The first row is the base’s own "
    "accuracy. Intervals cover the sampling of test images, not the randomness of training.",
)
SHARES = FigureSpec(
    id="shares",
    table="transfer",
    figure=lambda table: transfers.transfer_matrix(table, "transfer"),
    reading=readings.shares,
    source="Share of the own gain",
    definition="The gain of the model in the row divided by the gain of the model that was trained on the tested "
    "corruption itself: 1 means as much, 0 nothing. Empty where no model was trained on the tested corruption, or "
    "that model’s gain is not clearly positive.",
)
MEANS = FigureSpec(
    id="means",
    table="transfer_means",
    figure=transfers.transfer_means,
    reading=readings.means,
    source="Means",
    definition="Left: the mean gain over pairs of a training and a tested corruption (number of pairs in brackets). "
    "Right: the sum of these gains divided by the sum of the gains of the models trained on the tested corruptions "
    "themselves, over pairs where the latter is clearly positive. Groups are ImageNet-C’s. Bands are thirds of the "
    "frequencies up to half a cycle per pixel; a corruption is in the band of the centroid of what it changes. Bars "
    "are paired bootstrap intervals over images.",
)


@checked
def render_transfer(run: str | Path, out: str | Path | None = None) -> Path:
    """Write the page of a finished transfer run and return its path.

    It is one file that requests nothing, written atomically.

    Args:
        run: folder of the run, with at least the files of `REQUIRED`.
        out: path of the page; `transfer.html` in the run's folder when None.

    Raises:
        FileNotFoundError: the run is not finished: a file that the page needs is missing.
        ValueError: a table cannot be drawn.
    """
    opened = read_run_of_page(Path(run), "the page of a transfer run", REQUIRED)
    offers = Offers()
    text = render(
        "transfer.html.j2",
        run=opened,
        lead=readings.lead(opened.table("transfer_means")),
        sections=_sections(opened, offers),
        offers=offers.held.values(),
        config=made.rows(opened.config),
        provenance=made.provenance(opened),
        parquet=made.table_rows(opened),
        dark=DARK,
        **embedded("plotly.js"),
    )
    return write_whole(Path(out) if out is not None else opened.path / "transfer.html", text)


def _sections(run: RunResults, offers: Offers) -> list[FigureSection]:
    matrix, means, similarity = (run.table(f"transfer{end}") for end in ("", "_means", "_similarity"))
    return [
        FigureSection(
            id="matrix",
            title="The matrix",
            lead="One model for each corruption (rows), tested under every one (columns).",
            figures=[_figure(GAINS, matrix, offers), _figure(SHARES, matrix, offers)],
        ),
        FigureSection(
            id="relations",
            title="Within and across",
            lead="Does the gain transfer between the filters of one group, and between groups?",
            figures=[_figure(MEANS, means, offers)],
        ),
        FigureSection(
            id="spectra",
            title="Spectra",
            lead="Does transfer depend on which spatial frequencies the corruptions change?",
            figures=[_figure(_similarity(matrix), similarity, offers)] if len(similarity) else [],
            missing="" if len(similarity) else "Left out: at least three corruptions are needed.",
        ),
    ]


def _similarity(matrix: pd.DataFrame) -> FigureSpec:
    """Return the scatter plot of the matrix's pairs, captioned from the table of correlations."""
    return FigureSpec(
        id="similarity",
        table="transfer_similarity",
        figure=partial(transfers.transfer_similarity, matrix),
        reading=readings.similarity,
        source="Spectra",
        definition="The distance of two corruptions is the first Wasserstein distance of the radial power spectra of "
        "their changes, each scaled to sum to 1. ρ is Spearman’s; p is from permutations of the corruptions, since "
        "pairs that share one are not independent (Mantel).",
    )


def _figure(spec: FigureSpec, table: pd.DataFrame, offers: Offers) -> PageFigure:
    return page_figure(
        RunFigure(spec=spec, figure=spec.figure(table), table=table, reading=spec.reading(table)), offers
    )
