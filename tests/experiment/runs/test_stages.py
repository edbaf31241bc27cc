"""Stages: what makes one run again, what a cut leaves behind, and what the records say."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from stage_chain import Settings, chain, record

from mechvit.experiment.runs.stages import (
    Stages,
    peak_memory_bytes,
    reset_peak_memory,
    write_json,
)
from mechvit.files import write_text

pytestmark = pytest.mark.usefixtures("run_folder")


def test_finished_stages_do_not_run_again(tmp_path):
    assert chain(tmp_path)[0] == ["a", "part/b", "c", "d"]
    before = {path: path.read_bytes() for path in (tmp_path / "stages").iterdir()}
    assert chain(tmp_path)[0] == []
    assert {path: path.read_bytes() for path in (tmp_path / "stages").iterdir()} == before


@pytest.mark.parametrize(
    ("changed", "rerun"), [("a", ["a", "part/b", "c"]), ("part/b", ["part/b", "c"]), ("c", ["c"]), ("d", ["d"])]
)
def test_a_changed_setting_reruns_its_dependents_only(tmp_path, changed, rerun):
    chain(tmp_path)
    assert chain(tmp_path, **{changed: Settings(rate=0.2)})[0] == rerun
    assert chain(tmp_path, **{changed: Settings(rate=0.2)})[0] == []
    assert chain(tmp_path)[0] == rerun, "the first settings' outputs were written over"


def test_a_raised_format_reruns_its_dependents_only(tmp_path):
    chain(tmp_path)
    raised = {"part/b": 2}
    assert chain(tmp_path, formats=raised)[0] == ["part/b", "c"]
    assert chain(tmp_path, formats=raised)[0] == []
    assert [record(tmp_path, name)["format"] for name in ("a", "part-b", "c")] == [1, 2, 1]


def as_before(folder: Path, settings: dict[str, object]) -> None:
    """Turn the records of `chain` into those of the version in whose keys it stood, in its own formula."""
    keys: dict[str, str] = {}
    for name, after in (("a", []), ("part/b", ["a"]), ("c", ["part/b"]), ("d", [])):
        made_of = {"settings": settings, "after": [keys[other] for other in after]}
        text = json.dumps({"stage": name, "mechvit": "0.1.0", **made_of}, sort_keys=True, separators=(",", ":"))
        keys[name] = hashlib.sha256(text.encode()).hexdigest()
        path = folder / "stages" / f"{name.replace('/', '-')}.json"
        old = json.loads(path.read_text()) | {"key": keys[name]}
        del old["format"]
        path.write_text(json.dumps(old))


@pytest.mark.parametrize(
    ("formats", "rerun"),
    [({}, []), ({"c": 2}, ["c"]), ({"a": 2}, ["a", "part/b", "c"]), ({"d": 3, "c": 2}, ["c", "d"])],
)
def test_what_an_earlier_version_finished_stays_finished_but_for_raised_formats(tmp_path, formats, rerun):
    chain(tmp_path)
    as_before(tmp_path, {"rate": 0.1, "layers": [1, 2]})
    assert chain(tmp_path, formats=formats)[0] == rerun
    assert chain(tmp_path, formats=formats)[0] == []
    assert chain(tmp_path, formats=formats, a=Settings(rate=0.2))[0] == ["a", "part/b", "c"]


def test_a_missing_output_or_record_makes_its_stage_run_again(tmp_path):
    chain(tmp_path)
    (tmp_path / "out" / "part-b").unlink()
    assert chain(tmp_path)[0] == ["part/b"]
    (tmp_path / "stages" / "c.json").unlink()
    assert chain(tmp_path)[0] == ["c"]


def test_a_stage_that_raises_leaves_no_record_and_runs_again(tmp_path):
    out = tmp_path / "out"

    def half() -> None:
        write_text(out, "ha")
        raise RuntimeError("cut off")

    def whole() -> None:
        write_text(out, "whole")

    stages = Stages(tmp_path, say=lambda line: None)
    with pytest.raises(RuntimeError, match="cut off"):
        stages.run("s", half, settings=1, outputs=[out])
    assert out.read_text() == "ha"
    assert stages.records() == []
    Stages(tmp_path, say=lambda line: None).run("s", whole, settings=1, outputs=[out])
    assert out.read_text() == "whole"


def test_an_old_record_is_gone_before_its_outputs_are_overwritten(tmp_path):
    """A run with changed settings that is cut, then the first settings again: the half-written output is no result."""
    out = tmp_path / "out"
    stages = Stages(tmp_path, say=lambda line: None)
    stages.run("s", lambda: write_text(out, "first"), settings=1, outputs=[out])

    def cut() -> None:
        assert not (tmp_path / "stages" / "s.json").exists()
        write_text(out, "sec")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Stages(tmp_path, say=lambda line: None).run("s", cut, settings=2, outputs=[out])
    Stages(tmp_path, say=lambda line: None).run("s", lambda: write_text(out, "again"), settings=1, outputs=[out])
    assert out.read_text() == "again"


@pytest.mark.processes
def test_a_killed_process_leaves_no_record(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from mechvit import files; "
        "from mechvit.experiment.runs.stages import Stages; out = Path(sys.argv[1]); stages = Stages(out); "
        "stages.run('whole', lambda: files.write_text(out / 'w', 'w'), settings=1, outputs=[out / 'w']); "
        "work = lambda: (files.write_text(out / 'h', 'h'), os.kill(os.getpid(), signal.SIGKILL)); "
        "stages.run('half', work, settings=1, "
        "outputs=[out / 'h'])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, capture_output=True)
    assert done.returncode == -9
    assert (tmp_path / "h").read_text() == "h"
    assert [path.name for path in (tmp_path / "stages").iterdir()] == ["whole.json"]


def test_a_stage_that_does_not_write_its_output_is_named(tmp_path):
    stages = Stages(tmp_path, say=lambda line: None)
    with pytest.raises(AssertionError, match="stage s did not write"):
        stages.run("s", lambda: None, settings=1, outputs=[tmp_path / "never"])
    assert stages.records() == []


def test_records_are_in_order_and_of_this_run_only(tmp_path):
    write_json(tmp_path / "stages" / "stray.json", {"name": "stray"})
    records = chain(tmp_path)[1].records()
    assert [entry["name"] for entry in records] == ["a", "part/b", "c", "d"]
    assert len({entry["key"] for entry in records}) == 4
    for entry in records:
        assert entry["seconds"] >= 0
        assert entry["started"] <= entry["finished"]
        assert entry["peak_memory_bytes"] > 10 * 2**20
        assert entry == record(tmp_path, entry["name"].replace("/", "-"))


def test_what_is_said(tmp_path):
    said: list[str] = []
    Stages(tmp_path, said.append).run("s", lambda: None, settings=1)
    Stages(tmp_path, said.append).run("s", lambda: None, settings=1)
    assert said == ["s ...", "s: 0.0 s", "s: done before (0.0 s)"]


def test_peak_memory_is_each_stage_s_own(tmp_path):
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        pytest.skip(f"peak memory cannot be reset here: {error}")  # only Linux with a writable /proc counts it a stage
    size = 200 * 2**20

    def greedy() -> None:
        block = bytearray(size)
        block[::4096] = b"x" * len(block[::4096])

    stages = Stages(tmp_path, say=lambda line: None)
    reset_peak_memory()
    before = peak_memory_bytes()
    stages.run("greedy", greedy, settings=1)
    stages.run("modest", lambda: None, settings=1)
    peaks = [entry["peak_memory_bytes"] for entry in stages.records()]
    assert peaks[0] > before + 0.9 * size
    assert peaks[1] < peaks[0] - 0.9 * size


def test_stages_of_other_code_are_kept_and_named_once(tmp_path, monkeypatch):
    from mechvit.experiment.runs import stages as module

    old = {"version": "0.1.0", "commit": "a" * 40, "dirty": False}
    new = {"version": "0.1.0", "commit": "b" * 40, "dirty": True}
    monkeypatch.setattr(module, "code_version", lambda: old)
    said: list[str] = []
    chain(tmp_path, said=said)
    assert chain(tmp_path, said=said)[0] == []
    assert "note:" not in "".join(said)
    assert record(tmp_path, "a")["code"] == old
    monkeypatch.setattr(module, "code_version", lambda: new)
    assert chain(tmp_path, said=said)[0] == []
    (note,) = [line for line in said if line.startswith("note:")]
    assert "mechvit 0.1.0 (commit aaaaaaaaaaaa); this is mechvit 0.1.0 (commit bbbbbbbbbbbb, with changes)" in note
    assert "--fresh starts over" in note
    assert record(tmp_path, "a")["code"] == old


def test_fresh_does_every_stage_again(tmp_path):
    first = chain(tmp_path)[0]
    assert chain(tmp_path)[0] == []
    assert chain(tmp_path, fresh=True)[0] == first


def test_fresh_removes_what_was_begun_and_no_file_of_others(tmp_path):
    from mechvit.files import new_folder, write_text

    out = tmp_path / "out"
    with new_folder(out, "tables") as folder:
        write_text(folder / "a.parquet", "old")

    def work() -> None:
        assert not out.exists()
        with new_folder(out, "tables") as folder:
            write_text(folder / "a.parquet", "new")

    Stages(tmp_path, lambda line: None, fresh=True).run("s", work, settings=1, outputs=[out])
    assert (out / "a.parquet").read_text() == "new"
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"thesis\.txt"):
        Stages(tmp_path, lambda line: None, fresh=True).run("s", work, settings=1, outputs=[out])
    assert (out / "thesis.txt").read_text() == "mine"
