"""Commands that really run out of room, memory or finite numbers end in one line that says where and what to do."""

from __future__ import annotations

import resource
import subprocess
import sys
from contextlib import contextmanager

import pytest
from script_calls import SCRIPTS, script

from mechvit.cli.command_line import run

BLUR = "gaussian_blur_2"
SLOW = pytest.mark.slow


@contextmanager
def small_files(largest: int):
    """No file may become larger: a stand-in for a full disk that needs no mount.

    Bytecode would be cut off too, without an error, and be read by every later process.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    kept, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, hard))
    try:
        yield
    finally:
        sys.dont_write_bytecode = kept
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def ended(name: str, capsys, **options: object) -> str:
    """The one line that a command ends with."""
    module = script(name)
    made = module.Options(**{"device": "cpu", **options}) if name != "hook_points" else module.Options(**options)
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        run(module.main, made)
    shown = capsys.readouterr().err
    lines = [line for line in shown.splitlines() if line.startswith("error: ")]
    assert end.value.code == 2
    assert len(lines) == 1, shown
    assert "Traceback" not in shown
    return lines[0]


WRITING = {
    "finetune": {"model": "BASE", "corruption": (BLUR,), "limit": 19, "validation_limit": 19},
    "evaluate": {"model": ("BASE",), "limit": 500, "corruptions": ("clean",)},
    "analyze": {"base": "BASE", "tuned": ("TUNED",), "corruptions": (BLUR,), "limit": 19},
    "cache_activations": {"model": "BASE", "limit": 19},
    "swap_weights": {"base": "BASE", "tuned": "TUNED", "corruptions": (BLUR,), "limit": 19},
    "hook_points": {},
}
FAST = ("cache_activations", "hook_points")


@pytest.mark.long
@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in FAST else SLOW) for name in WRITING])
def test_a_full_disk_names_the_place(name, checkpoints, tmp_path, capsys):
    places = {"BASE": checkpoints["base"], "TUNED": checkpoints[BLUR]}
    options = {
        key: places.get(value, value) if not isinstance(value, tuple) else tuple(places.get(v, v) for v in value)
        for key, value in WRITING[name].items()
    }
    out = tmp_path / "out"
    with small_files(2_000):
        line = ended(name, capsys, out=str(out), **options)
    assert str(tmp_path) in line
    assert any(said in line for said in ("no space is left", "is full"))
    assert name == "cache_activations" or not out.exists()  # a cache goes on with the shards that it has


@pytest.mark.long
def test_a_training_that_diverges_names_the_way_out(checkpoints, tmp_path, capsys):
    from mechvit.finetuning import FinetuneConfig

    line = ended(
        "finetune",
        capsys,
        model=checkpoints["base"],
        corruption=(BLUR,),
        out=str(tmp_path / "out"),
        limit=19,
        validation_limit=19,
        config=FinetuneConfig(learning_rate=1e30, epochs=1),
    )
    assert line == "error: the validation loss was not finite in any epoch: lower the learning rate, or use fp32"


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words", "flag"),
    [
        ("evaluate", ["--model", "BASE", "--batch-size", "1900", "--corruptions", "clean"], "lower --batch-size,"),
        (
            "finetune",
            ["--model", "BASE", "--corruption", "clean", "--out", "out", "--config.batch-size", "1900"],
            "lower --config.batch-size,",
        ),
    ],
)
def test_memory_that_really_runs_out_names_the_batch(name, words, flag, checkpoints, tmp_path):
    """The process's address space is limited to what it has, and 64 MiB more, when the images are there."""
    code = """
import resource, runpy, sys
from mechvit.experiment import inputs
real = inputs.prepared_images
def prepared(*args, **kwargs):
    found = real(*args, **kwargs)
    import torch, transformers
    from transformers import Trainer
    import mechvit.analysis, mechvit.finetuning
    pages = int(open("/proc/self/statm").read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + (64 << 20), resource.RLIM_INFINITY))
    return found
inputs.prepared_images = prepared
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    words = [checkpoints["base"] if word == "BASE" else word for word in words]
    done = subprocess.run(
        [sys.executable, "-c", code, str(SCRIPTS / f"{name}.py"), *words, "--device", "cpu"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: out of memory")
    assert flag in lines[0]
    assert "Traceback" not in done.stderr
