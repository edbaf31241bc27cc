"""Tables that a page offers as CSV beside its figures, each stored in the page once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mechvit.visualization.html_page.csv_text import csv_text

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS = 20_000
"""Number of rows above which a table is left out of the page, which would become slow with tens of megabytes."""


@dataclass(frozen=True, kw_only=True)
class Offer:
    """One table under one figure."""

    title: str
    """Title of the figure or table that shows these data."""
    rows: str
    """Number of rows in words, as `196 rows`."""
    id: str = ""
    """Id of the element that holds it; empty if the page does not."""
    file: str = ""
    """Path of the table beside the page, if the page does not hold it."""


@dataclass(frozen=True, kw_only=True)
class OfferedTable:
    """One table stored in the page."""

    id: str
    name: str
    """Name of the file, without its suffix."""
    text: str


@dataclass(frozen=True, kw_only=True)
class Offers:
    """Tables of one page, by name."""

    held: dict[str, OfferedTable] = field(default_factory=dict)

    def add(self, name: str, title: str, table: pd.DataFrame) -> Offer:
        """Offer a table, which the page stores once even if several figures show it."""
        rows = f"{len(table):,} row{'' if len(table) == 1 else 's'}"
        if len(table) > MOST_ROWS:
            return Offer(title=title, rows=rows, file=f"tables/{name}.parquet")
        if name not in self.held:
            self.held[name] = OfferedTable(id=f"table-{name}", name=name, text=csv_text(table))
        return Offer(title=title, rows=rows, id=self.held[name].id)
