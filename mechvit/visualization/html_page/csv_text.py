"""Tidy tables as CSV text, safe to open in a spreadsheet."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters of text cells that a spreadsheet would evaluate as a formula."""


def csv_text(frame: pd.DataFrame) -> str:
    """Return a table as CSV (RFC 4180), with the columns' names in the first line.

    Numbers are written so that they read back exactly. A text cell that a spreadsheet would evaluate as a formula is
    preceded by an apostrophe (OWASP, CSV Injection); numbers, including negative ones, stay numbers.
    """
    safe = frame.rename(columns=lambda name: _inert(str(name)))
    for place, kind in enumerate(safe.dtypes):
        if kind.kind not in "biufcmM":
            safe.isetitem(place, safe.iloc[:, place].map(_inert, na_action="ignore"))
    return str(safe.to_csv(index=False, lineterminator="\r\n"))


def _inert(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell
