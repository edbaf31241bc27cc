"""A comparison as one call in Python, and its result."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechvit.arguments import checked
from mechvit.files.reading import read_object

from .config import CompareConfig
from .run import run_comparison

if TYPE_CHECKING:
    import pandas as pd

Pictures = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


@dataclass(frozen=True)
class Comparison:
    """A finished comparison: its report, and its tables."""

    folder: Path
    """Folder of the run."""

    @property
    def report(self) -> Path:
        """The report, one page."""
        return self.folder / "report.html"

    @cached_property
    def about(self) -> dict[str, Any]:
        """Facts of the comparison: models, images, heads, kinship, what was not measured."""
        return read_object(self.folder / "comparison.json")

    @property
    def tables(self) -> list[str]:
        """Names of the tables."""
        return sorted(path.stem for path in (self.folder / "tables").glob("*.parquet"))

    def table(self, name: str) -> pd.DataFrame:
        """Read one table of all pairs; the column `tuned` names the tuned model.

        Raises:
            ValueError: there is no such table; those that there are are named.
        """
        import pandas as pd

        if name not in self.tables:
            raise ValueError(f"table must be one of {', '.join(self.tables)}; got {name!r}")
        return pd.read_parquet(self.folder / "tables" / f"{name}.parquet")

    def summary(self) -> list[str]:
        """Return what differs in sentences, one paragraph for each tuned model."""
        from mechvit.visualization.comparison.page import comparison_lead

        return comparison_lead(self.folder)

    def __repr__(self) -> str:
        return f"Comparison({', '.join(self.about['tuned'])} against {self.about['base']}: {self.report})"

    def _repr_html_(self) -> str:
        """Return the notebook's output: the first paragraphs, and a link to the report."""
        paragraphs = "".join(f"<p>{html.escape(text)}</p>" for text in self.summary())
        place = html.escape(os.path.relpath(self.report))  # notebooks open what lies below their own folder
        return f'{paragraphs}<p><a href="{place}" target="_blank">{place}</a></p>'


@checked
def compare(
    base: str | os.PathLike[str],
    *tuned: str | os.PathLike[str],
    images: Pictures = "photos",
    out: str | os.PathLike[str] = "comparison",
    say: Callable[[str], None] = print,
    **settings: Any,
) -> Comparison:
    """Compare a base with models tuned from it, on any images; the same as the command `mechvit compare`.

        found = mechvit.compare("base", "tuned", images="folder:scans", conditions=("gaussian_blur_4",))
        found.table("behaviour_summary")

    Args:
        base, tuned: folders or Hub ids of the models. One in memory is saved first, with `save_pretrained`.
        images: as in `CompareConfig.images`; or a folder, a picture file, or a list of picture files.
        out: folder of the run; an interrupted one is continued.
        say: called with each line that the command would print.
        settings: other settings of `CompareConfig`, such as conditions, head, quick, limit, device.

    Raises:
        ValueError, ConnectionError, PermissionError: as in `run_comparison`; an unknown setting.
    """
    known = [name for name in CompareConfig.__dataclass_fields__ if name not in ("models", "images", "pictures", "out")]
    if unknown := [name for name in settings if name not in known]:
        raise ValueError(f"a setting is one of {', '.join(known)}; got {', '.join(unknown)}")
    models = tuple(os.fspath(model) for model in (base, *tuned))
    config = CompareConfig(models=models, out=os.fspath(out), **_images(images), **settings)
    return Comparison(run_comparison(config, say).parent)


def _images(images: Pictures) -> dict[str, Any]:
    """Return the settings that stand for what a caller gave as images.

    Raises:
        ValueError: pictures in memory, or nothing; says what it is.
    """
    if isinstance(images, (str, os.PathLike)):
        path = Path(images).expanduser()
        if path.is_dir():
            return {"images": f"folder:{path}"}
        return {"pictures": (os.fspath(path),)} if path.is_file() else {"images": os.fspath(images)}
    kinds = "photos, a folder, a Hub data set's id, or a list of picture files"
    if not isinstance(images, Sequence) or not images:
        raise ValueError(f"images must be {kinds}; got {_named(images)}")
    if other := [picture for picture in images if not isinstance(picture, (str, os.PathLike))]:
        raise ValueError(
            f"images must be {kinds}; got a list that holds {_named(other[0])}: save pictures in memory as files first"
        )
    return {"pictures": tuple(os.fspath(picture) for picture in images)}


def _named(value: object) -> str:
    """Return what a value is, for a message."""
    return "an empty list" if isinstance(value, Sequence) and not value else f"{type(value).__name__}"
