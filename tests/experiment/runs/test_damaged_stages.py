"""Outputs and records that were damaged or edited since their stage finished."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from stage_chain import Settings, chain, record

from mechvit import files
from mechvit.experiment.runs.stages import (
    Stages,
    write_json,
)
from mechvit.files import write_text

pytestmark = pytest.mark.usefixtures("run_folder")


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
