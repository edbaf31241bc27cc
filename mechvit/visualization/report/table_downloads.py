"""The tables that a page offers as CSV beside its figures, each in the page once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mechvit.visualization.html_page.csv_text import csv_text

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS = 20_000
"""Longer tables stay beside the page: a page of tens of megabytes would be slow for everybody."""


@dataclass(frozen=True, kw_only=True)
class Offer:
    """One table under one figure."""

    title: str
    """What it is the data of."""
    rows: str
    """`196 rows`."""
    id: str = ""
    """Of the element that holds it; empty where the page does not."""
    file: str = ""
    """Where it lies instead."""


@dataclass(frozen=True, kw_only=True)
class OfferedTable:
    """One table in the page."""

    id: str
    name: str
    """Of the file, without its ending."""
    text: str


@dataclass(frozen=True, kw_only=True)
class Offers:
    """The tables of one page, by name."""

    held: dict[str, OfferedTable] = field(default_factory=dict)

    def add(self, name: str, title: str, table: pd.DataFrame) -> Offer:
        """Offer a table, which the page holds once however many figures were drawn from it."""
        rows = f"{len(table):,} row{'' if len(table) == 1 else 's'}"
        if len(table) > MOST_ROWS:
            return Offer(title=title, rows=rows, file=f"tables/{name}.parquet")
        if name not in self.held:
            self.held[name] = OfferedTable(id=f"table-{name}", name=name, text=csv_text(table))
        return Offer(title=title, rows=rows, id=self.held[name].id)
