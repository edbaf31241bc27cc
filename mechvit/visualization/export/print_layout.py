"""Restyling of a page's figure for print: a column's width in inches, 8 pt text, thin lines, no title."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mechvit.visualization.style import PAPER

from .print_panels import LABEL, LINE, PAGE, TICK, Panel, folded, lines_of, panels_of, text_width, wrapped

if TYPE_CHECKING:
    import plotly.graph_objects as go

INCH = 96
"""Pixels per inch."""
FONT = "Arial, Helvetica, 'Liberation Sans', sans-serif"
THIN = 0.6
"""Factor from the page's line widths and marker sizes to those in print."""


SYMBOL = 58
"""Pixels that plotly reserves for a legend's symbol and the gaps around it."""


@dataclass(frozen=True, kw_only=True)
class PaperColumn:
    """Width of a figure in a paper."""

    inches: float
    across: int
    """Largest number of panels side by side."""


PAPER_COLUMNS = {"single": PaperColumn(inches=3.375, across=2), "double": PaperColumn(inches=7.0, across=4)}
"""One column and both columns of a two-column paper (3.25 to 3.5 inches, and about 7)."""


def for_paper(figure: go.Figure, column: str) -> go.Figure:
    """Return the figure at a paper's width; the given one is not changed.

    Panels that do not fit side by side are placed below each other, long labels are wrapped, and the height follows
    from the content: a panel keeps its shape, with room for every category's name.

    Args:
        figure: a figure drawn by `mechvit.visualization.figures`.
        column: `single` or `double`.

    Raises:
        ValueError: the column is unknown.
    """
    import plotly.graph_objects as go

    if column not in PAPER_COLUMNS:
        raise ValueError(f"column must be one of {', '.join(PAPER_COLUMNS)}; got {column!r}")
    place = PAPER_COLUMNS[column]
    drawn = go.Figure(figure)
    before = panels_of(drawn)
    panels = folded(before, place.across)
    _restyle(drawn)
    room = figure.layout.height - figure.layout.margin.t - figure.layout.margin.b
    _repeat_labels(panels, 1 + max(panel.row for panel in before))
    _lay_out(drawn, panels, place.inches * INCH, room)
    return drawn


def _restyle(figure: go.Figure) -> None:
    """Set the fonts, line widths and marker sizes of print."""
    figure.update_layout(
        title=None,
        font={"family": FONT, "size": LABEL},
        paper_bgcolor=PAPER,
        legend_font_size=TICK,
        legend_tracegroupgap=0,
    )
    small: dict[str, Any] = {"tickfont": {"size": TICK, "family": FONT}, "title_font": {"size": LABEL, "family": FONT}}
    figure.update_xaxes(**small, ticklen=2.5, title_standoff=4, linewidth=0.8)
    figure.update_yaxes(**small, ticklabelstandoff=2, title_standoff=4, gridwidth=0.6)
    figure.update_annotations(font={"family": FONT, "size": LABEL})
    for trace in figure.data:
        for name in ("line.width", "marker.size", "marker.line.width", "error_x.thickness", "error_y.thickness"):
            *path, last = name.split(".")
            part: Any = trace
            for step in path:
                part = getattr(part, step, None) if part is not None else None
            value = getattr(part, last, None) if part is not None else None
            if isinstance(value, (int, float)) and value > 0:
                setattr(part, last, max(0.7, value * THIN))
        if trace.type == "heatmap":
            trace.update(textfont={"size": TICK, "family": FONT}, xgap=1.5, ygap=1.5)


def _repeat_labels(panels: list[Panel], rows: int) -> None:
    """Copy the labels of the first block's left axes to each block of `rows` rows that was folded below it."""
    left = {panel.row: panel.y for panel in panels if panel.column == 0}
    for row, axis in left.items():
        if row >= rows:
            axis.showticklabels = True
            axis.title.text = axis.title.text or left[row % rows].title.text


def _lay_out(figure: go.Figure, panels: list[Panel], width: float, room: float) -> None:
    """Set every panel's domain and the figure's margins and height, computed in pixels and converted to shares."""
    rows, columns = (1 + max(getattr(panel, name) for panel in panels) for name in ("row", "column"))
    own = [any(p.column == c and p.y.showticklabels is not False for p in panels) for c in range(columns)]
    title_lines = 1
    for _ in range(2):  # a title's lines take width, which determines the height at which it is wrapped
        lefts = [_left(panels, 0, width, title_lines)]
        lefts += [_left(panels, column, width, 0) if own[column] else 12 for column in range(1, columns)]
        wide = (width - sum(lefts) - 8) / columns
        heights = [max(_height(p, wide, room) for p in panels if p.row == row) for row in range(rows)]
        for panel in panels:
            panel.y.title.text = wrapped(panel.y.title.text, heights[panel.row] + 8, LABEL)
        title_lines = max((lines_of(panel.y.title.text) for panel in panels), default=0)
    for panel in panels:
        _label(panel, wide, lefts[0])
    above = [max(_above(p) for p in panels if p.row == row) for row in range(rows)]
    below = [max(_below(p) for p in panels if p.row == row) for row in range(rows)]
    across = width - lefts[0] - 8
    legend = _legend(figure, across)
    below[-1] += _bar(figure, across)
    inner = sum(heights) + sum(above[1:]) + sum(below[:-1])
    total = inner + above[0] + below[-1] + legend
    for panel in panels:
        left = sum(lefts[1 : panel.column + 1]) + panel.column * wide
        top = sum(heights[: panel.row]) + sum(above[1 : panel.row + 1]) + sum(below[: panel.row])
        panel.x.domain = [left / across, min(1.0, (left + wide) / across)]
        panel.y.domain = [max(0.0, 1 - (top + heights[panel.row]) / inner), 1 - top / inner]
        if panel.title is not None:
            gap = 16 if panel.x.side == "top" else 2
            panel.title.update(x=sum(panel.x.domain) / 2, y=panel.y.domain[1], yshift=gap)
    margin = {"l": lefts[0], "r": 8, "t": above[0] + legend, "b": below[-1], "pad": 0}
    figure.update_layout(width=round(width), height=round(total), margin=margin)
    figure.update_xaxes(automargin=False)
    figure.update_yaxes(automargin=False)


def _left(panels: list[Panel], column: int, width: float, title_lines: int) -> float:
    """Return the pixels for the names or numbers along y and the title beside them."""
    mine = [panel for panel in panels if panel.column == column]
    names = [wrapped(name, 0.38 * width, TICK) for panel in mine for name in panel.categories[1]]
    return 10 + (text_width(names, TICK) if names else 4.5 * TICK * 0.55) + title_lines * LABEL * LINE


def _height(panel: Panel, wide: float, room: float) -> float:
    """Return the height in pixels: the panel's shape on the page, with room for every name along y."""
    shape = panel.height * room * min(0.8, wide / (panel.width * 0.88 * PAGE))
    names = [wrapped(name, 0.38 * 324, TICK) for name in panel.categories[1]]
    if names:
        return max(min(shape, 24 * len(names)), sum(lines_of(name) * TICK * 1.1 + 4 for name in names))
    return max(shape, 94)


def _label(panel: Panel, wide: float, left: float) -> None:
    """Wrap the text along the panel, and thin out ticks that would overlap."""
    panel.x.title.text = wrapped(panel.x.title.text, wide + 8, LABEL)
    if panel.title is not None:
        panel.title.text = wrapped(panel.title.text, wide, LABEL)
    for axis, names, pixels in zip(
        (panel.x, panel.y), panel.categories, (wide / max(1, len(panel.categories[0])), left - 10), strict=True
    ):
        if names:
            places = axis.tickvals if axis.tickvals is not None else names
            axis.update(tickvals=places, ticktext=[wrapped(name, pixels, TICK) for name in names], tickangle=0)
    step = panel.x.dtick
    if isinstance(step, (int, float)) and not panel.categories[0]:
        panel.x.dtick = step * max(1, -(-int(panel.reach / step) // max(2, int(wide / (2.4 * TICK)))))


def _above(panel: Panel) -> float:
    ticks = max(map(lines_of, panel.x.ticktext or ("",))) * TICK * LINE + 4 if panel.x.side == "top" else 0
    titles = [panel.title.text if panel.title is not None else None]
    if panel.x.side == "top":
        titles.append(panel.x.title.text)
    return 6 + ticks + sum(map(lines_of, titles)) * LABEL * LINE


def _below(panel: Panel) -> float:
    if panel.x.side == "top":
        return 4
    ticks = 0 if panel.x.showticklabels is False else max(map(lines_of, panel.x.ticktext or ("",)), default=1) or 1
    title = lines_of(panel.x.title.text)
    return 4 + ticks * TICK * LINE + (title * LABEL * LINE + 5 if title else 0)


def _bar(figure: go.Figure, width: float) -> float:
    """Wrap a map's colour bar; return the height in pixels below the map, of names of groups and the bar."""
    bars = [trace.colorbar for trace in figure.data if trace.type == "heatmap" and trace.coloraxis is None]
    names = any(note.yref == "paper" and note.y < 0 for note in figure.layout.annotations)
    for bar in bars:
        bar.update(thickness=7, ypad=4, tickfont={"size": TICK, "family": FONT})
        bar.title.update(text=wrapped(bar.title.text, width, LABEL), font={"size": LABEL, "family": FONT})
    height = max((24 + TICK * LINE + lines_of(bar.title.text) * LABEL * LINE for bar in bars), default=0)
    return height + (LABEL * LINE + 4 if names else 0)


def _legend(figure: go.Figure, width: float) -> float:
    """Place the legend on top and return the height of its rows in pixels; plotly lays them out in the plot's width."""
    named = [trace for trace in figure.data if trace.showlegend is not False and trace.name]
    if figure.layout.showlegend is False or not named:
        figure.update_layout(showlegend=False)
        return 2
    entry = text_width([trace.name for trace in named], TICK) + 8
    rows = -(-len(named) // max(1, int(width / (entry + SYMBOL))))
    legend = {"x": 0, "xref": "container", "y": 1, "yref": "container", "xanchor": "left", "yanchor": "top"}
    figure.update_layout(legend={**legend, "entrywidth": entry, "itemwidth": 30, "orientation": "h"})
    return rows * 19 + 6
