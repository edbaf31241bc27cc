"""Stages: what makes one run again, what a cut leaves behind, and what the records say."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from mechvit import files
from mechvit.experiment.runs.stages import (
    Stages,
    digest,
    fingerprint_folder,
    peak_memory_bytes,
    plain,
    reset_peak_memory,
    write_json,
)
from mechvit.files import write_text, writing


@pytest.fixture(autouse=True)
def run_folder(tmp_path):
    """A run's folder is marked as ours."""
    files.begin(tmp_path, "views")


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


# outputs that were damaged since


def harm(path: Path, how: str) -> None:
    """Change an output as a user, a disk or a program might."""
    before = path.stat()
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    elif how == "bit":  # the same size, another time
        path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    elif how == "touched":
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    elif how == "silent bit":  # the same size and time: what a disk does
        path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("missing", "is missing"),
        ("truncated", "bytes, and had"),
        ("bit", "has other content than was written"),
        ("touched", None),
        ("silent bit", None),
    ],
)
def test_a_damaged_output_is_made_again_with_one_line(tmp_path, how, said):
    def run(**options):
        ran, lines = [], []
        stages = Stages(tmp_path, lines.append, **options)

        def work() -> None:
            ran.append(1)
            with files.new_folder(tmp_path / "tables", "tables", overwrite=True) as folder:
                write_text(folder / "a.parquet", "first table")
                write_text(folder / "deep" / "b.parquet", "second table")

        stages.run("tables", work, settings=1, outputs=[tmp_path / "tables"])
        return ran, lines

    assert run()[0] == [1]
    harm(tmp_path / "tables" / "deep" / "b.parquet", how)
    ran, lines = run()
    assert bool(ran) == (said is not None)
    assert [said in line for line in lines].count(True) == 1 if said else True
    if how == "silent bit":  # only a whole reading finds it
        ran, lines = run(verify=True)
        assert ran == [1]
        assert "other content" in lines[0]
    assert (tmp_path / "tables" / "deep" / "b.parquet").read_text() == "second table"
    assert run()[0] == []


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", '{"key": 3}', '{"key": "x"}', "\x00" * 40])
def test_a_damaged_record_is_named_and_its_stage_done_again(tmp_path, text):
    chain(tmp_path)
    (tmp_path / "stages" / "c.json").write_text(text)
    lines: list[str] = []
    stages = Stages(tmp_path, lines.append)
    stages.run("c", lambda: write_json(tmp_path / "out" / "c", "c"), settings=1, outputs=[tmp_path / "out" / "c"])
    assert f"{tmp_path / 'stages' / 'c.json'} is damaged" in lines[0]
    assert record(tmp_path, "c")["key"] == stages.keys["c"]


def test_what_is_made_again_with_other_content_makes_what_reads_it_run_again(tmp_path):
    """A stage of equal settings may give other bits (another number of threads): later stages must not mix the two."""

    def run(text: str) -> list[str]:
        ran: list[str] = []
        stages = Stages(tmp_path, lambda line: None)
        for name, after in (("a", []), ("b", ["a"]), ("c", [])):
            out = tmp_path / name

            def work(name: str = name, out: Path = out) -> None:
                ran.append(name)
                write_text(out, text if name == "a" else f"{name}, which never changes")

            stages.run(name, work, settings=1, after=after, outputs=[out])
        return ran

    assert run("first") == ["a", "b", "c"]
    (tmp_path / "a").unlink()
    assert run("first") == ["a"]
    (tmp_path / "a").unlink()
    assert run("other") == ["a", "b"]
    assert run("other") == []


def test_records_of_before_know_no_hashes_and_get_them(tmp_path):
    chain(tmp_path)
    path = tmp_path / "stages" / "a.json"
    old = {name: value for name, value in record(tmp_path, "a").items() if name not in ("outputs", "reads")}
    path.write_text(json.dumps(old))
    assert chain(tmp_path)[0] == []
    assert record(tmp_path, "a")["outputs"]["out/a"][""][2]


def test_a_users_file_in_an_output_is_refused_before_the_work(tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "thesis.txt").write_text("mine")
    for out in (tmp_path / "tables", tmp_path / "tables" / "thesis.txt"):
        with pytest.raises(ValueError, match="give another --out"):
            Stages(tmp_path, lambda line: None).run("s", lambda: pytest.fail("it ran"), settings=1, outputs=[out])
    assert (tmp_path / "tables" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "null",
        '"done"',
        '[["key", "x"], ["seconds", 1]]',
        "[" * 100_000,
        '{"key": 1, "seconds": 1}',
        '{"key": "x", "seconds": [1]}',
        '{"key": "KEY", "seconds": 1, "outputs": []}',
        '{"key": "KEY", "seconds": 1, "outputs": {"out/a": [1]}}',
        '{"key": "KEY", "seconds": 1, "outputs": {"out/a": {"": [1]}}}',
        '{"key": "KEY", "seconds": 1, "reads": [1]}',
    ],
)
def test_a_record_of_another_form_is_named_and_its_stage_done_again(text, tmp_path):
    chain(tmp_path)
    path = tmp_path / "stages" / "a.json"
    path.write_text(text.replace("KEY", record(tmp_path, "a")["key"]))
    said: list[str] = []
    stages, ran = Stages(tmp_path, say=said.append), []
    stages.run(
        "a",
        lambda: (ran.append("a"), write_json(tmp_path / "out" / "a", "a")),
        settings=Settings(),
        outputs=[tmp_path / "out" / "a"],
    )
    assert ran == ["a"]
    assert f"{path} is damaged" in said[0]
    assert stages.records()[0]["name"] == "a"


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


@pytest.mark.parametrize("fresh", [False, True])
def test_what_was_changed_of_an_output_is_kept(tmp_path, fresh):
    """An edited model card is replaced by the stage that runs again, and lies in `changed` from then on."""
    from mechvit.files import new_folder, write_text

    def work() -> None:
        with new_folder(tmp_path / "saes", "SAEs", overwrite=True) as folder:
            write_text(folder / "README.md", "card")

    said: list[str] = []
    for time in (1, 2):
        Stages(tmp_path, lambda line: None).run("saes/base", work, settings=1, outputs=[tmp_path / "saes"])
        (tmp_path / "saes" / "README.md").write_text(f"card, with my notes {time}")
        Stages(tmp_path, said.append, fresh=fresh).run("saes/base", work, settings=1, outputs=[tmp_path / "saes"])
        kept = tmp_path / "changed" / "saes" / "base" / str(time) / "README.md"
        assert kept.read_text() == f"card, with my notes {time}"
        assert f"{tmp_path / 'saes'} was edited since it was written; the edited files are kept in {kept}" in said
        assert (tmp_path / "saes" / "README.md").read_text() == "card"
