"""Finding image files that cannot be decoded before any compute is spent on them."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from mechvit.terminal import printable, progress_bar

if TYPE_CHECKING:
    import datasets

_CHUNK = 256


def defect(image: Mapping[str, Any]) -> str | None:
    """Why an undecoded image (`{"bytes": …, "path": …}`) cannot be read, or None if it can.

    The whole file is decoded (a JPEG at an eighth of its size), so that truncation is found.
    """
    try:
        with Image.open(io.BytesIO(image["bytes"]) if image["bytes"] is not None else image["path"]) as opened:
            opened.draft("RGB", (32, 32))
            opened.load()
    except UnidentifiedImageError:
        return "is not an image"
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return f"cannot be decoded ({error})"
    return None


def readable_rows(
    rows: datasets.Dataset, order: np.ndarray, limit: int | None, bad_files: Literal["error", "skip"]
) -> list[int]:
    """The first `limit` rows of `order` whose images can be decoded.

    Args:
        rows: the columns `image` (undecoded) and `file`.

    Raises:
        ValueError: a bad file under `error`, every file bad, or an unknown `bad_files`.
    """
    if bad_files not in ("error", "skip"):
        raise ValueError(f"bad_files must be 'error' or 'skip'; got {bad_files!r}")
    wanted = len(order) if limit is None else min(limit, len(order))
    good: list[int] = []
    bad: list[str] = []
    with (
        ThreadPoolExecutor() as pool,
        progress_bar(label="Checking images", total=wanted, delay=2, leave=False) as bar,
    ):
        at = 0
        while len(good) < wanted and at < len(order):
            chunk = [int(row) for row in order[at : at + min(_CHUNK, wanted - len(good))]]
            at += len(chunk)
            batch = rows[chunk]
            for row, file, why in zip(chunk, batch["file"], pool.map(defect, batch["image"]), strict=True):
                if why is None:
                    good.append(row)
                    bar.update()
                elif bad_files == "error":
                    raise ValueError(
                        f"{file} {why}; mend or remove it, or pass bad_files='skip' to leave such files out"
                    )
                else:
                    bad.append(f"{file} {why}")
    if not good:
        raise ValueError(f"none of the {len(bad)} files could be read as an image; the first: {bad[0]}")
    if bad:
        warnings.warn(f"left out {len(bad)} of {len(bad) + len(good)} files: {printable(_some(bad))}", stacklevel=3)
    return good


def _some(items: Sequence[str], count: int = 5) -> str:
    return "; ".join(items[:count]) + ("; …" if len(items) > count else "")
