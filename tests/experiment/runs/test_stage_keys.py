"""The parts of a stage's key: settings as JSON, their digest, and the fingerprint of a folder."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
from stage_chain import Settings

from mechvit.data.sources.class_folders import fingerprint_folder
from mechvit.experiment.runs.stages import (
    digest,
    plain,
    write_json,
)
from mechvit.files import writing

pytestmark = pytest.mark.usefixtures("run_folder")


def test_digest_is_of_content_and_not_of_order():
    assert digest({"a": 1, "b": {"c": 2, "d": 3}}) == digest({"b": {"d": 3, "c": 2}, "a": 1})
    assert digest(Settings()) == digest({"layers": [1, 2], "rate": 0.1})
    different = [{"a": 1}, {"a": 2}, {"a": "1"}, {"a": None}, {"b": 1}, [["a", 1]], {"a": True}, {"a": 1.5}]
    assert len({digest(value) for value in different}) == len(different)
    assert digest([1, 2]) != digest([2, 1])
    assert digest(None) == "74234e98afe7498fb5daf1f36ac2d78acc339464f950703b8c019892f982b90b", "SHA-256 of `null`"


def test_plain_holds_what_json_holds(tmp_path):
    value = {"s": Settings(), "p": tmp_path / "x", 3: (None, True, 1.5, "text")}
    found = plain(value)
    assert found == {
        "s": {"rate": 0.1, "layers": [1, 2]},
        "p": os.fspath(tmp_path / "x"),
        "3": [None, True, 1.5, "text"],
    }
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("value", [{1, 2}, object(), b"bytes", Settings, lambda: None, 1j, iter([1])])
def test_plain_refuses_what_json_cannot_hold(value):
    with pytest.raises(TypeError, match="must be JSON values; got"):
        plain({"deep": [value]})


def test_write_json_replaces_a_file_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "file.json"
    write_json(path, {"first": 1})
    with pytest.raises(TypeError):
        write_json(path, {"second": object()})
    seen: list[tuple[str, dict]] = []
    replace = os.replace

    def watched(source: Path, target: Path) -> None:
        seen.append((Path(source).parent.name, json.loads(Path(source).read_text())))
        assert json.loads(path.read_text()) == {"first": 1}
        replace(source, target)

    monkeypatch.setattr(writing.os, "replace", watched)
    write_json(path, {"second": math.pi})
    assert seen == [("deep", {"second": math.pi})], "whole beside its place before it is renamed"
    assert json.loads(path.read_text()) == {"second": math.pi}
    assert [entry.name for entry in path.parent.iterdir()] == ["file.json"]


def test_fingerprint_follows_names_sizes_and_times(tmp_path):
    def fresh() -> str:
        return fingerprint_folder(tmp_path)

    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_text("one")
    first = fresh()
    assert fresh() == first
    times = (tmp_path / "sub" / "a").stat()
    (tmp_path / "sub" / "a").write_text("three")
    os.utime(tmp_path / "sub" / "a", ns=(times.st_atime_ns, times.st_mtime_ns))
    larger = fresh()
    os.utime(tmp_path / "sub" / "a", ns=(times.st_atime_ns, times.st_mtime_ns + 1_000_000_000))
    later = fresh()
    (tmp_path / "sub" / "a").rename(tmp_path / "sub" / "b")
    assert len({first, larger, later, fresh()}) == 4
