"""Pages and tables for readers that end in the SHA-256 of their text, so that an edit is known."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from .markers import listed
from .writing import beside, encoded

_END = re.compile(rb"<!-- mechvit ([0-9a-f]{64}) -->\n$")


def write_signed(path: str | os.PathLike[str], text: str) -> None:
    """Write an HTML or Markdown file with a comment at its end that holds the hash of its text.

    Raises:
        ValueError: a file lies there that this package did not write, or that was edited since; or the text holds half
            of a surrogate pair.
    """
    data = encoded(text, path)
    with beside(path, ours=is_signed) as part:
        part.write_bytes(data + signature(data))


def signature(data: bytes) -> bytes:
    """Return the comment that ends a file with this content."""
    return b"<!-- mechvit %s -->\n" % hashlib.sha256(data).hexdigest().encode()


def is_signed(path: Path) -> bool:
    """Return whether a file may be replaced: an empty one, or one of ours that nobody edited.

    Files of earlier versions hold no hash: of those only the ones that a run's folder lists may be replaced.
    """
    data = path.read_bytes()
    if not data:
        return True
    found = _END.search(data[-100:])
    return listed(path) if found is None else data.endswith(signature(data[: -len(found[0])]))
