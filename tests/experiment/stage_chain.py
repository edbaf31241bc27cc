"""Four stages of which three read one another, and the record of one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from mechvit.experiment.runs.stages import (
    Stages,
    write_json,
)


@dataclass(frozen=True)
class Settings:
    rate: float = 0.1
    layers: tuple[int, ...] = (1, 2)


def chain(
    folder: Path,
    *,
    formats: dict[str, int] | None = None,
    fresh: bool = False,
    said: list[str] | None = None,
    **changed: object,
) -> tuple[list[str], Stages]:
    """a -> b -> c, with d apart; the names of those that ran."""
    ran: list[str] = []
    stages = Stages(folder, say=[].append if said is None else said.append, fresh=fresh)
    for name, after in (("a", []), ("part/b", ["a"]), ("c", ["part/b"]), ("d", [])):
        out = folder / "out" / name.replace("/", "-")

        def work(name: str = name, out: Path = out) -> None:
            ran.append(name)
            write_json(out, name)

        given = {"settings": changed.get(name, Settings()), "output_format": (formats or {}).get(name, 1)}
        stages.run(name, work, after=after, outputs=[out], **given)
    return ran, stages


def record(folder: Path, name: str) -> dict:
    return json.loads((folder / "stages" / f"{name}.json").read_text())
