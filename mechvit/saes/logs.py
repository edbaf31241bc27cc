"""Where the figures of a training go while it runs: a CSV always, wandb or tensorboard on request."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from mechvit import files
from mechvit.files.reading import read_object

LOGGERS = ("wandb", "tensorboard")
COLUMNS = ("architecture", "step", "tokens", "epoch", "split", "metric", "value")
_PACKAGES = {"wandb": "wandb", "tensorboard": "tensorboard"}


def check_loggers(loggers: Collection[str]) -> None:
    """Raise a ValueError unless every logger is known and its package is installed."""
    for name in loggers:
        if name not in LOGGERS:
            raise ValueError(f"loggers must be among {', '.join(LOGGERS)}; got {name!r}")
        if importlib.util.find_spec(_PACKAGES[name]) is None:
            raise ValueError(f"the logger {name!r} needs the package {_PACKAGES[name]}: pip install {_PACKAGES[name]}")


class Logs:
    """Appends rows (`COLUMNS`) to FOLDER/metrics.csv and hands them to the loggers.

    A training that goes on after step N drops the rows of later steps first, which it will write again.

    Args:
        folder: of the training.
        after_step: the step that the training goes on from.
        loggers: of `LOGGERS`.
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
            writer.writerow(COLUMNS)
            writer.writerows([row[name] for name in COLUMNS] for row in kept)
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
                self.tensorboard.add_scalar(f"{name}/{split}/{metric}", value, step)

    def close(self) -> None:
        """End the loggers' runs."""
        if self.wandb is not None:
            self.wandb.finish()
        if self.tensorboard is not None:
            self.tensorboard.close()


def _rows(path: Path) -> list[dict[str, str]]:
    """Whole rows of an earlier run; one that was cut off within a line ends there."""
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if None not in row.values() and row["value"] != ""]


def _start_wandb(folder: Path, about: dict[str, Any]) -> Any:
    import wandb

    kept = folder / "wandb.json"  # a training that goes on goes on in the same run
    run_id = read_object(kept, ("id",))["id"] if kept.is_file() else None
    files.note(folder / "wandb", under=True)
    name = folder.name.removesuffix(".partial")
    run = wandb.init(project="mechvit", name=name, config=about, dir=str(folder), id=run_id, resume="allow")
    files.write_json(kept, {"id": run.id})
    run.define_metric("*", step_metric="step")
    return run


def _start_tensorboard(folder: Path, after_step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    files.note(folder / "tensorboard", under=True)
    return SummaryWriter(str(folder / "tensorboard"), purge_step=after_step + 1)
