"""Provenance of a run as rows of text: configuration, versions, hardware, seeds, stages and tables."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from .run_results import RunResults


def rows(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Return a nested mapping as (dotted key, value) rows with exact values; sizes in bytes are given in GiB."""
    if isinstance(value, dict) and value:
        return [row for key, part in value.items() for row in rows(part, f"{name}.{key}" if name else str(key))]
    if name.endswith("_bytes") and isinstance(value, (int, float)):
        return [(name.removesuffix("_bytes"), gibibytes(value))]
    return [(name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))]


def gibibytes(size: float) -> str:
    """Format `1.77 GiB`."""
    return f"{size / 2**30:.2f} GiB"


def duration(seconds: float) -> str:
    """Format `41.0 s`, from two minutes on `2 min 14 s`, from two hours on `2 h 5 min`."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def provenance(run: RunResults) -> dict[str, Any]:
    """Return the parts of `provenance.json` as rows, with each stage's time relative to the longest."""
    found = run.provenance
    stages = [(stage["name"], float(stage["seconds"]), stage.get("peak_memory_bytes")) for stage in found["stages"]]
    longest = max((seconds for _, seconds, _ in stages), default=0.0) or 1.0
    peaks = [peak for _, _, peak in stages if peak is not None]
    return {
        "started": _moment(found["started"]),
        "finished": _moment(found["finished"]),
        "stages": [
            (name, duration(seconds), round(100 * seconds / longest, 1), gibibytes(peak) if peak is not None else "–")
            for name, seconds, peak in stages
        ],
        "total": duration(sum(seconds for _, seconds, _ in stages)),
        "peak": gibibytes(max(peaks)) if peaks else "–",
        "versions": rows(found["versions"] | _commits(found)),
        "hardware": rows(found["hardware"]),
        "seeds": rows(found["seeds"]),
    }


def _commits(found: dict[str, Any]) -> dict[str, str]:
    """Return the commits of the model and images from the Hub; older runs did not record them."""
    return {f"{what} (commit)": commit for what, commit in found.get("revisions", {}).items() if commit is not None}


def table_rows(run: RunResults) -> list[tuple[str, str, list[str]]]:
    """Return the file name, number of rows and columns of every Parquet table beside the report."""
    from pyarrow.parquet import read_metadata

    found = []
    for path in run.tables():
        metadata = read_metadata(path)
        found.append((path.name, f"{metadata.num_rows:,}", list(metadata.schema.to_arrow_schema().names)))
    return found


def _moment(text: str) -> str:
    """Format an ISO time to the minute."""
    return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M %Z").strip()
