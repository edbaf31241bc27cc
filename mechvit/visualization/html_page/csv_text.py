"""Tidy tables as CSV text, safe to open in a spreadsheet."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A text cell that begins with one of these would be computed by a spreadsheet."""


def csv_text(frame: pd.DataFrame) -> str:
    """A table as CSV (RFC 4180), one row a line under the columns' names.

    Numbers are written so that they read back as the same numbers. A text cell that a spreadsheet would take for a
    formula gets an apostrophe in front (OWASP, CSV Injection); numbers, negative ones too, stay numbers.
    """
    safe = frame.rename(columns=lambda name: _inert(str(name)))
    for place, kind in enumerate(safe.dtypes):
        if kind.kind not in "biufcmM":
            safe.isetitem(place, safe.iloc[:, place].map(_inert, na_action="ignore"))
    return str(safe.to_csv(index=False, lineterminator="\r\n"))


def _inert(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell
