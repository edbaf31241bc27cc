"""CSV that reads back as the same table, and computes nothing in a spreadsheet."""

from __future__ import annotations

import csv
import io
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechvit.visualization.html_page.csv_text import FORMULA, csv_text
from mechvit.visualization.report.table_downloads import MOST_ROWS, Offers

TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1)


@settings(max_examples=50)
@given(st.lists(st.tuples(TEXT, st.floats(allow_nan=False), st.integers(-(2**53), 2**53)), min_size=1))
def test_rows_read_back(rows):
    text = csv_text(pd.DataFrame(rows, columns=["name", "value", "n"]))
    header, *found = csv.reader(io.StringIO(text, newline=""))
    assert header == ["name", "value", "n"]
    assert len(found) == len(rows)
    for (name, value, n), read in zip(rows, found, strict=True):
        assert read[0] == (f"'{name}" if name.startswith(FORMULA) else name)
        assert float(read[1]) == value
        assert int(float(read[2])) == n


@pytest.mark.parametrize("cell", ['=HYPERLINK("http://x","y")', "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1"])
def test_formulas_are_text(cell):
    frame = pd.DataFrame({cell: [cell, "plain"], "value": [-1.5, math.nan]})
    header, first, second = csv.reader(io.StringIO(csv_text(frame), newline=""))
    assert header == [f"'{cell}", "value"]
    assert first == [f"'{cell}", "-1.5"]  # a negative number stays one
    assert second == ["plain", ""]


def test_categories_and_missing_names():
    frame = pd.DataFrame({"model": pd.Categorical(["=a", None, "b"]), "float": np.array([0.1, 2, 3], np.float32)})
    assert csv_text(frame) == "model,float\r\n'=a,0.1\r\n,2.0\r\nb,3.0\r\n"


def test_a_table_is_held_once_and_a_long_one_not_at_all():
    offers, frame = Offers(), pd.DataFrame({"a": [1, 2]})
    first, again = offers.add("small", "Figure 1", frame), offers.add("small", "Figure 2", frame)
    assert (first.id, again.id, first.rows) == ("table-small", "table-small", "2 rows")
    assert offers.held["small"].text == "a\r\n1\r\n2\r\n"
    long = offers.add("long", "Figure 3", pd.DataFrame({"a": np.zeros(MOST_ROWS + 1)}))
    assert (long.id, long.file, long.rows) == ("", "tables/long.parquet", "20,001 rows")
    assert list(offers.held) == ["small"]
