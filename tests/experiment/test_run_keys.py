"""The keys of a run's stages: the image processor's settings, and the commits of what comes from the hub."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from types import SimpleNamespace

import huggingface_hub
import pytest
from transformers import ViTImageProcessorPil

from mechvit.data import fingerprint, parse_condition, register_corruption
from mechvit.data.corruption_spec import CORRUPTION_FAMILIES
from mechvit.data.corruptions import CORRUPTIONS
from mechvit.data.sources.photos import CROPS
from mechvit.experiment.config import PRESETS
from mechvit.experiment.runs.provenance import provenance
from mechvit.experiment.runs.stages import plain
from mechvit.experiment.shared_stages import Run
from mechvit.files import begin
from mechvit.models.checkpoints import revisions


@pytest.fixture(autouse=True)
def _unsettled(monkeypatch):
    monkeypatch.setattr(revisions, "_SETTLED", {})


def run_of(tmp_path, **changes):
    """A run whose stages are keyed and never worked at."""
    config = replace(PRESETS["imagenet"], out=str(tmp_path / "run"), **changes)
    if not (tmp_path / "run").exists():
        begin(tmp_path / "run", "reproduction of the paper")
    run = Run(config, tmp_path / "run", lambda line: None)
    run.stages.run = lambda name, work, *, settings, after=(), outputs=(): run.settings.update({name: settings})
    run.settings = {}
    return run


@pytest.mark.parametrize(
    ("setting", "value"),
    [("resample", 3), ("image_mean", [0.4, 0.4, 0.4]), ("size", {"height": 40, "width": 40}), ("do_normalize", False)],
)
def test_every_setting_of_the_processor_is_in_the_images_key(tmp_path, tiny_hf, setting, value):
    """A resumed run mixed two preprocessings; here even the folder's names, sizes and times say nothing."""
    tiny_hf.save_pretrained(tmp_path / "model")
    found = []
    for changes in ({}, {setting: value}):
        ViTImageProcessorPil(**{"size": {"height": 32, "width": 32}} | changes).save_pretrained(tmp_path / "model")
        path = tmp_path / "model" / "preprocessor_config.json"
        path.write_text(f"{path.read_text():2000}")
        os.utime(path, ns=(1, 1))
        run = run_of(tmp_path, model=str(tmp_path / "model"), images=f"folder:{tmp_path}")
        run.base()
        run.prepare("test")
        found.append(run.settings)
    first, second = found
    assert first["base"] == second["base"]
    assert first["images/test"] != second["images/test"]
    assert second["images/test"]["processor"][setting] == value


def test_photographs_cut_in_another_way_are_other_images(tmp_path, monkeypatch):
    """Runs of before crops were cut out first are not resumed on their images."""
    monkeypatch.setattr("mechvit.models.processors.image_processor._settings", lambda where: ("", {}))
    monkeypatch.setattr(
        "mechvit.models.processors.image_processor._make", lambda where, settings: ViTImageProcessorPil()
    )
    found = []
    for way in (CROPS, "resized with a box"):
        monkeypatch.setattr("mechvit.experiment.shared_stages.CROPS", way)
        run = run_of(tmp_path, model=None, images="photos", shape=PRESETS["photos"].shape)
        run.base()
        run.prepare("test")
        found.append(run.settings)
    assert found[0]["base"] != found[1]["base"]
    assert found[0]["images/test"]["crops"] == CROPS != found[1]["images/test"]["crops"]


@pytest.fixture
def hub(monkeypatch):
    """Commits by kind; None where there is neither a connection nor a cache."""
    commits = {"model": "1" * 40, "dataset": "2" * 40}

    def resolve(self, repo_id, *, repo_type, local_files_only):
        if commits[repo_type] is None:
            raise huggingface_hub.errors.LocalEntryNotFoundError("no connection")
        return SimpleNamespace(resolved=commits[repo_type])

    monkeypatch.setattr(huggingface_hub.HfApi, "resolve_revision", resolve)
    processor = "mechvit.models.processors.image_processor"
    monkeypatch.setattr(f"{processor}._settings", lambda where: ("preprocessor_config.json", {}))
    monkeypatch.setattr(f"{processor}._make", lambda where, settings: ViTImageProcessorPil())
    return commits


def keyed(tmp_path):
    revisions._SETTLED.clear()  # another process
    run = run_of(tmp_path, model="owner/model", images="owner/images@validation:label=fine")
    run.base()
    run.prepare("test")
    return run


def test_commits_of_model_and_images_are_in_the_keys_and_the_provenance(tmp_path, hub):
    first = keyed(tmp_path)
    assert first.settings["base"]["revision"] == "1" * 40
    assert first.settings["images/test"]["revision"] == "2" * 40
    stage = {"started": "2026-01-01", "finished": "2026-01-02"}
    found = provenance([stage], "cpu", first.revisions, {"noise": 0})
    assert found["revisions"] == {"model": "1" * 40, "images": "2" * 40}
    hub["dataset"] = "3" * 40
    second = keyed(tmp_path)
    assert second.settings["base"] == first.settings["base"]
    assert second.settings["images/test"] != first.settings["images/test"]


def test_a_run_goes_on_offline_with_the_commits_that_it_was_begun_with(tmp_path, hub):
    first = keyed(tmp_path)
    hub.update(model=None, dataset=None)
    assert keyed(tmp_path).settings == first.settings
    (tmp_path / "run" / "stages" / "revisions.json").unlink()
    assert keyed(tmp_path).revisions == {"model": None, "images": None}


def test_what_is_not_of_the_hub_has_no_commit(tmp_path, tiny_hf, hub):
    tiny_hf.save_pretrained(tmp_path / "model")
    run = run_of(tmp_path, model=str(tmp_path / "model"), images=f"folder:{tmp_path}")
    run.base()
    assert run.revisions == {"model": None, "images": None}
    assert "revision" not in run.settings["base"]
    assert not (tmp_path / "run" / "stages" / "revisions.json").exists()
    assert json.dumps(run.settings["base"])


def test_a_function_and_a_paired_folder_are_in_a_stage_s_key_and_built_in_corruptions_only_by_name(tmp_path):
    (tmp_path / "night").mkdir()
    paired = parse_condition(f"paired:{tmp_path / 'night'}")
    keys = ("gaussian_blur_4", "haze_2", paired.key)

    def settings() -> dict[str, object]:
        run = run_of(tmp_path, model="owner/model")
        for key in keys:
            run.finetune(key)
        return {key: plain(run.settings[f"finetune/{key}"]) for key in keys}

    try:
        register_corruption("haze", lambda images, level: images * 0.9**level)
        before, again = settings(), settings()
        register_corruption("haze", lambda images, level: images * 0.8**level)
        (tmp_path / "night" / "0.png").touch()
        after = settings()
    finally:
        CORRUPTION_FAMILIES.pop("haze")
        CORRUPTIONS.pop("haze")
    assert before == again
    assert after["gaussian_blur_4"] == before["gaussian_blur_4"]
    assert len(before["gaussian_blur_4"]) == 2  # as before there were other conditions
    for key in ("haze_2", paired.key):
        assert before[key][:2] == after[key][:2]
        assert before[key][2][key] != after[key][2][key]


def test_a_condition_in_settings_is_kept_with_its_fingerprint():
    assert plain(parse_condition("fog_3")) == {"family": "fog", "level": 3}
    try:
        register_corruption("negative", lambda images: 1 - images)
        negative = parse_condition("negative")
        assert plain(negative) == {"family": "negative", "level": 0, "fingerprint": fingerprint(negative)}
    finally:
        CORRUPTION_FAMILIES.pop("negative")
        CORRUPTIONS.pop("negative")


def test_a_run_tests_all_models_on_the_attacked_base(tmp_path):
    config = replace(PRESETS["photos"], out=str(tmp_path), corruptions=("pgd_4", "fog_3"))
    attack = config.tuned[0]
    assert (config.keys, attack.model) == (("pgd_4", "fog_3"), str(tmp_path / "models" / "base"))
    assert config.condition("pgd_4@self").model is None
    with pytest.raises(ValueError, match="must name an attack without its model, as in pgd_4"):
        replace(config, corruptions=("pgd_4@tuned",))
