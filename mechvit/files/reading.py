"""Reading of JSON files written earlier, with checks of their form."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

AGAIN = "copy it again, or make it again"


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: it is no text, no JSON, or nested too deeply; names the file.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged or no JSON ({error}): {AGAIN}") from error


def read_object(path: str | os.PathLike[str], needed: Collection[str] = ()) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ValueError: as in `read_json`, or it is not an object with the `needed` keys; names the file.
    """
    return _object(read_json(path), path, needed)


def read_objects(path: str | os.PathLike[str], needed: Collection[str] = ()) -> list[dict[str, Any]]:
    """Read a JSON list of objects.

    Raises:
        ValueError: as in `read_json`, or it is not a list of objects with the `needed` keys.
    """
    found = read_json(path)
    if not isinstance(found, list):
        raise ValueError(f"{path} must hold a JSON list; got {type(found).__name__}: {AGAIN}")
    return [_object(each, f"{path}, entry {place},", needed) for place, each in enumerate(found)]


def _object(found: Any, where: str | os.PathLike[str], needed: Collection[str]) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise ValueError(f"{where} must hold a JSON object; got {type(found).__name__}")
    if missing := [name for name in needed if name not in found]:
        raise ValueError(f"{where} lacks {', '.join(missing)}: {AGAIN}")
    return found
