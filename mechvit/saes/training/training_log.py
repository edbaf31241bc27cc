"""Logging of a training's metrics while it runs: always to a CSV file, to wandb or tensorboard on request."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechvit import files
from mechvit.files.reading import read_object

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

LOGGERS = ("wandb", "tensorboard")
"""Loggers, by the name of their package."""
LOG_COLUMNS = ("architecture", "step", "tokens", "epoch", "split", "metric", "value")


def check_loggers(loggers: Collection[str]) -> None:
    """Raise a ValueError unless every logger is known and its package is installed."""
    for name in loggers:
        if name not in LOGGERS:
            raise ValueError(f"loggers must be among {', '.join(LOGGERS)}; got {name!r}")
        if importlib.util.find_spec(name) is None:
            raise ValueError(f"the logger {name!r} needs the package {name}: pip install {name}")


class Logs:
    """Writer of rows (`LOG_COLUMNS`) to FOLDER/metrics.csv and to the loggers.

    A training that resumes after step N first drops the rows of later steps, which it will write again.

    Args:
        folder: folder of the training.
        after_step: step after which the training resumes.
        loggers: some of `LOGGERS`.
        about: settings that a logger records once.
    """

    def __init__(
        self, folder: Path, after_step: int = 0, loggers: Collection[str] = (), about: dict[str, Any] | None = None
    ) -> None:
        check_loggers(loggers)
        self.path = folder / "metrics.csv"
        kept = [row for row in _rows(self.path) if int(row["step"]) <= after_step] if self.path.is_file() else []
        with files.beside(self.path) as part, part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(LOG_COLUMNS)
            writer.writerows([row[name] for name in LOG_COLUMNS] for row in kept)
        if loggers:
            from accelerate import PartialState

            PartialState()  # required by the logging of accelerate's trackers
        self.wandb = _start_wandb(folder, about or {}) if "wandb" in loggers else None
        self.tensorboard = _start_tensorboard(folder, after_step) if "tensorboard" in loggers else None

    def write(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Append rows, which are on disk when this returns."""
        rows = list(rows)
        with files.disk_errors(self.path), self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
        for name, step, _, _, split, metric, value in rows:
            if self.wandb is not None:
                self.wandb.log({f"{name}/{split}/{metric}": value, "step": step})
            if self.tensorboard is not None:
                self.tensorboard.log({f"{name}/{split}/{metric}": value}, step=step)

    def close(self) -> None:
        """End the loggers' runs."""
        for tracker in (self.wandb, self.tensorboard):
            if tracker is not None:
                tracker.finish()


def _rows(path: Path) -> list[dict[str, str]]:
    """Return the complete rows of an earlier run, without one that was cut off."""
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if None not in row.values() and row["value"] != ""]


def _start_wandb(folder: Path, about: dict[str, Any]) -> GeneralTracker:
    from accelerate.tracking import WandBTracker

    kept = folder / "wandb.json"  # a resumed training continues the same wandb run
    run_id = read_object(kept, ("id",))["id"] if kept.is_file() else None
    files.note(folder / "wandb", under=True)
    name = folder.name.removesuffix(".partial")
    tracker = WandBTracker("mechvit", name=name, config=about, dir=str(folder), id=run_id, resume="allow")
    tracker.start()
    files.write_json(kept, {"id": tracker.tracker.id})
    tracker.tracker.define_metric("*", step_metric="step")
    return tracker


def _start_tensorboard(folder: Path, after_step: int) -> GeneralTracker:
    from accelerate.tracking import TensorBoardTracker

    files.note(folder / "tensorboard", under=True)
    tracker = TensorBoardTracker("tensorboard", folder, purge_step=after_step + 1)
    tracker.start()
    return tracker
