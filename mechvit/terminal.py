"""What reaches a terminal: names from files cannot move its cursor, change its colours or turn its text around."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from tqdm import tqdm

_JOINERS = "\u200c\u200d"
"""Format characters that names in Persian, Hindi and emoji need, and that move nothing."""
_ESCAPED = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's categories of control, format and surrogate characters, line and paragraph separators."""


def printable(text: object, *, keep: str = "") -> str:
    """Write every control character of a text as an escape, as in `\\x1b`: ANSI and C1 sequences, marks that turn the
    direction of writing, and lone surrogates (bytes of a file name that are no UTF-8).

    Args:
        text: anything; its `str`.
        keep: characters that stay, such as a newline.
    """
    return "".join(
        char.encode("unicode_escape").decode()
        if unicodedata.category(char) in _ESCAPED and char not in _JOINERS and char not in keep
        else char
        for char in str(text)
    )


def one_line(text: object) -> str:
    """Make one printable line of a text: runs of spaces, tabs and line breaks become one space."""
    return printable(" ".join(re.split(r"[ \t\r\n]+", str(text))).strip())


class NobodyReads(OSError):
    """What was found could not be printed: the reader of a pipe ended, or the disk of a file is full."""


def say(*parts: object, end: str = "\n", file: TextIO | None = None) -> None:
    """Print, with what may come from a file's or a class's name made printable; lines stay lines.

    Raises:
        NobodyReads: it could not be written.
    """
    try:
        print(*(printable(part, keep="\n\t") for part in parts), end=end, file=file or sys.stdout)
    except OSError as error:
        raise NobodyReads(error.errno, error.strerror) from error


def flush() -> None:
    """Write out what was printed.

    Raises:
        NobodyReads: it could not be written.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        raise NobodyReads(error.errno, error.strerror) from error


def write_line(line: str) -> None:
    """Print one line on stderr that begins at its left edge, whatever progress bars are open."""
    if "tqdm" in sys.modules:
        sys.modules["tqdm"].tqdm.write(line, file=sys.stderr)
    else:
        print(line, file=sys.stderr)


def progress_bar(over: Iterable[Any] | None = None, label: str | None = None, **options: Any) -> tqdm:
    """Make a progress bar with a printable label; without a label it stays hidden.

    Args:
        over: what is gone through; None where the bar is moved by hand.
        label: what stands before the bar.
        options: of `tqdm`.
    """
    from tqdm.auto import tqdm

    shown = None if label is None else printable(label)
    return tqdm(over, desc=shown, **{"disable": label is None, **options})
