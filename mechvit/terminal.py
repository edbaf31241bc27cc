"""Output to a terminal, in which names from files cannot move the cursor, change colours or reverse text."""

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
"""Unicode categories of control, format and surrogate characters, and line and paragraph separators."""


def printable(text: object, *, keep: str = "") -> str:
    r"""Return a text with every control character escaped, as in `\x1b`.

    These are ANSI and C1 sequences, marks that change the direction of writing, and lone surrogates (bytes of a file
    name that are not UTF-8).

    Args:
        text: any object; its `str` is used.
        keep: characters that stay, such as a newline.
    """
    return "".join(
        char.encode("unicode_escape").decode()
        if unicodedata.category(char) in _ESCAPED and char not in _JOINERS and char not in keep
        else char
        for char in str(text)
    )


def one_line(text: object) -> str:
    """Return a text as one printable line: runs of spaces, tabs and line breaks become one space."""
    return printable(" ".join(re.split(r"[ \t\r\n]+", str(text))).strip())


class NobodyReads(OSError):
    """Error: output could not be printed, since the reader of a pipe ended or the disk of a file is full."""


def say(*parts: object, end: str = "\n", file: TextIO | None = None) -> None:
    """Print text with control characters escaped; line breaks stay.

    Raises:
        NobodyReads: the text could not be written.
    """
    try:
        print(*(printable(part, keep="\n\t") for part in parts), end=end, file=file or sys.stdout)
    except OSError as error:
        raise NobodyReads(error.errno, error.strerror) from error


def silent(line: str) -> None:
    """Print nothing, in the place of a function that prints a line."""


def flush() -> None:
    """Flush the printed output.

    Raises:
        NobodyReads: the output could not be written.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        raise NobodyReads(error.errno, error.strerror) from error


def write_line(line: str) -> None:
    """Print one line on stderr at its left edge, whatever progress bars are open."""
    if "tqdm" in sys.modules:
        sys.modules["tqdm"].tqdm.write(line, file=sys.stderr)
    else:
        print(line, file=sys.stderr)


def progress_bar(over: Iterable[Any] | None = None, label: str | None = None, **options: Any) -> tqdm:
    """Return a progress bar with a printable label; without a label it is hidden.

    Args:
        over: the iterable to follow; None if the bar is updated by hand.
        label: text before the bar.
        options: options of `tqdm`.
    """
    from tqdm.auto import tqdm

    shown = None if label is None else printable(label)
    return tqdm(over, desc=shown, **{"disable": label is None, **options})
