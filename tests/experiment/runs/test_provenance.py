"""The provenance that a command's result records: its settings, and the commits of what came from the hub."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import version

import pytest

from mechvit.experiment.inputs import result_folder
from mechvit.experiment.runs.provenance import revisions_of
from mechvit.files import write_bytes


@dataclass(frozen=True, kw_only=True)
class Options:
    """The least that a command has."""

    out: str
    model: tuple[str, ...] = ()
    images: str = "photos"
    device: str | None = "cpu"
    overwrite: bool = False


@pytest.fixture
def hub(monkeypatch):
    """Commits that the hub told before, so that nothing is asked."""
    known = {
        ("model", "someone/vit"): "a" * 40,
        ("dataset", "someone/set"): "b" * 40,
        ("model", "nowhere/vit"): None,
    }
    monkeypatch.setattr("mechvit.models.checkpoints.revisions._SETTLED", known)


def test_a_result_keeps_its_command_and_the_hub_s_commits(hub, tmp_path):
    (tmp_path / "own").mkdir()
    models = ("someone/vit", str(tmp_path / "own"))
    options = Options(out=str(tmp_path / "result"), model=models, images="someone/set")
    with result_folder(options, "robustness", *models, None) as folder:
        write_bytes(folder / "robustness.parquet", b"")
    about = json.loads((tmp_path / "result" / "provenance.json").read_text())
    assert about["kind"] == "robustness"
    assert about["settings"] == json.loads(json.dumps(vars(options)))
    assert about["revisions"] == {"someone/vit": "a" * 40, "someone/set": "b" * 40}
    assert about["versions"]["torch"] == version("torch")
    assert about["hardware"]["threads"] >= 1


def test_a_result_with_it_may_be_replaced(hub, tmp_path):
    for overwrite in (False, True):
        options = Options(out=str(tmp_path / "result"), overwrite=overwrite)
        with result_folder(options, "robustness") as folder:
            write_bytes(folder / "robustness.parquet", b"")
    assert (tmp_path / "result" / "provenance.json").is_file()


def test_revisions_are_those_of_the_hub_alone(hub, tmp_path):
    (tmp_path / "here").mkdir()
    here = str(tmp_path / "here")
    assert revisions_of([here, None], "photos") == {}
    assert revisions_of([here], f"folder:{here}") == {}
    assert revisions_of(["nowhere/vit"], None) == {"nowhere/vit": None}
