"""Figures restyled for a paper: width, sizes of text, panels that fit, the same numbers."""

from __future__ import annotations

import json

import numpy as np
import plotly.graph_objects as go
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plotly.subplots import make_subplots

from mechvit.visualization.export.print_layout import INCH, PAPER_COLUMNS, for_paper
from mechvit.visualization.export.print_panels import folded, lines_of, panels_of, wrapped
from mechvit.visualization.report.run_figures import figures_of_run
from mechvit.visualization.report.sections import CLAIMS, SECTIONS
from mechvit.visualization.style import finish

SPECS = [CLAIMS, *(spec for section in SECTIONS for spec in section.figures)]
POINT = 96 / 72


@pytest.fixture(scope="module")
def figures(run) -> dict[str, go.Figure]:
    return {drawn.spec.id: drawn.figure for drawn in figures_of_run(run)}


def values(figure: go.Figure) -> list[object]:
    return [(trace.type, trace.x, trace.y, getattr(trace, "z", None)) for trace in figure.data]


@pytest.mark.parametrize("column", PAPER_COLUMNS)
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.id)
def test_every_figure_fits_its_column(figures, spec, column):
    before = json.loads(figures[spec.id].to_json())
    drawn = for_paper(figures[spec.id], column)
    assert json.loads(figures[spec.id].to_json()) == before  # the page's figure stays
    assert drawn.layout.width == round(PAPER_COLUMNS[column].inches * INCH)
    assert 60 < drawn.layout.height < 9.5 * INCH  # less than a page
    assert drawn.layout.title.text is None
    for (kind, *own), (other, *same) in zip(values(figures[spec.id]), values(drawn), strict=True):
        assert kind == other
        for a, b in zip(own, same, strict=True):
            np.testing.assert_array_equal(a, b)
    sizes = [axis.tickfont.size for axis in (*drawn.select_xaxes(), *drawn.select_yaxes())]
    sizes += [axis.title.font.size for axis in drawn.select_xaxes()] + [
        note.font.size for note in drawn.layout.annotations
    ]
    assert min(sizes) >= 7 * POINT - 1e-9
    assert max(sizes) <= 8 * POINT + 1e-9
    panels = panels_of(drawn)
    assert 1 + max(panel.column for panel in panels) <= PAPER_COLUMNS[column].across
    boxes = [(*panel.x.domain, *panel.y.domain) for panel in panels]
    for left, right, bottom, top in boxes:
        assert 0 <= left < right <= 1
        assert -1e-9 <= bottom < top <= 1 + 1e-9
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert a[1] <= b[0] + 1e-6 or b[1] <= a[0] + 1e-6 or a[3] <= b[2] + 1e-6 or b[3] <= a[2] + 1e-6


def test_four_panels_of_two_rows_fold_into_blocks():
    figure = make_subplots(2, 4, shared_yaxes=True, subplot_titles=list("abcd"))
    for row in (1, 2):
        for col in range(1, 5):
            figure.add_trace(go.Scatter(x=[0, 1], y=[row, col]), row=row, col=col)
    figure.update_yaxes(title_text="upper", row=1, col=1)
    figure.update_yaxes(title_text="lower", row=2, col=1)
    finish(figure, "title", height=500)
    places = [(panel.row, panel.column) for panel in folded(panels_of(figure), 2)]
    assert places == [(0, 0), (0, 1), (2, 0), (2, 1), (1, 0), (1, 1), (3, 0), (3, 1)]
    drawn = for_paper(figure, "single")
    by_place = {(panel.row, panel.column): panel for panel in panels_of(drawn)}
    titles = {place: panel.title.text for place, panel in by_place.items() if panel.title is not None}
    assert [by_place[row, 0].y.title.text for row in range(4)] == ["upper", "lower", "upper", "lower"]
    assert all(by_place[row, 0].y.showticklabels for row in (2, 3))
    assert sorted(note.text for note in drawn.layout.annotations) == list("abcd")
    assert titles == {} or set(titles.values()) <= set("abcd")


def test_lines_get_thinner_and_text_is_wrapped(figures):
    page, paper = figures["class-probability"], for_paper(figures["class-probability"], "single")
    widths = [(a.line.width, b.line.width) for a, b in zip(page.data, paper.data, strict=True) if a.line.width]
    assert widths
    assert all(thin == pytest.approx(max(0.7, 0.6 * wide)) for wide, thin in widths)
    assert lines_of(paper.layout.yaxis.title.text) > 1


@settings(max_examples=60)
@given(st.lists(st.text("abcdefgh–", min_size=1, max_size=12), min_size=1, max_size=8), st.floats(40, 400))
def test_wrapping_keeps_every_character(words, pixels):
    text = " ".join(words)
    lines = wrapped(text, pixels, 10)
    assert lines.replace("<br>", "").replace(" ", "") == text.replace(" ", "")
    assert wrapped(f"<b>{text}</b>", pixels, 10).startswith("<b>")


@pytest.mark.parametrize("column", PAPER_COLUMNS)
def test_a_maps_colours_are_explained_below_it(figures, column):
    drawn = for_paper(figures["transfer"], column)
    (heat,) = drawn.data
    assert heat.colorbar.title.text.replace("<br>", " ") == "change over the base, percentage points (positive: better)"
    assert lines_of(heat.colorbar.title.text) == (2 if column == "single" else 1)
    assert (heat.colorbar.tickfont.size, heat.colorbar.title.font.size) == pytest.approx((7 * POINT, 8 * POINT))
    assert drawn.layout.margin.b >= 24 + 7 * POINT + lines_of(heat.colorbar.title.text) * 8 * POINT
    assert (drawn.layout.xaxis.title.text, drawn.layout.yaxis.title.text) == ("tested on", "trained on")
    names = max(lines_of(text) for text in drawn.layout.xaxis.ticktext)
    assert drawn.layout.margin.t >= names * 7 * POINT + 8 * POINT


def test_training_curves_say_what_they_measure(figures):
    titles = {
        note.text.replace("<br>", " ") for note in for_paper(figures["sae-training"], "single").layout.annotations
    }
    assert {"<b>Explained variance (fraction)</b>", "<b>L0 (active latents per token)</b>"} <= titles
    assert all("(" in title for title in titles)


def test_an_unknown_column_is_named(figures):
    with pytest.raises(ValueError, match="column must be one of single, double; got 'triple'"):
        for_paper(figures["gains"], "triple")
