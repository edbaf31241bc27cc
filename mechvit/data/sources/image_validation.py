"""Checks that images can be read, before any compute is spent on them."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from mechvit.terminal import printable, progress_bar

from .picture import Decoded, decode, refuse_needless, refuse_unstated

if TYPE_CHECKING:
    import datasets

_CHUNK = 256
_NO_PIXELS = Image.new("RGB", (1, 1))
"""Placeholder for checked pixels, so that they are not kept."""


@dataclass(frozen=True)
class ReadableRows:
    """Rows whose images can be read."""

    rows: list[int]
    """Their indices."""
    left_out: int
    """Number of rows before the last of these that were left out because their files' hashes are known."""
    is_cut: bool
    """Whether the limit was reached, and rows behind it were not looked at."""


def readable_rows(
    rows: datasets.Dataset,
    order: np.ndarray,
    limit: int | None,
    bad_files: Literal["error", "skip"],
    pixel_range: tuple[float, float] | None = None,
    *,
    known: Collection[str] = (),
) -> ReadableRows:
    """Return the first `limit` rows of `order` whose images can be read, under the same settings as later use.

    Args:
        rows: the columns `image` (undecoded), `label` and `file`.
        pixel_range: see `mechvit.data.open_picture`.
        known: hashes of files (`picture_hashes`); the rows of these are left out before they count.

    Raises:
        ValueError: a bad file under `error`, every file of the set or of a class bad, 16-bit values that may well be of
            12, a `pixel_range` for images that all have eight bits per channel, or an unknown `bad_files`.
    """
    if bad_files not in ("error", "skip"):
        raise ValueError(f"bad_files must be 'error' or 'skip'; got {bad_files!r}")
    wanted = len(order) if limit is None else min(limit, len(order))
    good: dict[int, Decoded] = {}
    bad: dict[int, str] = {}
    left_out = 0
    with (
        ThreadPoolExecutor() as pool,
        progress_bar(label="Checking images", total=wanted, delay=2, leave=False) as bar,
    ):
        at = 0
        while len(good) < wanted and at < len(order):
            chunk = [int(row) for row in order[at : at + min(_CHUNK, wanted - len(good))]]
            at += len(chunk)
            unknown = _unknown(rows, chunk, known)
            left_out += len(chunk) - len(unknown)
            chunk, batch = unknown, rows[unknown]
            tried = pool.map(lambda image, file: _tried(image, file, pixel_range), batch["image"], batch["file"])
            for row, found in zip(chunk, tried, strict=True):
                if isinstance(found, Decoded):
                    good[row] = found
                    bar.update()
                elif bad_files == "error":
                    raise ValueError(f"{found}; repair or remove it, or pass bad_files='skip' to leave such files out")
                else:
                    bad[row] = found
    if not good and not bad:
        return ReadableRows([], left_out, False)
    if not good:
        first = next(iter(bad.values()))
        raise ValueError(f"none of the {len(bad)} files could be read as an image; the first: {first}")
    _check_classes(rows, good, bad, pixel_range)
    names = rows.select_columns(["file"])
    refuse_unstated({names[row]["file"]: found.highest for row, found in good.items() if found.highest is not None})
    if pixel_range is not None:
        plain = [names[row]["file"] for row, found in good.items() if not found.is_deep]
        refuse_needless(plain, len(good), pixel_range)
    if bad:
        left = printable(_some([*bad.values()]))
        warnings.warn(f"left out {len(bad)} of {len(bad) + len(good)} files: {left}", stacklevel=3)
    if several := [names[row]["file"] for row, found in good.items() if found.has_more_frames]:
        first = printable(_some(several))
        warnings.warn(f"{len(several)} files have several frames; the first of each is used: {first}", stacklevel=3)
    return ReadableRows(list(good), left_out, at < len(order))


def _unknown(rows: datasets.Dataset, chunk: list[int], known: Collection[str]) -> list[int]:
    """Return the rows whose files have none of the known hashes; those of a missing file are not known."""
    if not known:
        return chunk
    from mechvit.data.content import picture_hashes

    try:
        hashes = picture_hashes(rows.select(chunk))
    except OSError:
        return chunk if len(chunk) == 1 else [row for each in chunk for row in _unknown(rows, [each], known)]
    return [row for row, own in zip(chunk, hashes, strict=True) if own not in known]


def _tried(image: Any, file: str, pixel_range: tuple[float, float] | None) -> Decoded | str:
    """Read an image as later use will (a JPEG at an eighth of its size), or return the reason why that fails."""
    try:
        return replace(decode(image, pixel_range, file, is_draft=True), rgb=_NO_PIXELS)
    except ValueError as error:
        return str(error)


def _check_classes(
    rows: datasets.Dataset, good: Collection[int], bad: Mapping[int, str], pixel_range: tuple[float, float] | None
) -> None:
    """Refuse classes of which no image can be read."""
    if not bad:
        return
    labels = np.asarray(rows["label"])
    for label in sorted(set(labels[list(bad)].tolist()) - set(labels[list(good)].tolist())):
        others = (int(row) for row in np.flatnonzero(labels == label) if int(row) not in bad)
        if not any(isinstance(_tried(rows[row]["image"], rows[row]["file"], pixel_range), Decoded) for row in others):
            own = [why for row, why in bad.items() if labels[row] == label]
            raise ValueError(f"no image of the class {_class_name(rows, label)} can be read; the first: {own[0]}")


def _class_name(rows: datasets.Dataset, label: int) -> str:
    names = getattr(rows.features["label"], "names", [])
    return printable(names[label]) if 0 <= label < len(names) else str(label)


def _some(items: Sequence[str], count: int = 5) -> str:
    return "; ".join(items[:count]) + ("; …" if len(items) > count else "")
