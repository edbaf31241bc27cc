"""The transfer experiment on a tiny scale: what it leaves, what a second call does, and that SIGKILL loses nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from mechvit import HookedViT
from mechvit.analysis import corrupted_performance, transfer
from mechvit.data import Corruption, load_images, prepare
from mechvit.data.mixture_spec import parse_training
from mechvit.experiment import TransferConfig, TransferCounts, run_transfer
from mechvit.experiment.runs.stages import Stages
from mechvit.finetuning import FinetuneConfig, ViTShape

TRAINED = ["clean", "gaussian_noise_4", "box_blur_2", "median_blur_1", "box_blur_2+gaussian_noise_4"]
TABLES = {"performance", "transfer", "transfer_means", "transfer_similarity", "spectra", "training"}


def tiny(out: Path, **changes: object) -> TransferConfig:
    """Three corruptions and one mixture, a ViT of 2 layers and width 16 on 32 px photographs."""
    quick = FinetuneConfig(learning_rate=1e-3, epochs=1, batch_size=32)
    config = TransferConfig(
        out=str(out),
        corruptions=("gaussian_noise_4", "box_blur_2", "median_blur_1"),
        mixtures=("box_blur_2+gaussian_noise_4",),
        also_tested=("fog_1",),
        device="cpu",
        counts=TransferCounts(train=95, validation=38, finetune=57, finetune_validation=19, test=38, spectrum=19),
        shape=ViTShape(image_size=32, d_model=16, n_layers=2, n_heads=2, d_mlp=32),
        base=quick,
        finetuning=quick,
        resamples=50,
    )
    return replace(config, **changes)


def tables(run: Path) -> dict[str, pd.DataFrame]:
    return {path.stem: pd.read_parquet(path) for path in sorted((run / "tables").glob("*.parquet"))}


def assert_same_tables(first: Path, second: Path) -> None:
    one, two = tables(first), tables(second)
    assert one.keys() == two.keys() == TABLES
    for name, frame in one.items():
        pd.testing.assert_frame_equal(frame, two[name], check_exact=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    run_transfer(tiny(folder), say=lambda line: None)
    return folder


@pytest.mark.long
def test_run_leaves_everything(run):
    found = tables(run)
    assert found.keys() == TABLES
    assert sorted(path.name for path in (run / "models").iterdir()) == sorted(
        ["base", "clean", "gaussian_noise_4", "box_blur_2", "median_blur_1", "gaussian_noise_4+box_blur_2"]
    )
    assert len(found["performance"]) == 6 * 5 * 38
    assert len(found["transfer"]) == 6 * 5
    assert set(found["transfer"]["tested_on"]) == {"clean", "gaussian_noise_4", "box_blur_2", "median_blur_1", "fog_1"}
    assert list(found["training"]["model"]) == list(dict.fromkeys(found["transfer"]["trained_on"]))[1:]
    assert found["training"]["kept"].all()
    log = json.loads((run / "models" / "gaussian_noise_4+box_blur_2" / "training_log.json").read_text())
    assert log["members"] == ["gaussian_noise_4", "box_blur_2"]
    page = (run / "transfer.html").read_text()
    assert "Does training on one corruption help on another?" in page
    assert not list(run.rglob("*.partial"))
    about = json.loads((run / "provenance.json").read_text())
    names = [stage["name"] for stage in about["stages"]]
    assert names[:2] == ["base", "images/finetune"]
    assert names[-1] == "tables"
    assert "SAEs" not in about["seeds"]


def test_tables_are_what_the_functions_give(run, tiny_processor):
    """All models and corruptions in one call, and not stage by stage, on images prepared anew."""
    test = prepare(load_images("photos", "test", limit=38, image_size=32), tiny_processor)
    names = ["base", *(parse_training(key).key for key in TRAINED)]
    models = {name: HookedViT.from_pretrained(run / "models" / name, device="cpu") for name in names}
    tested = [Corruption.parse(key) for key in ("gaussian_noise_4", "box_blur_2", "median_blur_1", "fog_1")]
    performance = corrupted_performance(models, test, tested)
    order = ["model", "corruption", "image_id"]
    found = tables(run)
    pd.testing.assert_frame_equal(
        found["performance"].sort_values(order, ignore_index=True), performance.sort_values(order, ignore_index=True)
    )
    wanted = transfer(performance, resamples=50)
    columns = ["trained_on", "tested_on", "relation", "accuracy", "gain", "gain_low", "gain_high", "transfer"]
    pd.testing.assert_frame_equal(found["transfer"][columns], wanted.matrix[columns])
    assert found["transfer"]["spectral_distance"].notna().sum() == 3 * 3


def test_second_call_runs_nothing(run):
    before = {path: path.stat().st_mtime_ns for path in (run / "stages").iterdir()}
    said: list[str] = []
    run_transfer(tiny(run), say=said.append)
    assert {path: path.stat().st_mtime_ns for path in (run / "stages").iterdir()} == before
    assert all("done before" in line for line in said if not line.startswith("report"))


@pytest.mark.long
def test_one_more_corruption_trains_one_more_model(run, tmp_path):
    import shutil

    shutil.copytree(run, tmp_path / "run")
    said: list[str] = []
    more = ("gaussian_noise_4", "box_blur_2", "median_blur_1", "sharpen_2")
    run_transfer(tiny(tmp_path / "run", corruptions=more), say=said.append)
    begun = [line.removesuffix(" ...") for line in said if line.endswith("...")]
    tested = ["clean", *more, "fog_1"]
    assert begun == ["finetune/sharpen_2", *(f"test/{key}" for key in tested), "tables", "report"]


@pytest.mark.long
def test_an_interrupted_run_goes_on_to_the_same_tables(run, tmp_path, monkeypatch):
    """Cut off in three stages: once before one's work, twice after it, when only the record lacks."""
    cuts = {"finetune/box_blur_2": "after", "test/box_blur_2": "before", "tables": "after"}
    left, keep = dict(cuts), Stages.run

    class Cut(Exception):
        pass

    def breaking(self, name, work, **settings):
        def cut_work():
            if left.get(name) == "before":
                del left[name]
                raise Cut
            work()
            if left.pop(name, None):
                raise Cut

        keep(self, name, cut_work, **settings)

    monkeypatch.setattr(Stages, "run", breaking)
    for name in cuts:
        with pytest.raises(Cut):
            run_transfer(tiny(tmp_path / "cut"), say=lambda line: None)
        assert name not in left
    run_transfer(tiny(tmp_path / "cut"), say=lambda line: None)
    assert_same_tables(run, tmp_path / "cut")


@pytest.mark.processes
@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_tables(run, tmp_path):
    """SIGKILL again and again, each time a little later, until the run gets through."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path; from test_transfer_run import tiny; "
        "from mechvit.experiment import run_transfer; run_transfer(tiny(Path(sys.argv[1])))"
    )
    kills = 0
    for patience in range(1, 40, 3):
        command = [sys.executable, "-c", code, str(tmp_path / "killed"), str(Path(__file__).parent)]
        begun = 0
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            for line in process.stdout:
                begun += line.strip().endswith("...")
                if begun >= patience:
                    break
            if process.poll() is None and begun >= patience:
                time.sleep(0.05 * (patience % 5))
                os.kill(process.pid, signal.SIGKILL)
        if process.returncode == 0:
            break
        kills += 1
    assert kills >= 3
    assert_same_tables(run, tmp_path / "killed")


def test_a_corruption_too_wide_for_the_images_is_refused_first(tmp_path):
    with pytest.raises(ValueError, match=r"gaussian_blur at level 8 mirrors 32 pixels .* got 32x32"):
        run_transfer(tiny(tmp_path / "run", also_tested=("gaussian_blur_8",)), say=lambda line: None)
    assert not (tmp_path / "run").exists()
