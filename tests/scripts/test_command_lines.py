"""The command lines refuse bad input in one line, and never lose what lies at OUT."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from script_calls import SCRIPTS, call, script

from mechvit.cli.command_line import run
from mechvit.data import load_images
from mechvit.experiment.inputs import names_of

BAD = {
    "unknown corruption": ("finetune", {"corruption": ("gaussian_fog_3",), "out": "OUT"}, "gaussian_fog"),
    "no such model": ("finetune", {"model": "./nowhere", "corruption": ("clean",), "out": "OUT"}, "./nowhere"),
    "out of reach": ("finetune", {"model": "no/such-model", "corruption": ("clean",), "out": "OUT"}, "no/such-model"),
    "no such folder": ("evaluate", {"images": "folder:./none"}, "folder:none is not a folder"),
    "no such device": ("evaluate", {"device": "abacus"}, "'abacus'"),
    "tuned called base": ("analyze", {"tuned": ("x/base",), "out": "OUT"}, "rename x/base"),
    "clean alone": ("analyze", {"tuned": ("x",), "out": "OUT", "corruptions": ("clean",)}, "besides clean"),
    "no checkpoint": ("train_sae", {"model": "./nowhere", "out": "OUT"}, "./nowhere"),
    "no sae": ("evaluate_sae", {"saes": ("MODEL",)}, "holds no SAE"),
    "no picture": ("visualize_attention", {"pictures": (Path("none.png"),), "out": Path("OUT")}, "none.png"),
    "not a picture": (
        "visualize_attention",
        {"pictures": (Path(__file__),), "out": Path("OUT")},
        "test_command_lines.py",
    ),
    "no such head": ("explore_attention", {"heads": (9,), "out": Path("OUT")}, "got [9]"),
    "one page twice": ("explore_attention", {"out": Path("OUT"), "lens": Path("OUT")}, "must be two pages"),
    "no such layer": (
        "visualize_attention",
        {"pictures": ("PICTURE",), "layers": (7,), "out": Path("OUT")},
        "got [7]",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_ends_in_one_line(case, checkpoints, tmp_path, monkeypatch, capsys):
    name, options, expected = BAD[case]
    monkeypatch.chdir(tmp_path)
    load_images("photos", "test", limit=1, image_size=32)[0]["image"].save("picture.png")
    options = {"device": "cpu"} | options
    base = checkpoints["base"]
    several = name in ("evaluate", "explore_attention")
    options.setdefault("base" if name == "analyze" else "model", (base,) if several else base)
    stand_ins = {("MODEL",): (base,), ("PICTURE",): (Path("picture.png"),)}
    options = {key: stand_ins.get(value, value) for key, value in options.items()}
    module = script(name)
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        run(module.main, module.Options(**options))
    errors = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert end.value.code == 2
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert expected in errors[0]
    assert not list(tmp_path.glob("OUT*"))


@pytest.mark.processes
def test_bad_input_of_a_process():
    command = [sys.executable, str(SCRIPTS / "finetune.py"), "--model", "m", "--corruption", "rain_2", "--out", "o"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: corruption family must be one of clean, gaussian_blur, gaussian_noise, ")
    assert done.stderr.endswith("; got 'rain'\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.processes
def test_bad_setting_of_a_nested_config():
    command = [sys.executable, str(SCRIPTS / "train_sae.py"), "--model", "m", "--out", "o", "--config.k", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "k must be at least 1; got 0" in done.stderr


def test_a_fault_of_the_code_is_not_hidden():
    def faulty() -> None:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        run(faulty)


# what lies at OUT


@pytest.mark.parametrize("name", ["finetune", "train_sae"])
def test_long_trainings_refuse_before_they_start(name, checkpoints, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    more = {"corruption": ("clean",)} if name == "finetune" else {}
    with pytest.raises(ValueError, match="is no earlier result"):
        call(name, model=checkpoints["base"], out=str(tmp_path), overwrite=True, **more)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_names_are_whole_paths_where_last_parts_clash():
    assert names_of(["a/base", "b/base", "b/blur"]) == {"a/base": "a/base", "b/base": "b/base", "blur": "b/blur"}


@pytest.mark.filterwarnings("default")
def test_a_warning_is_one_line(capfd):
    def main() -> None:
        warnings.warn("left out 2 of 3 files:\n  a.png", stacklevel=1)

    run(main)
    assert capfd.readouterr().err == "warning: left out 2 of 3 files: a.png\n"
