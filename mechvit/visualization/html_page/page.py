"""Parts of a self-contained page: escaped JSON, inlined scripts, pictures, and atomic writing."""

from __future__ import annotations

import base64
import html
import importlib.util
import io
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import UInt8
from markupsafe import Markup

from mechvit.arguments import checked
from mechvit.files import is_signed, write_signed

CSP = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; "
    "form-action 'none'; base-uri 'none'"
)
"""Content security policy of every page: nothing is requested or sent, and only the page's own inline code runs."""


def json_text(value: object) -> Markup:
    """Return a value as JSON that is safe inside a script element.

    Raises:
        ValueError: a number is not finite (JSON has none).
        TypeError: an object cannot be written as JSON.
    """
    return escaped_json(json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")))


def escaped_json(text: str) -> Markup:
    """Make JSON safe inside a script element: `<`, `>`, `&` and the two line separators become JSON escapes."""
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def script_text(source: str) -> Markup:
    """Return JavaScript that is safe inside a script element: `</script` and `<!--` are escaped."""
    return Markup(source.replace("</script", "<\\/script").replace("<!--", "<\\!--"))


def asset(name: str) -> Markup:
    """Return the text of one of this package's style sheets, scripts or licences."""
    return Markup(resources.files(__package__).joinpath("templates", name).read_text(encoding="utf-8"))


@cache
def circuitsvis_script() -> Markup:
    """Return the circuitsvis bundle (with React, tfjs, Chart.js) from the installed wheel, without importing it."""
    spec = importlib.util.find_spec("circuitsvis")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("attention views need circuitsvis: pip install 'circuitsvis>=1.43,<2'")
    bundle = Path(spec.submodule_search_locations[0], "dist", "cdn", "iife.js")
    return script_text(bundle.read_text(encoding="utf-8"))


@cache
def plotly_script() -> Markup:
    """Return plotly.js from the installed wheel."""
    from plotly.offline import get_plotlyjs

    return script_text(get_plotlyjs())


def picture_uri(pixels: UInt8[np.ndarray, "3 height width"], **options: Any) -> str:
    """Return a picture as a WebP data URI, lossless up to 96 pixels per side (noise at 224 would take 150 kB).

    Args:
        options: changes to Pillow's options for WebP.
    """
    from PIL import Image

    buffer = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    picture.save(buffer, "WEBP", **{"lossless": max(picture.size) <= 96, "quality": 90, **options})
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def render(template: str, **values: object) -> str:
    """Fill one of the package's templates; every value that is not `Markup` is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(__package__, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(csp=CSP, asset=asset, json_text=json_text, **values)


def write_whole(path: Path, text: str) -> Path:
    """Write a page under a temporary name, with the hash of its text at its end, and rename it into place.

    Raises:
        ValueError: as in `check_page`: there is a file that this package did not write, or a page that was edited.
    """
    check_page(path)
    write_signed(path, text)
    return path


def check_page(path: str | os.PathLike[str]) -> Path:
    """Refuse, before a page is made, a path that it could not be written to.

    Raises:
        ValueError: the name is empty or a folder's, or there is a file that this package did not write or that was
            edited.
    """
    place = Path(path).expanduser()
    if not os.fspath(path).strip() or place.is_dir():
        raise ValueError(f"a page must be a file's name, as in page.html; got {os.fspath(path)!r}")
    real = place.resolve()
    if os.path.lexists(real) and not (real.is_file() and is_signed(real)):
        raise ValueError(
            f"{path} exists and is no page that mechvit wrote, or was edited since: give another name, or move it away"
        )
    return place


@dataclass(frozen=True, kw_only=True)
class Page(ABC):
    """A page that a notebook displays, and that `save(path)` writes as one file."""

    title: str
    provenance: Mapping[str, str] = field(default_factory=dict)
    """Models, images and code that the page was made with, title -> text."""
    frame_height: ClassVar[int]
    """Height of a notebook's frame, in pixels."""

    @abstractmethod
    def html(self) -> str:
        """Return the whole page: self-contained and offline."""

    @checked
    def save(self, path: str | Path) -> Path:
        """Write the page and return its path."""
        return write_whole(Path(path), self.html())

    def _repr_html_(self) -> str:
        """Return the notebook's output: the page in its own frame, so that several views do not interfere."""
        look = f'width="100%" height="{self.frame_height}" style="border:0" title="{html.escape(self.title)}"'
        return f'<iframe srcdoc="{html.escape(self.html())}" {look}></iframe>'
