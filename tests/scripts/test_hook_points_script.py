"""`mechvit hook-points`: prints or writes the table, of a checkpoint's config alone, and refuses in one line."""

from __future__ import annotations

import pytest
from hf_zoo import ZOO
from script_calls import script

from mechvit.cli.command_line import run
from mechvit.files.signed import signature
from mechvit.models.hook_table import checkpoint_table, family_table

TEXT = "# Hook points\n\nWritten by `mechvit hook-points --out x`\n"
EARLIER = TEXT + signature(TEXT.encode()).decode()


def main(**options):
    module = script("hook_points")
    run(module.main, module.Options(**options))


def test_prints_a_checkpoints_table(tmp_path, capsys):
    ZOO["registers classifier"]().save_pretrained(tmp_path)
    main(model=str(tmp_path))
    assert capsys.readouterr().out == checkpoint_table(str(tmp_path))


@pytest.mark.long
def test_writes_the_families_table(tmp_path):
    out = tmp_path / "points.md"
    main(out=str(out))
    assert out.read_text().startswith(family_table() + "<!-- mechvit ")
    out.write_text(out.read_text() + "my own notes\n")
    with pytest.raises(SystemExit):
        main(out=str(out), overwrite=True)
    assert out.read_text().endswith("my own notes\n")
    assert [path.name for path in tmp_path.iterdir()] == ["points.md"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"model": "./nowhere"}, "./nowhere"),
        ({"zero_shot": True}, "give its --model"),
        ({"out": "OUT/points.md"}, "--overwrite"),
        ({"out": "OUT/mine.md", "overwrite": True}, "is no table of hook points"),
        ({"out": "OUT", "overwrite": True}, "OUT"),
    ],
    ids=["no model", "zero-shot of nothing", "out exists", "out is another file", "out is a folder"],
)
def test_bad_input_ends_in_one_line(options, reason, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "OUT").mkdir()
    (tmp_path / "OUT" / "mine.md").write_text("mine")
    (tmp_path / "OUT" / "points.md").write_text(EARLIER)
    with pytest.raises(SystemExit) as end:
        main(**options)
    (line,) = capsys.readouterr().err.splitlines()
    assert end.value.code == 2
    assert line.startswith("error: ")
    assert reason in line
    assert (tmp_path / "OUT" / "points.md").read_text() == EARLIER
    assert (tmp_path / "OUT" / "mine.md").read_text() == "mine"
    assert not list(tmp_path.glob("*.partial"))
