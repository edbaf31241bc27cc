"""Every bad command line is answered in one line, before anything is computed, and leaves nothing behind."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from bad_command_lines import BAD, BENCHMARKS, BLUR, GOOD, ROWS
from script_calls import SCRIPTS, script

from mechvit.cli.command_line import read, run
from mechvit.cli.faults import explain
from mechvit.cli.main import read_options
from mechvit.data import load_images


class Computed(BaseException):
    """Something was computed before the command line was refused."""


def command(name: str) -> ModuleType:
    """A script or a benchmark as a module."""
    if (SCRIPTS / f"{name}.py").is_file():
        return script(name)
    path = BENCHMARKS / f"{name.removesuffix('_benchmark')}.py"
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def places(checkpoints, saes, tmp_path_factory) -> dict[str, str]:
    """The paths that the words of the table stand for."""
    picture = tmp_path_factory.mktemp("pictures") / "picture.png"
    load_images("photos", "test", limit=1, image_size=32)[0]["image"].save(picture)
    sae = next(path.parent for path in sorted(saes.glob("*/cfg.json")))
    return {
        "BASE": checkpoints["base"],
        "TUNED": checkpoints[BLUR],
        "SAES": str(saes),
        "SAE": str(sae),
        "PICTURE": str(picture),
        "EMPTY": "",
    }


def words_of(name: str, changes: str, places: dict[str, str]) -> list[str]:
    """A good command line with some flags in place of its own; words under an empty flag stand alone, first."""
    flags: dict[str, list[str]] = {flag: value.split() for flag, value in GOOD[name].items()}
    for part in f" {changes}".split(" --")[1:]:
        flag, *values = part.split()
        flags[flag] = values
    named = [word for flag, values in flags.items() for word in (*([f"--{flag}"] if flag else []), *values)]
    return [places.get(word, word) for word in named]


def options_of(module: ModuleType, words: list[str]) -> Any:
    """A command's options, or a benchmark's."""
    if module.__name__.startswith("mechvit.cli."):
        return read_options(module.__name__.rpartition(".")[2], words)
    return read(module.Options, None, args=words)


def started(module: ModuleType, words: list[str]) -> None:
    """Do as the file does when it is run."""
    run(module.main, options_of(module, words))


@pytest.fixture
def tripwire(monkeypatch):
    """Refuse every forward pass but the one of a blank image that finds the hook points, every step and every stage."""
    import torch
    import transformers

    from mechvit.experiment.runs.stages import Stages
    from mechvit.models import HookedViT
    from mechvit.saes.training.loop import Loop

    real = HookedViT.forward

    def forward(self, pixels, *args, **kwargs):
        if torch.is_tensor(pixels) and len(pixels) == 1 and not pixels.any():
            return real(self, pixels, *args, **kwargs)
        raise Computed("a forward pass")

    def refuse(*args, **kwargs):
        raise Computed(f"{args}")

    monkeypatch.setattr(HookedViT, "forward", forward)
    for owner, name in ((transformers.Trainer, "train"), (Stages, "run"), (Loop, "run")):
        monkeypatch.setattr(owner, name, refuse)


def test_the_table_is_large_and_covers_every_command():
    assert len(ROWS) >= 93
    assert len({(name, words) for name, words, _ in ROWS}) == len(ROWS)
    known = {path.stem for path in SCRIPTS.glob("*.py")}
    known |= {path.stem for path in BENCHMARKS.glob("*.py") if "read(Options" in path.read_text()}
    assert known == {name.removesuffix("_benchmark") for name in BAD}


@pytest.mark.parametrize(("name", "changes", "said"), ROWS, ids=[f"{name} {words}" for name, words, _ in ROWS])
def test_a_bad_command_line_is_one_line_before_anything_is_computed(
    name, changes, said, places, tmp_path, monkeypatch, capsys, tripwire
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    words = words_of(name, changes, places | {"OUT": str(tmp_path / "OUT")})
    module = command(name)
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        started(module, words)
    shown = capsys.readouterr()
    errors = [line for line in shown.err.splitlines() if line.startswith("error: ")]
    assert end.value.code == 2
    assert len(errors) == 1, shown.err
    assert said in errors[0]
    assert "Traceback" not in shown.err
    assert errors[0].isprintable()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", GOOD)
def test_the_good_command_lines_are_read(name, places, monkeypatch):
    """So that each bad one is refused for its change alone."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module, words = command(name), words_of(name, "", places | {"OUT": "OUT"})
    assert options_of(module, words)


def test_a_hostile_name_is_shown_escaped(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        started(command("evaluate"), ["--model", "\x1b[31mred\u202e"])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("device: ")]
    assert line.startswith("error: ")
    assert r"\x1b[31mred\u202e" in line
    assert line.isprintable()


@pytest.mark.long
@pytest.mark.processes
@pytest.mark.parametrize(
    ("path", "words", "said"),
    [
        ("scripts/finetune.py", ["--out", "x", "--model", "m", "--corruption", "--limit", "\x1b[2J"], r"\x1b[2J"),
        ("benchmarks/startup.py", ["--out", "x", "--rounds", "0"], "--rounds must be at least 1; got 0"),
        *(
            pytest.param(*row, marks=pytest.mark.slow)  # read and refused within this process above
            for row in (
                ("scripts/evaluate.py", ["--model", "\x1b[31mred\u202e"], r"\x1b[31mred\u202e"),
                ("scripts/reproduce.py", ["--saes.k", "100000"], "--saes.k must be at most the 768 latents"),
                ("scripts/train_sae.py", ["--out", "x", "--config.lr", "nan"], "--config.lr must be finite"),
                ("scripts/transfer.py", ["--device", "mars"], "--device 'mars' cannot be used here"),
            )
        ),
    ],
)
def test_whole_processes(path, words, said, tmp_path):
    done = subprocess.run(
        [sys.executable, str(SCRIPTS.parent / path), *words], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 2
    assert said in done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("device: ")]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert done.stdout == ""
    assert not list(tmp_path.iterdir())


def test_memory_that_ran_out_names_each_command_s_own_flags():
    options = script("train_sae").Options(model="m", out="x")
    assert "--config.train-batch-size-tokens or --config.images-per-batch" in str(explain(MemoryError(), options))
    options = script("finetune").Options(model="m", out="x", corruption=("clean",))
    assert "lower --config.batch-size," in str(explain(MemoryError(), options))
    options = script("evaluate").Options(model=("m",))
    assert "lower --batch-size," in str(explain(MemoryError(), options))
    options = script("explore_attention").Options(model=("m",), out=Path("x"))
    assert "lower --max-bytes," in str(explain(MemoryError(), options))


@pytest.mark.long
@pytest.mark.parametrize("name", ["finetune", "evaluate", "train_sae", "steer", "reproduce", "cache_activations"])
def test_good_command_lines_do_reach_the_computing(name, places, tmp_path, monkeypatch, tripwire):
    """So that a bad one that is refused was refused before it."""
    monkeypatch.chdir(tmp_path)
    module = command(name)
    words = words_of(name, "--limit 19", places | {"OUT": str(tmp_path / "OUT")})
    with pytest.raises(Computed):
        started(module, words)
