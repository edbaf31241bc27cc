"""Stages of a run: each has a key computed from all it depends on, and is finished if its record holds that key."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mechvit import files
from mechvit.code_version import code_version, described
from mechvit.data.conditions import fingerprint
from mechvit.data.corruption_spec import Condition
from mechvit.files import new_folder
from mechvit.files.reading import read_object
from mechvit.settings_checks import ADDED_LATER

TABLES = "tables"
BEFORE_FORMATS = "0.1.0"
"""The version contained in the keys of stages before these held a format."""
VOLATILE = ("state.json", "dataset_info.json")
"""Output files that may differ although the content is the same: `datasets` numbers what it saves."""


class Stages:
    """The finished stages of one run's folder.

    A stage's key is the hash of its settings, its output's format and its inputs' keys, so that a changed setting makes
    that stage and all that depend on it run again, and no others. Its record is written after its outputs are complete,
    with their sizes, times and SHA-256: a run that is killed at any moment continues after its last finished stage, and
    a stage runs again if an output is missing or has changed.

    Args:
        folder: folder of the run, opened by `open_run`.
        say: called with a line for each stage.
        verify: whether to read every output again, instead of only those whose size or modification time differs.
        fresh: whether to run every stage again.
    """

    def __init__(
        self, folder: Path, say: Callable[[str], None] = print, *, verify: bool = False, fresh: bool = False
    ) -> None:
        self.folder, self.say, self.verify, self.fresh = folder, say, verify, fresh
        self.code = code_version()
        self._said_other_code = False
        self.keys: dict[str, str] = {}
        self._keys_before: dict[str, str] = {}
        """The keys in their earlier form, with the version and no format."""
        self.contents: dict[str, str] = {}
        """Hash of the outputs of each finished stage."""

    def run(
        self,
        name: str,
        work: Callable[[], object],
        *,
        settings: object,
        after: Iterable[str] = (),
        outputs: Iterable[Path] = (),
        output_format: int = 1,
    ) -> None:
        """Call `work` unless the stage is finished.

        Args:
            name: name of the stage; its record is `stages/NAME.json`.
            work: function that writes the outputs, each completely or not at all.
            settings: everything that the result depends on besides its inputs, as JSON values or dataclasses of them.
            after: names of the stages whose outputs it reads.
            outputs: files or folders of the run that must exist unchanged for the stage to count as finished.
            output_format: number to raise by one whenever the work writes something else from the same inputs, so that
                earlier runs repeat this stage and all that depend on it.
        """
        inputs, paths = list(after), list(outputs)
        key = self._key(name, plain(settings, for_key=True), inputs, output_format)
        reads = {other: self.contents[other] for other in inputs}
        record = self._record(name)
        done = self._read(record)
        if self._has_key(name, done):
            again = self._why_again(done, paths, reads)
            if again is None:
                self._keep(record, done, paths)
                self._name_other_code(done)
                self.say(f"{name}: done before ({done['seconds']:.1f} s)")
                return
            self.say(f"{name}: {again}; it is run again")
        for path in paths:
            was = done.get("outputs", {}).get(self._name(path), {})
            for kept in files.keep_edited(path, was, self.folder / "changed" / name):
                self.say(f"{path} was edited since it was written; the edited files are kept in {kept}")
        for path in (record, *paths):
            files.check_replaceable(path, flag="--out")
        if self.fresh:
            for path in paths:
                files.clear_result(path)
        self.say(f"{name} ...")
        files.remove_file(record)
        reset_peak_memory()
        started, clock = datetime.now(UTC), time.perf_counter()
        work()
        seconds = time.perf_counter() - clock
        missing = [str(path) for path in paths if not path.exists()]
        assert not missing, f"the stage {name} did not write {missing}"
        entry = {
            "name": name,
            "key": key,
            "format": output_format,
            "code": self.code,
            "seconds": round(seconds, 3),
            "peak_memory_bytes": peak_memory_bytes(),
            "started": started.isoformat(timespec="seconds"),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "reads": reads,
        }
        self._keep(record, entry, paths)
        self.say(f"{name}: {seconds:.1f} s")

    def is_finished(
        self,
        name: str,
        work: Callable[[], object] | None = None,
        *,
        settings: object,
        after: Iterable[str] = (),
        outputs: Iterable[Path] = (),
        output_format: int = 1,
    ) -> bool:
        """Return whether `run` with these arguments would find the stage finished, as all in `after` must be."""
        inputs, paths = list(after), list(outputs)
        self._key(name, plain(settings), inputs, output_format)
        record = self._record(name)
        done = self._read(record, say=lambda line: None)
        reads = {other: self.contents[other] for other in inputs}
        if not self._has_key(name, done) or self._why_again(done, paths, reads) is not None:
            return False
        self._keep(record, done, paths)
        return True

    def _has_key(self, name: str, done: Mapping[str, Any]) -> bool:
        """Return whether a stage's record holds its key, in either form, and counts."""
        return not self.fresh and done.get("key") in (self.keys[name], self._keys_before[name])

    def _key(self, name: str, settings: Any, inputs: list[str], output_format: int) -> str:
        """Compute and store a stage's key, and the earlier form of it under which older records still count."""
        about = {"stage": name, "settings": settings}
        key = digest({**about, "format": output_format, "after": [self.keys[other] for other in inputs]})
        before = {**about, "mechvit": BEFORE_FORMATS, "after": [self._keys_before[other] for other in inputs]}
        self.keys[name], self._keys_before[name] = key, digest(before) if output_format == 1 else key
        return key

    def _name_other_code(self, done: dict[str, Any]) -> None:
        """Report once that finished stages were written by other code than the current one."""
        if not self._said_other_code and done.get("code") != self.code:
            self._said_other_code = True
            self.say(
                f"note: finished stages of this run, from {done['name']} on, were written by "
                f"{described(done.get('code'))}; this is {described(self.code)}. They are kept; --fresh starts over"
            )

    def records(self) -> list[dict[str, Any]]:
        """Return the records of this run's stages, in order."""
        paths = [self._record(name) for name in self.keys]
        return [read_object(path, ("name", "seconds")) for path in paths if path.is_file()]

    def _record(self, name: str) -> Path:
        return self.folder / "stages" / f"{name.replace('/', '-')}.json"

    def _read(self, record: Path, say: Callable[[str], None] | None = None) -> dict[str, Any]:
        """Return a stage's record; empty if there is none, or, with a message, if it is damaged."""
        try:
            done = read_object(record, ("key", "seconds"))
            if not isinstance(done["key"], str) or not isinstance(done["seconds"], (int, float)):
                raise ValueError("its key or its seconds are of the wrong type")
            if not (_is_described(done.get("outputs", {})) and isinstance(done.get("reads", {}), dict)):
                raise ValueError("its outputs or its inputs are of the wrong type")
            return done
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            (say or self.say)(f"{record} is damaged ({error}); its stage is run again")
            return {}

    def _why_again(self, done: dict[str, Any], outputs: list[Path], reads: dict[str, str]) -> str | None:
        """Return why a stage with the same key must run again, or None. Records of earlier versions list no outputs."""
        for path in outputs:
            if not path.exists():
                return f"{path} is missing"
            was = done.get("outputs", {}).get(self._name(path))
            if was is not None and (what := files.changed(path, was, verify=self.verify)) is not None:
                return what
        was_read = done.get("reads", reads)
        return next(
            (f"the output of {other} has changed" for other in reads if was_read.get(other) != reads[other]), None
        )

    def _keep(self, record: Path, entry: dict[str, Any], outputs: list[Path]) -> None:
        """Write a stage's record, unless it is there already, and store the hash of its outputs."""
        if "outputs" not in entry:
            entry = {**entry, "outputs": {self._name(path): files.describe(path) for path in outputs}}
            files.write_json(record, entry)
        hashes = {
            f"{name}/{file}": seen[2]
            for name, found in entry["outputs"].items()
            for file, seen in found.items()
            if file not in VOLATILE
        }
        self.contents[entry["name"]] = digest(hashes)

    def _name(self, path: Path) -> str:
        return os.fspath(path.relative_to(self.folder)) if path.is_relative_to(self.folder) else os.fspath(path)


def _is_described(outputs: object) -> bool:
    """Return whether these are outputs as described by `files.describe`: size, mtime and hash of each file."""
    return isinstance(outputs, dict) and all(
        isinstance(made, dict) and all(isinstance(about, list) and len(about) == 3 for about in made.values())
        for made in outputs.values()
    )


def plain(value: object, *, for_key: bool = False) -> Any:
    """Convert dataclasses, tuples, paths and mappings to JSON values.

    Args:
        value: what to convert.
        for_key: leave out settings that were added later (`ADDED_LATER`) and have their defaults.

    Raises:
        TypeError: the value is anything else, which could not be compared with a later run's.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        about = {f.name: plain(getattr(value, f.name), for_key=for_key) for f in _fields(value, for_key)}
        known = fingerprint(value) if isinstance(value, Condition) else None
        return about if known is None else {**about, "fingerprint": known}
    if isinstance(value, Mapping):
        return {str(key): plain(item, for_key=for_key) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, for_key=for_key) for item in value]
    if isinstance(value, Path):
        return os.fspath(value)
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"a stage's settings must be JSON values; got {type(value).__name__}")


def _fields(value: Any, for_key: bool) -> list[dataclasses.Field[Any]]:
    """Return the fields of a dataclass; for a key, those that were added later only where they were set."""
    return [
        each
        for each in dataclasses.fields(value)
        if not (for_key and ADDED_LATER.items() <= each.metadata.items() and getattr(value, each.name) == each.default)
    ]


def write_json(path: Path, value: object) -> None:
    """Write a value, converted by `plain`, as JSON."""
    files.write_json(path, plain(value))


def digest(value: object) -> str:
    """Return the SHA-256 of a value's canonical JSON."""
    text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def reset_peak_memory() -> None:
    """Reset the peak memory counter if the system can (Linux); elsewhere the process's overall peak is reported."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_memory_bytes() -> int:
    """Return this process's peak resident memory since the last reset, in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def write_tables(folder: Path, tables: Mapping[str, Any]) -> None:
    """Write Parquet tables as one folder, replacing an earlier one."""
    with new_folder(folder, TABLES, overwrite=True) as new:
        files.write_tables(new, tables)
