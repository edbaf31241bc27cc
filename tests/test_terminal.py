"""No name moves a terminal's cursor, changes its colours or turns its text around."""

from __future__ import annotations

import ast
import io
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechvit.terminal import one_line, printable, progress_bar, say, write_line

ROOT = Path(__file__).parents[1]
HOSTILE = {
    "\x1b[31mred": r"\x1b[31mred",
    "a\x07\x08b\x7f": r"a\x07\x08b\x7f",
    "\x9b2Jcleared": r"\x9b2Jcleared",
    "\x1b]0;title\x07": r"\x1b]0;title\x07",
    "cat\u202egnp.exe": r"cat\u202egnp.exe",
    "\u2066isolated\u2069": r"\u2066isolated\u2069",
    "\u200e\u200f\u061c": r"\u200e\u200f\u061c",
    "a\u2028b\u2029c\x85d": r"a\u2028b\u2029c\x85d",
    "\udcff.png": r"\udcff.png",
    "\ufeffbom\xadhyphen": r"\ufeffbom\xadhyphen",
    "\U000e0041tag": r"\U000e0041tag",
    "line\nfeed\rreturn\ttab": r"line\nfeed\rreturn\ttab",
    "\0": r"\x00",
}


@pytest.mark.parametrize(("text", "shown"), HOSTILE.items())
def test_control_characters_are_written_as_escapes(text, shown):
    assert printable(text) == shown
    assert eval(f"'{shown}'") == text, "Python reads the escapes back"


@pytest.mark.parametrize("text", ["heron, shitepoke", "Käfer", "犬", "می‌خواهم", "👩‍🔬", "naïve\u0301", "a\\x1bb", ""])
def test_ordinary_names_stay_as_they_are(text):
    assert printable(text) == text


@given(st.text())
def test_nothing_that_a_terminal_acts_on_is_left(text):
    for shown in (printable(text), one_line(text)):
        left = {unicodedata.category(char) for char in shown if char not in "\u200c\u200d"}
        assert not left & {"Cc", "Cf", "Cs", "Zl", "Zp"}
        shown.encode()  # no lone surrogate


def test_an_error_of_several_lines_becomes_one():
    assert one_line("  first\n  second\r\n\tthird  ") == "first second third"
    assert one_line("a\x1b[2K\nb") == r"a\x1b[2K b"


def test_say_keeps_lines_and_escapes_the_rest():
    out = io.StringIO()
    say("table\n a\x1b[31m\tb", 3, file=out)
    assert out.getvalue() == "table\n a\\x1b[31m\tb 3\n"


def test_a_progress_bar_has_a_printable_label_and_hides_without_one():
    out = io.StringIO()
    assert list(progress_bar(range(3), "model \x1b[31m\u202e", file=out)) == [0, 1, 2]
    assert r"model \x1b[31m\u202e: 100%" in out.getvalue()
    assert "\x1b[31m" not in out.getvalue()
    hidden = io.StringIO()
    assert list(progress_bar(range(3), file=hidden)) == [0, 1, 2]
    assert hidden.getvalue() == ""


def test_nothing_else_prints_or_makes_progress_bars():
    """Every print and bar goes through `mechvit.terminal`."""
    found = set()
    for path in [
        *(ROOT / "mechvit").rglob("*.py"),
        *(ROOT / "scripts").glob("*.py"),
        *(ROOT / "benchmarks").glob("*.py"),
    ]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = path.relative_to(ROOT).as_posix()
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                found.add((name, "print"))
            if isinstance(node, ast.ImportFrom) and node.module == "tqdm.auto":
                found.add((name, "tqdm"))
    assert found == {("mechvit/terminal.py", "print"), ("mechvit/terminal.py", "tqdm")}


def test_a_line_begins_at_the_left_edge_beside_an_open_bar(capsys):
    with progress_bar(range(3), "bar") as bar:
        bar.update()
        write_line("error: out of memory")
    assert "error: out of memory" in capsys.readouterr().err.splitlines()
