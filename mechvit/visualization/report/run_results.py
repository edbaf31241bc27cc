"""Reading of a finished run's folder, the only input of the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mechvit.arguments import checked
from mechvit.files.reading import read_object, read_objects

REQUIRED = ("claims.json", "config.json", "provenance.json", "tables/performance_summary.parquet")

CLAIM = ("id", "claim", "source", "what", "unit", "kind", "threshold", "rule", "parts", "decides", "verdict")
PART = ("label", "value", "low", "high")
ANSWERS = ("yes", "partly", "no", "unclear")
"""Verdicts on open questions."""
PROVENANCE = ("versions", "hardware", "seeds", "stages", "started", "finished")


@dataclass(frozen=True, kw_only=True)
class RunResults:
    """Small files of one run in memory; its tables are read on request."""

    path: Path
    claims: list[dict[str, Any]]
    """One mapping per claim, with the keys of `CLAIM`; each of its parts has those of `PART`."""
    questions: list[dict[str, Any]] = field(default_factory=list)
    """The same for each open question, whose verdict is one of `ANSWERS`."""
    config: dict[str, Any]
    provenance: dict[str, Any]
    """versions, hardware, seeds, stages (name, seconds, peak_memory_bytes), started, finished."""

    def has(self, name: str) -> bool:
        """Return whether the run has a table."""
        return (self.path / "tables" / f"{name}.parquet").is_file()

    def table(self, name: str, columns: list[str] | None = None) -> pd.DataFrame:
        """Read a table, or some of its columns.

        Raises:
            FileNotFoundError: the run lacks the table.
            ValueError: the table lacks a column.
        """
        path = self.path / "tables" / f"{name}.parquet"
        if not path.is_file():
            raise FileNotFoundError(f"the run lacks {path}: run the stage that writes it")
        try:
            frame = pd.read_parquet(path)
        except (ValueError, OSError) as error:
            raise ValueError(f"{path} is damaged or no Parquet file ({error}): write it again") from error
        lacking = [column for column in columns or [] if column not in frame.columns]
        if lacking:
            raise ValueError(f"{path} must have the columns {columns}; it lacks {lacking}: write it again")
        return frame[columns] if columns else frame

    def tables(self) -> list[Path]:
        """Return the paths of all tables of the run, sorted by name."""
        return sorted((self.path / "tables").glob("*.parquet"))

    def examples(self) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
        """Return the example images: [{image_id, label}], and uint8 [3, h, w] by `image_id/corruption`; or empty."""
        return self._view("examples", [])

    def attention(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return one image's attention: its description, and [layers, heads, tokens, tokens] by model/corruption."""
        return self._view("attention", {})

    def view(self, name: str) -> Any:
        """Return the data of a page's own script, `explorer` or `lens`; None if the run has none."""
        path = self.path / "views" / f"{name}.json"
        return read_object(path) if path.is_file() else None

    def _view(self, name: str, absent: Any) -> tuple[Any, dict[str, np.ndarray]]:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        about, arrays = (self.path / "views" / f"{name}.{end}" for end in ("json", "safetensors"))
        if not (about.is_file() and arrays.is_file()):
            return absent, {}
        try:
            return (read_object if isinstance(absent, dict) else read_objects)(about), load_file(arrays)
        except SafetensorError as error:
            raise ValueError(f"{arrays} is damaged or no safetensors file ({error}): write it again") from error


@checked
def read_run(run: str | Path) -> RunResults:
    """Open a run's folder.

    Raises:
        FileNotFoundError: the folder, or a file that every report needs, is missing.
        ValueError: a JSON file cannot be read or lacks a key.
    """
    path = Path(run)
    lacking = [name for name in REQUIRED if not (path / name).is_file()]
    if lacking:
        raise FileNotFoundError(
            f"a report needs {', '.join(REQUIRED)} in the run's folder; {path} lacks {', '.join(lacking)}: "
            "finish the run first, or name another folder"
        )
    claims, config = read_claims(path / REQUIRED[0]), read_object(path / REQUIRED[1])
    provenance = read_provenance(path / REQUIRED[2])
    asked = [claim for claim in claims if claim["verdict"] in ANSWERS]
    claims = [claim for claim in claims if claim not in asked]
    return RunResults(path=path, claims=claims, questions=asked, config=config, provenance=provenance)


def read_run_of_page(path: Path, page: str, required: Sequence[str]) -> RunResults:
    """Open the folder of a run without claims, for its page.

    Args:
        path: folder of the run.
        page: the page, as the subject of the error's sentence.
        required: files that the page needs, config.json and provenance.json among them.

    Raises:
        FileNotFoundError: one of them is missing.
        ValueError: a JSON file cannot be read or lacks a key.
    """
    if lacking := [name for name in required if not (path / name).is_file()]:
        raise FileNotFoundError(
            f"{page} needs {', '.join(required)}; {path} lacks {', '.join(lacking)}: finish the run first, or name "
            "another folder"
        )
    config, provenance = read_object(path / "config.json"), read_provenance(path / "provenance.json")
    return RunResults(path=path, claims=[], config=config, provenance=provenance)


def read_claims(path: Path) -> list[dict[str, Any]]:
    """Read a run's claims.json.

    Raises:
        ValueError: it cannot be read, lacks a key, or was written by a version that stored sentences in place of
            numbers.
    """
    if any("measured" in claim for claim in read_objects(path)):
        raise ValueError(f"{path} is of an earlier version: run the command that made it again, which writes it anew")
    found = read_objects(path, CLAIM)
    for place, claim in enumerate(found):
        parts, decides = claim["parts"], claim["decides"]
        whole = isinstance(parts, list) and all(isinstance(part, dict) and set(PART) <= part.keys() for part in parts)
        if not whole or decides not in (None, *range(len(parts))) or not parts:
            raise ValueError(
                f"{path}, entry {place}: parts must be a list of objects with {', '.join(PART)}, and decides the place "
                "of one of them: write it again"
            )
    return found


def read_provenance(path: Path) -> dict[str, Any]:
    """Read a run's provenance.json.

    Raises:
        ValueError: it cannot be read, or lacks an entry that a report shows.
    """
    found = read_object(path, PROVENANCE)
    for name in ("versions", "hardware", "seeds"):
        if not isinstance(found[name], dict):
            raise ValueError(f"{path}: {name} must be a JSON object; got {type(found[name]).__name__}: write it again")
    stages = found["stages"]
    whole = isinstance(stages, list) and all(
        isinstance(stage, dict) and "name" in stage and isinstance(stage.get("seconds"), (int, float))
        for stage in stages
    )
    if not whole:
        raise ValueError(f"{path}: stages must be a list of objects with name and seconds: write it again")
    return found
