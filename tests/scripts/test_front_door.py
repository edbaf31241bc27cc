"""`mechvit`: it lists its commands quickly and without a heavy import, and answers a wrong word in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from script_calls import SCRIPTS, script

from mechvit.cli.main import COMMANDS, NAMES, main, overview
from mechvit.cli.options import DeviceOptions, ImageOptions


def test_every_command_is_listed_once_and_has_a_script():
    files = {path.stem for path in Path(script("analyze").__file__).parent.glob("*.py")}
    commands = {name.replace("-", "_") for name in NAMES}
    assert len(NAMES) == len(commands)
    assert files - commands == {"__init__", "command_line", "faults", "main", "options"}
    assert {path.stem for path in SCRIPTS.glob("*.py")} == commands
    for name in NAMES:
        module = script(name.replace("-", "_"))
        assert callable(module.main)
        assert hasattr(module, "Options") != hasattr(module, "PRESETS")
        assert f'main(["{name}", *sys.argv[1:]])' in (SCRIPTS / f"{name.replace('-', '_')}.py").read_text()


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_all(words, capsys):
    main(words)
    said = capsys.readouterr().out
    assert said == overview() + "\n"
    assert all(f"  {name} " in said for name in NAMES)
    assert all(group in said for group in COMMANDS)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("analyse", "error: there is no command analyse: did you mean analyze?\n"),
        ("train_sea", "error: there is no command train_sea: did you mean train-sae?\n"),
        ("\x1b[31mxyz", "error: there is no command \\x1b[31mxyz: `mechvit --help` lists them\n"),
        ("--out", "error: there is no command --out: `mechvit --help` lists them\n"),
    ],
)
def test_a_wrong_word_is_answered_in_one_line(word, said, capsys):
    with pytest.raises(SystemExit) as end:
        main([word])
    assert end.value.code == 2
    assert capsys.readouterr().err == said


def test_underscores_are_taken_too(capsys):
    with pytest.raises(SystemExit) as end:
        main(["hook_points", "--help"])
    assert end.value.code == 0
    assert "usage: mechvit hook-points" in capsys.readouterr().out


def test_own_options_come_first():
    fields = list(script("analyze").Options.__dataclass_fields__)
    assert fields[:3] == ["base", "tuned", "out"]
    shared = [name for name in fields if name in ImageOptions.__dataclass_fields__]
    assert shared == list(ImageOptions.__dataclass_fields__)
    assert fields.index("images") < fields.index("seed")
    assert set(DeviceOptions.__dataclass_fields__) < set(fields)


@pytest.mark.processes
def test_the_list_needs_no_heavy_import():
    code = "import sys; from mechvit.cli.main import main; main(['--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "transformers", "transformer_lens", "datasets", "pandas", "plotly", "tyro", "numpy"}
    assert not heavy & set(done.stdout.splitlines()[-1].split())


@pytest.mark.processes
@pytest.mark.parametrize("words", ["--help", "analyze --help", "evaluate --help"])
def test_a_reader_that_ends_early_is_no_fault(words):
    """For example `mechvit analyze --help | head`."""
    command = f"{sys.executable} -m mechvit {words} | head -c 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""
