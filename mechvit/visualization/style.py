"""The visual style of all figures: one hue per corruption family, darker for more severe, unobtrusive axes.

Colours follow Okabe and Ito's palette for colour-blind readers: grey for the base model, blues for Gaussian blur,
oranges for Gaussian noise, greens for any other family. Each colour of the light theme has a counterpart in `DARK` for
dark backgrounds, where a more severe corruption is brighter.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

INK, MUTED, GRID, PAPER = "#1c1f24", "#60666e", "#e4e5e7", "#ffffff"
BASE = "#767b82"
FONT = (
    "-apple-system, Inter, 'Helvetica Neue', 'Segoe UI', Roboto, 'Liberation Sans', 'DejaVu Sans Condensed', sans-serif"
)
ATTACK_TITLES = {"pgd": "PGD", "fgsm": "FGSM"}
FAMILY_TITLES = {"gaussian_blur": "blur", "gaussian_noise": "noise"}
RAMPS: dict[str, tuple[tuple[str, str, str], tuple[str, str, str]]] = {
    "gaussian_blur": (("#6cbcec", "#1676b4", "#083a5e"), ("#2f709f", "#4fa8e2", "#a3d8fb")),
    "gaussian_noise": (("#eda93b", "#d1600d", "#772f02"), ("#99591a", "#e58b38", "#ffc685")),
    "other": (("#5fc9a6", "#048a63", "#02452f"), ("#23795d", "#37bd92", "#9fe8cf")),
}
"""Colours per family at severities 1, 2 and 4: of the light theme and of the dark theme."""
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
"""Plotly's line styles, in the order in which they are used."""


def family_of(key: str) -> str:
    """Return the family: `gaussian_blur` for `gaussian_blur_4`, `pgd@base` for `pgd_4@base`; names without a level, as
    `base`, are unchanged."""
    stem, _, level = key.rpartition("_")
    level, at, victim = level.partition("@")
    return f"{stem}{at}{victim}" if level.isdigit() else key


def level_of(key: str) -> int:
    """Return the severity, 4 for `gaussian_blur_4`; 0 for `base`, `clean` and names without one."""
    level = key.rpartition("_")[2].partition("@")[0]
    return int(level) if level.isdigit() else 0


def title_of(key: str, *, short: bool = False) -> str:
    """Return a name in prose: `Gaussian blur 4`, with `short` `Blur 4`, for a mixture `Blur 4 + noise 2`."""
    if "+" in key:
        return " + ".join(title_of(part, short=short) for part in key.split("+")).capitalize()
    if key in ("base", "clean"):
        return key.capitalize()
    if key.startswith("paired_"):  # the folder's name, then six digits of its path's hash
        return f"Partners in {key.removeprefix('paired_').rpartition('_h')[0]}"
    family = family_of(key)
    method, _, victim = family.partition("@")
    if method in ATTACK_TITLES and 0 < level_of(key) < 256:
        return f"{ATTACK_TITLES[method]} {level_of(key)}/255" + (f" on {victim}" if victim else "")
    name = FAMILY_TITLES.get(family, family.replace("_", " ")) if short else family.replace("_", " ")
    return f"{name.capitalize()} {level_of(key)}" if family != key else name.capitalize()


def in_sentence(key: str) -> str:
    """Return a model's or condition's name for use within a sentence; only Gauss and attacks keep their capitals."""
    title = title_of(key)
    return (
        title
        if key.startswith("gaussian") or title.startswith(tuple(ATTACK_TITLES.values()))
        else title[:1].lower() + title[1:]
    )


def in_order(keys: Iterable[str]) -> list[str]:
    """Return distinct keys in reading order: base or clean first, then by family and rising severity, mixtures last."""
    return sorted(set(keys), key=lambda key: (key not in ("base", "clean"), "+" in key, family_of(key), level_of(key)))


def families(keys: Iterable[str]) -> list[str]:
    """Return the corruption families among keys, in reading order."""
    return list(dict.fromkeys(family_of(key) for key in in_order(keys) if key not in ("base", "clean")))


def strongest(keys: Iterable[str], family: str) -> str:
    """Return the most severe key of one family."""
    return max((key for key in keys if family_of(key) == family), key=level_of)


def strongest_of_each(keys: Iterable[str]) -> list[str]:
    """Return the most severe key of each family, in reading order."""
    known = set(keys)
    return [strongest(known, family) for family in families(known)]


def tuned_title(model: str) -> str:
    """Return a model's short name: `Base`, or `Blur 4 tuned`."""
    return "Base" if model == "base" else f"{title_of(model, short=True)} tuned"


def _mix(ramp: tuple[str, str, str], level: int) -> str:
    """Return the colour at a severity, linear between the stops at 1, 2 and 4 on a log scale."""
    place = min(math.log2(max(level, 1)), 2.0)
    low = min(int(place), 1)
    pair = (ramp[low], ramp[low + 1])
    rgb = [[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in pair]
    return "#" + "".join(f"{round(a + (b - a) * (place - low)):02x}" for a, b in zip(*rgb, strict=True))


def colour(key: str, *, dark: bool = False) -> str:
    """Return the colour of a model or corruption, `#rrggbb`."""
    if key in ("base", "clean"):
        return DARK[BASE] if dark else BASE
    return _mix(RAMPS.get(family_of(key), RAMPS["other"])[dark], level_of(key))


def tint_of(model: str, models: Sequence[str]) -> str:
    """Return a model's colour for any name: that of a corruption's key, else one by its index among `models`."""
    family, _, level = model.rpartition("_")
    if model in ("base", "clean") or (family in RAMPS and level.isdigit()):
        return colour(model)
    return (BASE, *(light[1] for light, _ in RAMPS.values()))[list(models).index(model) % (1 + len(RAMPS))]


def escaped(name: object, longest: int = 60) -> str:
    """Return a name as plain text, where plotly would parse tags, shortened to what a legend can show."""
    text = str(name)
    return html.escape(text if len(text) <= longest else text[: longest - 1] + "…", quote=False)


def fade(hex_colour: str, alpha: float) -> str:
    """Return a translucent `rgba(...)` for a `#rrggbb`, for interval bands."""
    red, green, blue = (int(hex_colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha:g})"


DARK: dict[str, str] = {INK: "#e9e7e2", MUTED: "#a3a7ad", GRID: "#33373d", PAPER: "#17191d", BASE: "#a9aeb5"} | {
    _mix(light, level): _mix(dark, level) for light, dark in RAMPS.values() for level in range(1, 9)
}
"""Counterpart in the dark theme of every colour that a figure may use."""


def finish(figure: go.Figure, title: str, *, height: int = 380, legend: bool = True) -> go.Figure:
    """Apply the common style to a figure: fonts, light grid, horizontal legend on top, room for the title."""
    layout = figure.layout.to_plotly_json()
    style: dict[str, Any] = {
        "title": {"text": title, "x": 0, "xref": "paper", "y": 0.98, "yref": "container", "font": {"size": 16}},
        "font": {"family": FONT, "size": 13, "color": INK},
        "paper_bgcolor": PAPER,
        "plot_bgcolor": PAPER,
        "template": "none",
        "height": height,
        "margin": {"l": 64, "r": 16, "t": 96, "b": 56},
        "showlegend": legend,
        "legend": {"orientation": "h", "x": 0, "y": 1.13, "yanchor": "bottom", "font": {"size": 12.5}},
        "hoverlabel": {"font": {"family": FONT, "size": 12.5}},
        "hovermode": "closest",
    }
    for name in {"xaxis", "yaxis", *layout}:
        if name.startswith(("xaxis", "yaxis")):
            style[name] = _X_AXIS if name.startswith("xaxis") else _Y_AXIS
    if "annotations" in layout:
        own = {"font": {"family": FONT, "size": 13.5, "color": INK}}
        style["annotations"] = [_merged(annotation, own) for annotation in layout["annotations"]]
    figure.layout = _merged(layout, style)  # at once: plotly's update methods look up each setting, ten times slower
    return figure


_TICKS = {"tickfont": {"size": 12, "color": MUTED}, "tickcolor": MUTED}
_AXIS = {"gridcolor": GRID, "zeroline": False, "linecolor": MUTED, **_TICKS}
_AXIS_TITLE = {"font": {"size": 12.5, "color": INK}}
_X_AXIS = {"showgrid": False, "showline": True, "ticks": "outside", "ticklen": 4, "title": _AXIS_TITLE, **_AXIS}
_Y_AXIS = {
    "showgrid": True,
    "showline": False,
    "ticks": "",
    "automargin": True,
    "ticklabelstandoff": 5,
    "title": {"standoff": 10, **_AXIS_TITLE},
    **_AXIS,
}


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings with others in their place."""
    both = {name: (old.get(name), value) for name, value in new.items()}
    return {**old} | {
        name: _merged(own, value) if isinstance(own, dict) and isinstance(value, dict) else value
        for name, (own, value) in both.items()
    }


def panel_title(text: str) -> str:
    """Return a bold title for one panel of a figure."""
    return f"<b>{text}</b>"


def zero_line(figure: go.Figure, *, axis: str = "y", **place: object) -> None:
    """Draw a thin solid line at zero across one panel or all."""
    line = {"color": MUTED, "width": 1}
    (figure.add_hline if axis == "y" else figure.add_vline)(0, line=line, layer="below", **place)
