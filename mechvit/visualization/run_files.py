"""Reading a finished run's folder: the only input of the report."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

REQUIRED = ("claims.json", "config.json", "provenance.json", "tables/performance_summary.parquet")

CLAIM = ("id", "claim", "source", "measured", "value", "low", "high", "unit", "rule", "verdict")
ANSWERS = ("yes", "partly", "no", "unclear")
"""Verdicts of open questions."""
PROVENANCE = ("versions", "hardware", "seeds", "stages", "started", "finished")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run's small files in memory; its tables are read when asked for."""

    path: Path
    claims: list[dict[str, Any]]
    """One mapping a claim: id, claim, source, measured, value, low, high, unit, rule, verdict."""
    questions: list[dict[str, Any]] = field(default_factory=list)
    """The same of each open question; its verdict is one of `ANSWERS`."""
    config: dict[str, Any]
    provenance: dict[str, Any]
    """versions, hardware, seeds, stages (name, seconds, peak_memory_bytes), started, finished."""

    def has(self, name: str) -> bool:
        """Whether the table is there."""
        return (self.path / "tables" / f"{name}.parquet").is_file()

    def table(self, name: str, columns: list[str] | None = None) -> pd.DataFrame:
        """One table, or some of its columns.

        Raises:
            FileNotFoundError: the run lacks the table.
            ValueError: the table lacks a column.
        """
        path = self.path / "tables" / f"{name}.parquet"
        if not path.is_file():
            raise FileNotFoundError(f"the run lacks {path}: run the stage that writes it")
        frame = pd.read_parquet(path)
        lacking = [column for column in columns or [] if column not in frame.columns]
        if lacking:
            raise ValueError(f"{path} must have the columns {columns}; it lacks {lacking}: write it again")
        return frame[columns] if columns else frame

    def tables(self) -> list[Path]:
        """Every table of the run, sorted by name."""
        return sorted((self.path / "tables").glob("*.parquet"))

    def examples(self) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
        """The example images: [{image_id, label}] and uint8 [3, h, w] by `image_id/corruption`; or empty."""
        return self._view("examples", [])

    def attention(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The attention of one image: about it, and [layers, heads, tokens, tokens] by `model/corruption`; or empty."""
        return self._view("attention", {})

    def view(self, name: str) -> Any:
        """What a page's own script draws, `explorer` or `lens`; None where the run has none."""
        path = self.path / "views" / f"{name}.json"
        return _read_json(path) if path.is_file() else None

    def _view(self, name: str, absent: Any) -> tuple[Any, dict[str, np.ndarray]]:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        about, arrays = (self.path / "views" / f"{name}.{end}" for end in ("json", "safetensors"))
        if not (about.is_file() and arrays.is_file()):
            return absent, {}
        try:
            return _read_json(about), load_file(arrays)
        except SafetensorError as error:
            raise ValueError(f"{arrays} is damaged or no safetensors file ({error}): write it again") from error


def read_run(run: str | Path) -> Run:
    """Open a run's folder.

    Raises:
        FileNotFoundError: it, or a file that every report needs, is not there.
        ValueError: a JSON file cannot be read or lacks a key.
    """
    path = Path(run)
    lacking = [name for name in REQUIRED if not (path / name).is_file()]
    if lacking:
        raise FileNotFoundError(
            f"a report needs {', '.join(REQUIRED)} in the run's folder; {path} lacks {', '.join(lacking)}: "
            "finish the run first, or name another folder"
        )
    claims, config, provenance = (_read_json(path / name) for name in REQUIRED[:3])
    for place, claim in enumerate(claims):
        _check_keys(path / REQUIRED[0], f"claim {place}", claim, CLAIM)
    _check_keys(path / REQUIRED[2], "it", provenance, PROVENANCE)
    asked = [claim for claim in claims if claim["verdict"] in ANSWERS]
    claims = [claim for claim in claims if claim not in asked]
    return Run(path=path, claims=claims, questions=asked, config=config, provenance=provenance)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} must be JSON; {error}: write it again") from error


def _check_keys(path: Path, what: str, found: dict[str, Any], keys: tuple[str, ...]) -> None:
    lacking = [key for key in keys if key not in found]
    if lacking:
        raise ValueError(f"{path} must hold {', '.join(keys)}; {what} lacks {', '.join(lacking)}: write it again")
