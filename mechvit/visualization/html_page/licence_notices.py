"""Notices required by the third-party scripts that a page embeds, with the full texts of the licences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .page import asset, circuitsvis_script, plotly_script


@dataclass(frozen=True)
class Notice:
    """One embedded library."""

    name: str
    licences: tuple[str, ...]
    holder: str
    inside: str
    """The embedded script that contains it."""


NOTICES = (
    Notice("plotly.js", ("MIT",), "2012–2026 Plotly, Inc.", "plotly.js"),
    Notice("D3 modules", ("ISC", "BSD-3-Clause"), "2010–2024 Mike Bostock", "plotly.js"),
    Notice("TopoJSON", ("ISC",), "2012–2019 Mike Bostock", "plotly.js"),
    Notice("MapLibre GL JS", ("BSD-3-Clause",), "2023 MapLibre contributors, 2020 Mapbox", "plotly.js"),
    Notice("regl and stack.gl modules", ("MIT",), "2013–2016 Mikola Lysenko", "plotly.js"),
    Notice("buffer, pad-left, repeat-string", ("MIT",), "Feross Aboukhadijeh; Jon Schlinkert", "plotly.js"),
    Notice("ieee754", ("BSD-3-Clause",), "2008 Fair Oaks Labs, Inc.", "plotly.js"),
    Notice("CircuitsVis", ("MIT",), "2022 Alan Cooney", "circuitsvis"),
    Notice("React, React DOM and scheduler", ("MIT",), "Facebook, Inc. and its affiliates", "circuitsvis"),
    Notice("TensorFlow.js", ("Apache-2.0",), "Google LLC", "circuitsvis"),
    Notice("long.js", ("Apache-2.0",), "Daniel Wirtz", "circuitsvis"),
    Notice("Chart.js", ("MIT",), "2014–2022 Chart.js contributors", "circuitsvis"),
    Notice("chartjs-chart-matrix", ("MIT",), "2019–2023 Jukka Kurkela", "circuitsvis"),
    Notice("react-chartjs-2", ("MIT",), "Jeremy Ayerst", "circuitsvis"),
    Notice("react-grid-system", ("MIT",), "Sealninja", "circuitsvis"),
    Notice("Popper, react-popper and react-popper-tooltip", ("MIT",), "their contributors", "circuitsvis"),
    Notice("colord, tinycolor2, seedrandom, prop-types, react-fast-compare", ("MIT",), "their authors", "circuitsvis"),
)


def embedded(*scripts: str) -> dict[str, Any]:
    """Return what a template needs of embedded scripts, `plotly.js` or `circuitsvis`: their text, and what is owed."""
    owed = notices(*scripts)
    texts = {"plotly.js": plotly_script, "circuitsvis": circuitsvis_script}
    values = {name.removesuffix(".js"): texts[name]() for name in scripts}
    return {**values, "notices": owed, "licences": licences(owed)}


def notices(*scripts: str) -> list[Notice]:
    """Return the notices for everything inside these embedded scripts, `plotly.js` or `circuitsvis`."""
    return [notice for notice in NOTICES if notice.inside in scripts]


def licences(owed: list[Notice]) -> dict[str, str]:
    """Return the full text of every licence in these notices, by name."""
    names = {name for notice in owed for name in notice.licences}
    return {name: asset(f"{name.lower()}.txt") for name in sorted(names)}
