"""Stages of a run: each has a key made of what it depends on, and is done once its record holds that key."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import mechvit


class Stages:
    """The finished stages of one run's folder.

    A stage's key is the hash of its settings and of its inputs' keys, so that a changed setting makes it and all that
    depends on it run again, and nothing else. Its record is written after its outputs are whole: a run that is killed
    at any moment continues after its last finished stage.
    """

    def __init__(self, folder: Path, say: Callable[[str], None] = print) -> None:
        self.folder, self.say = folder, say
        self.keys: dict[str, str] = {}

    def run(
        self,
        name: str,
        work: Callable[[], object],
        *,
        settings: object,
        after: Iterable[str] = (),
        outputs: Iterable[Path] = (),
    ) -> None:
        """Do `work` unless the stage is done already.

        Args:
            name: of the stage; its record is `stages/NAME.json`.
            work: writes the outputs, each whole or not at all.
            settings: what the result depends on besides its inputs: anything JSON can hold, or dataclasses of it.
            after: the stages whose outputs it reads.
            outputs: files or folders that must be there for a finished stage to count.
        """
        made_of = {"settings": plain(settings), "after": [self.keys[other] for other in after]}
        key = digest({"stage": name, "mechvit": mechvit.__version__, **made_of})
        self.keys[name] = key
        record = self.folder / "stages" / f"{name.replace('/', '-')}.json"
        done = json.loads(record.read_text()) if record.is_file() else {}
        if done.get("key") == key and all(path.exists() for path in outputs):
            self.say(f"{name}: done before ({done['seconds']:.1f} s)")
            return
        self.say(f"{name} ...")
        record.unlink(missing_ok=True)
        reset_peak_memory()
        started, clock = datetime.now(timezone.utc), time.perf_counter()
        work()
        seconds = time.perf_counter() - clock
        missing = [str(path) for path in outputs if not path.exists()]
        assert not missing, f"the stage {name} did not write {missing}"
        entry = {
            "name": name,
            "key": key,
            "seconds": round(seconds, 3),
            "peak_memory_bytes": peak_memory_bytes(),
            "started": started.isoformat(timespec="seconds"),
            "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        write_json(record, entry)
        self.say(f"{name}: {seconds:.1f} s")

    def records(self) -> list[dict[str, Any]]:
        """The records of the stages that this run went through, in order."""
        paths = [self.folder / "stages" / f"{name.replace('/', '-')}.json" for name in self.keys]
        return [json.loads(path.read_text()) for path in paths if path.is_file()]


def plain(value: object) -> Any:
    """Dataclasses, tuples, paths and mappings as JSON holds them.

    Raises:
        TypeError: anything else, which could not be compared with a later run's.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return os.fspath(value)
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"a stage's settings must be what JSON holds; got {type(value).__name__}")


def digest(value: object) -> str:
    """SHA-256 of a value's canonical JSON."""
    text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def write_json(path: Path, value: object) -> None:
    """Write JSON beside its place and rename it there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".partial")
    beside.write_text(json.dumps(plain(value), indent=1) + "\n")
    os.replace(beside, path)


def fingerprint_folder(folder: Path) -> str:
    """A folder's content by names, sizes and modification times; links are followed, as where images are read."""
    from mechvit.data.class_folders import files_below

    files = [path for path in files_below(folder) if path.is_file()]
    return digest([[os.fspath(p.relative_to(folder)), p.stat().st_size, p.stat().st_mtime_ns] for p in files])


def reset_peak_memory() -> None:
    """Start counting peak memory anew, where the system can (Linux); elsewhere the process's own peak is reported."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_memory_bytes() -> int:
    """Peak resident memory of this process since the last reset, bytes."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def write_tables(folder: Path, tables: Mapping[str, Any]) -> None:
    """Write Parquet tables as one folder, beside its place, and rename it there."""
    beside = folder.with_name(folder.name + ".partial")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    for name, frame in tables.items():
        frame.to_parquet(beside / f"{name}.parquet", index=False)
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)
