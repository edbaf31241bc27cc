"""Results of a benchmark as JSON, a Markdown table and a figure; nothing is timed here."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timing import Spread, Timing

from mechvit.terminal import say

if TYPE_CHECKING:
    import plotly.graph_objects as go

PACKAGES = ("mechvit", "torch", "transformers", "transformer-lens", "sae-lens", "numpy")
OPTIONAL = ("triton", "nnsight")
"""Packages whose versions are written where they are installed."""
NO_SETTINGS = ("out", "overwrite", "scratch")
"""Options that change no time."""
FILES = ("result.json", "table.md", "figure.html")
RATIO = "x"
"""The unit of one time over another."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One row: a contender against another in the same rounds."""

    part: str
    """The task of both."""
    contender: str
    over: str
    """The contender that it is compared with."""
    seconds: Spread
    """Seconds per call of the contender."""
    value: Spread
    """Time over the other's, or the difference of the two."""
    unit: str = RATIO
    """`x` for a ratio; of the difference otherwise."""
    limit: float | None = None
    """Largest median allowed, in the same unit; None where there is no limit, as for another shape than its own."""
    at_least: float | None = None
    """Smallest median allowed, for what should be large; there is one of the two limits at most."""

    @classmethod
    def ratio(cls, part: str, timing: Timing, contender: str, over: str, limit: float | None = None) -> Measure:
        """Return one contender's time over another's in the same rounds."""
        value = timing.ratio(contender, over)
        return cls(part=part, contender=contender, over=over, seconds=timing.of(contender), value=value, limit=limit)

    @property
    def verdict(self) -> str:
        """`met` or `missed`, by the median, and whether the limit lies within the median's confidence interval."""
        bound = self.bound
        if bound is None:
            return ""
        median, low, high = self.value.median, self.value.low, self.value.high
        judged = "met" if (median <= bound if self.at_least is None else median >= bound) else "missed"
        return judged if low is not None and high is not None and not low <= bound <= high else f"{judged} (unsure)"

    @property
    def bound(self) -> float | None:
        """The limit, whichever there is."""
        return self.limit if self.at_least is None else self.at_least


@dataclass(frozen=True, kw_only=True)
class Result:
    """Measurements of one run of a benchmark, with its settings and environment."""

    title: str
    settings: Mapping[str, Any]
    measures: tuple[Measure, ...]
    timings: Mapping[str, Timing]
    """Part -> every measured time, from which the rows follow."""
    agreement: Mapping[str, Mapping[str, float]]
    """Part -> contender -> largest difference to the part's first contender, over that one's largest value."""
    hardware: Mapping[str, Any]
    versions: Mapping[str, str]
    started: str
    """UTC, ISO 8601."""
    load: tuple[float, float]
    """Mean number of running processes in the minute before the start and before the end; with more than the
    benchmark's own threads, others disturbed it."""

    def to_json(self) -> str:
        """Return the result as JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Result:
        """Read what `to_json` wrote.

        Raises:
            TypeError, KeyError: a field is unknown or missing; names it.
        """
        read = json.loads(text)
        spreads = ("seconds", "value")
        measures = (Measure(**row | {name: Spread(**row[name]) for name in spreads}) for row in read["measures"])
        timings = {
            part: Timing(seconds={name: tuple(times) for name, times in timing["seconds"].items()})
            for part, timing in read["timings"].items()
        }
        return cls(**read | {"measures": tuple(measures), "timings": timings, "load": tuple(read["load"])})


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """State of the machine before a benchmark."""

    hardware: Mapping[str, Any]
    versions: Mapping[str, str]
    started: str
    load: float

    @classmethod
    def now(cls, device: str | None = None) -> Beginning:
        """Record the machine, and the GPU that is measured, such as cuda:1."""
        import torch

        from mechvit.experiment.runs.provenance import hardware

        versions = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
        for name in OPTIONAL:
            with contextlib.suppress(PackageNotFoundError):
                versions[name] = version(name)
        return cls(
            hardware=hardware(device),
            versions=versions | ({"cuda": torch.version.cuda} if torch.version.cuda else {}),
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            load=_load_average(),
        )


def publish(
    options: Any,
    beginning: Beginning,
    *,
    title: str,
    measures: Sequence[Measure],
    timings: Mapping[str, Timing],
    agreement: Mapping[str, Mapping[str, float]] | None = None,
    **more_settings: Any,
) -> Result:
    """Write a result to `options.out`, and print its table."""
    kept = {name: value for name, value in dataclasses.asdict(options).items() if name not in NO_SETTINGS}
    kept = {name: os.fspath(value) if isinstance(value, Path) else value for name, value in kept.items()}
    result = Result(
        title=title,
        settings=kept | more_settings,
        measures=tuple(measures),
        timings=timings,
        agreement=agreement or {},
        hardware=beginning.hardware,
        versions=beginning.versions,
        started=beginning.started,
        load=(beginning.load, _load_average()),
    )
    folder = write(result, options.out, overwrite=options.overwrite)
    say(f"\n{markdown(result)}\n{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    return result


def _load_average() -> float:
    """Return the mean number of running processes in the last minute; 0 if the system does not report it."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else 0.0


def markdown(result: Result) -> str:
    """Return the table of a result: median, interquartile range, and the median's 95% interval against the limit."""
    lines = [
        "| | contender | time (ms) | compared with | value | quartiles | median, 95% | limit | |",
        "|---|---|---:|---|---:|---|---|---:|---|",
    ]
    for row in result.measures:
        value, sign = row.value, "<=" if row.at_least is None else ">="
        bound = "" if row.bound is None else f"{sign} {row.bound:g} {row.unit}"
        known = "too few rounds" if value.low is None else f"{value.low:.3f} .. {value.high:.3f}"
        lines.append(
            f"| {row.part} | {row.contender} | {row.seconds.median * 1e3:.2f} | {row.over} | "
            f"{value.median:.3f} {row.unit} | {value.lower_quartile:.3f} .. {value.upper_quartile:.3f} | {known} | "
            f"{bound} | {row.verdict} |"
        )
    settings = ", ".join(f"{name} {value}" for name, value in result.settings.items())
    gpu = f", {result.hardware['gpu']}" if str(result.settings.get("device", "")).startswith("cuda") else ""
    about = f"{result.hardware['processor']}{gpu}; torch {result.versions['torch']}, " + (
        f"transformers {result.versions['transformers']}; load {result.load[0]:g} before, {result.load[1]:g} after."
    )
    return "\n".join([f"# {result.title}", "", *lines, "", f"{settings}.", about, ""])


def figure(result: Result) -> go.Figure:
    """Draw every ratio's median with its quartiles, and its limit.

    Raises:
        ValueError: the result holds no ratio.
    """
    import plotly.graph_objects as go

    from mechvit.visualization.style import BASE, INK, finish

    rows = [row for row in result.measures if row.unit == RATIO][::-1]
    if not rows:
        raise ValueError("A figure needs at least one ratio; the result holds none.")
    names = [f"{row.part}: {row.contender}<br>over {row.over}" for row in rows]
    medians = [row.value.median for row in rows]
    drawn = go.Scatter(
        x=medians,
        y=names,
        mode="markers",
        name="median and quartiles",
        marker={"color": BASE, "size": 10},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [row.value.upper_quartile - row.value.median for row in rows],
            "arrayminus": [row.value.median - row.value.lower_quartile for row in rows],
            "color": BASE,
        },
        hovertemplate="%{y}: %{x:.3f}<extra></extra>",
    )
    limited = [(row.bound, name) for row, name in zip(rows, names, strict=True) if row.bound is not None]
    limits = go.Scatter(
        x=[limit for limit, _ in limited],
        y=[name for _, name in limited],
        mode="markers",
        name="limit",
        marker={"color": INK, "symbol": "line-ns-open", "size": 18, "line": {"width": 2}},
        hovertemplate="limit %{x:g}<extra></extra>",
    )
    made = go.Figure([drawn, limits])
    made.add_vline(1, line={"color": BASE, "width": 1}, layer="below")
    made.update_xaxes(title_text="time over that of what it is compared with (ratio; less is faster)")
    return finish(made, result.title, height=180 + 56 * len(rows)).update_yaxes(automargin=True)


def write(result: Result, out: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write the files of `FILES` into a folder, which appears whole or not at all, and return it.

    There is a figure where there is a ratio.

    Raises:
        ValueError: there is something at `out` that may not be replaced.
    """
    from mechvit.files import new_folder, write_text
    from mechvit.visualization.html_page.figure_page import write_figure_pages

    with new_folder(out, "benchmark", overwrite=overwrite, flag="--overwrite") as folder:
        write_text(folder / FILES[0], result.to_json())
        write_text(folder / FILES[1], markdown(result))
        if any(row.unit == RATIO for row in result.measures):
            write_figure_pages({FILES[2].removesuffix(".html"): figure(result)}, folder)
    return Path(out)
