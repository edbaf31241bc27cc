"""Plotly figures as compact JSON for a page's script element."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from .page import escaped_json

if TYPE_CHECKING:
    import plotly.graph_objects as go


def figure_json(figure: go.Figure) -> str:
    """Return a figure as JSON: arrays as base64 of float32, and no template."""
    from plotly.io.json import to_json_plotly

    drawn = figure.to_dict()
    drawn["layout"].pop("template", None)
    return str(to_json_plotly(_narrow(drawn)))


def figure_spec(figure: go.Figure) -> Markup:
    """Return a figure as JSON for a script element."""
    return escaped_json(figure_json(figure))


def _narrow(value: Any) -> Any:
    """Convert plotly's float64 arrays, which it writes as base64, to float32."""
    if isinstance(value, dict) and value.get("dtype") == "f8" and "bdata" in value:
        numbers = np.frombuffer(base64.b64decode(value["bdata"]), "<f8").astype("<f4")
        return {**value, "dtype": "f4", "bdata": base64.b64encode(numbers.tobytes()).decode("ascii")}
    if isinstance(value, dict):
        return {key: _narrow(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_narrow(part) for part in value]
    return value
