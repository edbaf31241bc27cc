"""A run takes its folder only where nothing of anybody else's lies, one process at a time."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from mechvit import files
from mechvit.experiment.runs.run_folder import open_run

PAPER, TRANSFER = "reproduction of the paper", "transfer between corruptions"


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["models/base/model.safetensors", "images/test/a.png", "notes.txt", "stages/x.txt"])
def test_a_users_project_is_no_run(tmp_path, name):
    (tmp_path / "proj" / name).parent.mkdir(parents=True)
    (tmp_path / "proj" / name).write_text("mine")
    with pytest.raises(ValueError, match="is no run of this kind"), open_run(tmp_path / "proj", PAPER):
        pytest.fail("it was opened")
    assert everything(tmp_path) == {f"proj/{name}": b"mine"}


def test_two_kinds_of_runs_do_not_share_a_folder(tmp_path):
    with open_run(tmp_path / "run", PAPER) as folder:
        files.write_json(folder / "config.json", {})
    with pytest.raises(ValueError, match=PAPER), open_run(tmp_path / "run", TRANSFER):
        pytest.fail("it was opened")
    with open_run(tmp_path / "run", PAPER):
        pass


def test_an_empty_folder_and_the_one_one_works_in_are_taken(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with open_run(".", PAPER) as folder:
        files.write_json(folder / "config.json", {})
    assert set(everything(tmp_path)) == {"here/config.json", f"here/{files.MARKER}"}
    with pytest.raises(ValueError, match="empty"), open_run("", PAPER):
        pass


def test_inputs_lie_apart(tmp_path):
    (tmp_path / "images").mkdir()
    for out in (tmp_path, tmp_path / "images", tmp_path / "images" / "run"):
        with pytest.raises(ValueError, match="must lie apart"), open_run(out, PAPER, [tmp_path / "images"]):
            pass
    assert list(tmp_path.iterdir()) == [tmp_path / "images"]


def test_what_is_refused_within_leaves_nothing(tmp_path):
    def refuse() -> None:
        with open_run(tmp_path / "run", PAPER):
            raise ValueError("no such model")

    with pytest.raises(ValueError, match="no such model"):
        refuse()
    assert list(tmp_path.iterdir()) == []


def earlier_run(root: Path) -> Path:
    """A run as it lay on the disk before folders had markers."""
    run = root / "run"
    for name in (
        "stages/base.json",
        "config.json",
        "report.html",
        "models/base/config.json",
        "models/base/model.safetensors",
        "models/base/training_log.json",
        "models/base/preprocessor_config.json",
        "images/test/state.json",
        "images/test/data-00000-of-00001.arrow",
        "images/test/dataset_info.json",
        "tables/performance.parquet",
        "parts/study/base/lens.parquet",
        "parts/related/related.parquet",
        "views/lens.json",
        "saes/base/settings.json",
        "saes/base/history.parquet",
        "saes/base/metrics.csv",
        "saes/base/standard/cfg.json",
        "saes/shared/x/settings.json",
        "figures/a_single.svg",
    ):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(json.dumps({"name": "base"}))
    for stage in ("base", "images/test", "study/base", "related", "views", "saes/base", "saes/shared/x", "tables"):
        record = {"name": stage, "key": "0" * 64, "seconds": 1.0}
        (run / "stages" / f"{stage.replace('/', '-')}.json").write_text(json.dumps(record))
    return run


def test_a_users_project_with_a_folder_called_stages_is_no_run(tmp_path):
    import datasets

    (tmp_path / "proj" / "stages").mkdir(parents=True)
    (tmp_path / "proj" / "stages" / "build.json").write_text("{}")
    (tmp_path / "proj" / "report.html").write_text("mine")
    datasets.Dataset.from_dict({"mine": [1, 2, 3]}).save_to_disk(tmp_path / "proj" / "images" / "test")
    before = everything(tmp_path)
    with pytest.raises(ValueError, match="is no run of this kind"), open_run(tmp_path / "proj", PAPER):
        pytest.fail("it was opened")
    assert everything(tmp_path) == before


def test_a_run_from_before_markers_goes_on(tmp_path):
    run = earlier_run(tmp_path)
    (run / "notes.txt").write_text("mine")
    (run / "tables" / "thesis.txt").write_text("mine")
    before = everything(run)
    with pytest.raises(ValueError, match="is no run of this kind"), open_run(run, TRANSFER):
        pass
    with open_run(run, PAPER):
        marked = {str(path.parent.relative_to(run)) for path in run.rglob(files.MARKER)}
        assert marked == {
            ".",
            "models/base",
            "images/test",
            "parts/study/base",
            "parts/related",
            "views",
            "saes/base",
            "saes/shared/x",
        }, "all but the one that holds a user's file"
        files.write_json(run / "report.html", "again")  # ours
        with pytest.raises(ValueError, match="was not written by mechvit"):
            files.write_json(run / "notes.txt", "lost")
        with (
            pytest.raises(ValueError, match="no earlier result of this kind"),
            files.new_folder(run / "tables", "tables", overwrite=True),
        ):
            pass
        with files.new_folder(run / "models" / "base", "fine-tuned checkpoint", overwrite=True) as folder:
            files.write_json(folder / "config.json", "new")
    after = everything(run)
    assert {
        name: data for name, data in after.items() if name in before and "models" not in name and name != "report.html"
    } == {name: data for name, data in before.items() if "models" not in name and name != "report.html"}


@pytest.mark.processes
def test_a_second_process_hears_who_works_there(tmp_path):
    with open_run(tmp_path / "run", PAPER):
        child = os.fork()
        if child == 0:
            try:
                with open_run(tmp_path / "run", PAPER):
                    os._exit(0)
            except ValueError as error:
                os._exit(7 if f"in use by process {os.getppid()}" in str(error) else 1)
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
