"""A wheel carries everything: installed alone, it runs a small experiment from an empty folder and knows its commit."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SMALL = """
--corruptions gaussian_blur_2 gaussian_noise_4 --related box_blur_2 --device cpu --rules.resamples 50
--counts.train 95 --counts.validation 38 --counts.finetune 57 --counts.finetune-validation 19 --counts.sae 38
--counts.sae-validation 19 --counts.test 38 --counts.attention 19 --counts.isolation 24
--shape.image-size 32 --shape.d-model 16 --shape.n-layers 2 --shape.n-heads 2 --shape.d-mlp 32
--base.epochs 1 --finetuning.epochs 1 --saes.epochs 1 --saes.k 4 --saes.expansion-factor 4
--saes.train-batch-size-tokens 128 --saes.images-per-batch 16
"""


def done(*command: Any, cwd: Path, **options: Any) -> str:
    """The output of a command, which must succeed."""
    ran = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False, **options)
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-4000:]
    return ran.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    done(
        sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", folder, ROOT, cwd=folder
    )
    (made,) = folder.glob("mechvit-*.whl")
    return made


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """A new environment with the wheel alone; this one lends it the dependencies, and not this checkout."""
    folder = tmp_path_factory.mktemp("environment") / "env"
    done(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    (site,) = folder.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(site)
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


@pytest.mark.slow
@pytest.mark.processes
def test_the_wheel_holds_all_that_the_package_reads(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    here = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "mechvit").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert here <= inside
    assert {name for name in inside - here if name.startswith("mechvit/")} == {"mechvit/_built.py"}
    (entry,) = [name for name in inside if name.endswith("entry_points.txt")]
    assert "mechvit = mechvit.cli.main:main" in zipfile.ZipFile(wheel).read(entry).decode()


@pytest.mark.slow
@pytest.mark.processes
def test_the_wheel_runs_the_experiment_alone(environment, tmp_path):
    python = environment / "bin" / "python"
    where = done(python, "-c", "import mechvit; print(mechvit.__file__)", cwd=tmp_path).strip()
    assert Path(where).is_relative_to(environment)
    assert "reproduce" in done(python, "-m", "mechvit", "--help", cwd=tmp_path)
    call = "from mechvit.views import attention_view; print(callable(attention_view))"
    assert done(python, "-c", call, cwd=tmp_path).strip() == "True"
    done(python, "-m", "mechvit", "reproduce", *SMALL.split(), "--out", "run", cwd=tmp_path)
    assert (tmp_path / "run" / "report.html").stat().st_size > 1_000_000
    code = json.loads((tmp_path / "run" / "provenance.json").read_text())["code"]
    commit = done("git", "rev-parse", "HEAD", cwd=ROOT).strip() if (ROOT / ".git").exists() else None
    assert code["commit"] == commit
