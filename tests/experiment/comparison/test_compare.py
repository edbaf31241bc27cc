"""Whole comparisons of tiny models: identical ones, a bare encoder, other classes, no kin, no labels."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mechvit.data import load_images
from mechvit.experiment.comparison import CompareConfig, SectionLimits, run_comparison
from mechvit.visualization.comparison.page import comparison_lead
from mechvit.visualization.number_format import share

LIMITS = SectionLimits(behaviour=19, depth=19, attention=8, difference=10, causes=8, conditions=12, pictures=2)
DEPTH = ("behaviour", "depth")
SHALLOW = {"num_hidden_layers": 1}
CAUSES_NEED = "it needs 2 images, one to choose a place and one to confirm it"


@pytest.fixture(scope="module")
def models(tiny_hf, tiny_processor, tmp_path_factory) -> dict[str, str]:
    """A base of the photographs' 19 classes; the same with block 1's weights moved; a bare encoder of the base; a
    classifier of three classes on the moved encoder; and another seed.
    """
    from transformers import ViTConfig, ViTForImageClassification, ViTModel

    classes = load_images("photos", "test", limit=19, image_size=32).features["label"].names
    config = ViTConfig.from_dict(tiny_hf.config.to_dict() | {"id2label": dict(enumerate(classes)), "label2id": None})
    folder, saved = tmp_path_factory.mktemp("models"), {}

    def save(name: str, model: torch.nn.Module) -> None:
        model.save_pretrained(folder / name)
        tiny_processor.save_pretrained(folder / name)
        saved[name] = str(folder / name)

    base = _random(ViTForImageClassification(config), 0)
    save("base", base)
    save("same", base)
    tuned = ViTForImageClassification(config)
    tuned.load_state_dict(base.state_dict())
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in tuned.vit.layers[1].parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    save("tuned", tuned)
    bare = ViTModel(config, add_pooling_layer=False)
    bare.load_state_dict(base.vit.state_dict())
    save("bare", bare)
    names = {0: classes[0], 1: classes[1], 2: classes[2]}
    three = ViTForImageClassification(ViTConfig.from_dict(config.to_dict() | {"id2label": names, "label2id": None}))
    three.vit.load_state_dict(tuned.vit.state_dict())
    save("three", three)
    save("stranger", _random(ViTForImageClassification(config), 77))
    return saved


def _random(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.25 * torch.randn(parameter.shape, generator=generator))
    return model


def run(tmp_path: Path, *models: str, **settings: object) -> Path:
    settings = {"device": "cpu", "limit": 19, "limits": LIMITS, "out": str(tmp_path / "run")} | settings
    report = run_comparison(CompareConfig(models=models, **settings), lambda line: None)
    assert report == tmp_path / "run" / "report.html"
    assert report.stat().st_size > 1e6
    return report.parent


@pytest.fixture(scope="module")
def moved(models, tmp_path_factory) -> Path:
    """The run of the base and of the model with a moved block; tests must leave it as it is."""
    return run(tmp_path_factory.mktemp("moved"), models["base"], models["tuned"])


@pytest.fixture
def again(models, moved, tmp_path) -> Callable[..., list[str]]:
    """Compare the two once more, in a copy of that run, with other settings; returns the stages that ran."""
    shutil.copytree(moved, tmp_path / "run")
    config = CompareConfig(
        models=(models["base"], models["tuned"]), out=str(tmp_path / "run"), device="cpu", limit=19, limits=LIMITS
    )

    def compared(**settings: object) -> list[str]:
        said: list[str] = []
        run_comparison(replace(config, **settings), said.append)
        assert "19 images: crops of photographs, the part `test`" in said  # kept images are named, too
        return [line.removesuffix(" ...") for line in said if line.endswith("/tuned ...")]

    return compared


def about(folder: Path) -> dict:
    return json.loads((folder / "comparison.json").read_text())


def table(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(folder / "tables" / f"{name}.parquet")


def test_identical_models_differ_in_nothing(models, tmp_path):
    folder = run(
        tmp_path, models["base"], models["same"], sections=("behaviour", "depth", "attention", "weights", "causes")
    )
    found = about(folder)
    assert found["identical"] == {"same": True}
    assert found["heads"] == {"same": ["own"]}
    images = table(folder, "behaviour")
    assert (images["kl"] == 0).all()
    assert images["agreement"].all()
    assert (images["flip"] == "none").all()
    assert np.allclose(table(folder, "residual_cosine")["cosine"], 1, atol=1e-6)
    assert np.allclose(table(folder, "cka").query("layer_base == layer_tuned")["cka"], 1, atol=1e-4)
    heads = table(folder, "attention_heads")
    assert (heads[heads["quantity"].str.endswith(("_change", "js_distance"))]["value"] == 0).all()
    assert (table(folder, "weight_parts")["change_norm"] == 0).all()
    for name in ("swaps", "steering"):
        assert table(folder, name)["recovered"].isna().all()
    assert "identical" in (folder / "report.html").read_text()


def test_a_moved_block_is_the_place_of_the_difference(moved):
    folder = moved
    place = table(folder, "place").iloc[0]
    assert (place["place_first"], place["place_last"]) == (1, 1)
    swaps = table(folder, "swaps").query("kind == 'single' and quantity == 'divergence'")
    assert np.allclose(swaps[swaps["part"] == "blocks.1"]["recovered"], 1, atol=1e-6)
    assert np.allclose(swaps[swaps["part"].isin(["blocks.0", "blocks.2"])]["recovered"], 0, atol=1e-6)
    changed = table(folder, "weight_parts").query("change_norm > 0")["part"]
    assert set(changed.str.split(".").str[:2].str.join(".")) == {"blocks.1"}
    text = (folder / "report.html").read_text()
    assert "sits in block 1" in text
    assert "tuned differs from base" in text


def test_a_second_call_repeats_no_stage_and_another_limit_only_its_section(again):
    assert again() == []
    assert again(limits=replace(LIMITS, attention=5)) == ["plan/tuned", "attention/tuned"]


def test_a_bare_encoder_is_read_through_the_tuned_head_and_through_probes(models, tmp_path):
    folder = run(tmp_path, models["bare"], models["tuned"], limit=57)
    found = about(folder)
    assert found["heads"] == {"tuned": ["tuned", "probe"]}
    assert found["kinship"]["tuned"]["is_kin"]
    assert set(table(folder, "behaviour")["head"]) == {"tuned", "probe"}
    assert table(folder, "place").iloc[0]["place_first"] == 1
    assert {"tuned", "probe"} <= set(table(folder, "combinations")["head"])
    assert "mechvit finetune" not in (folder / "report.html").read_text()  # which needs a classifier


def test_models_that_are_no_kin_exchange_nothing(models, tmp_path):
    folder = run(tmp_path, models["base"], models["stranger"])
    found = about(folder)
    assert not found["kinship"]["stranger"]["is_kin"]
    assert {"weights", "difference", "causes"} <= {row["what"] for row in found["unmeasured"]}
    assert not (folder / "tables" / "swaps.parquet").exists()
    assert (folder / "tables" / "cka.parquet").exists()


def test_pictures_without_labels_are_compared(models, tmp_path):
    pictures = []
    for place, image in enumerate(load_images("photos", "test", limit=10, image_size=40)["image"]):
        pictures.append(str(tmp_path / f"{place}.png"))
        image.save(pictures[-1])
    folder = run(tmp_path, models["base"], models["tuned"], pictures=tuple(pictures), limits=LIMITS)
    assert not about(folder)["labelled"]
    assert {"what": "Accuracy", "tuned": "tuned", "why": "the images have no labels"} in about(folder)["unmeasured"]
    assert "mechvit finetune" not in (folder / "report.html").read_text()  # which needs labels
    assert (table(folder, "behaviour")["label"] == -1).all()
    assert {"accuracy_base"}.isdisjoint(table(folder, "behaviour_summary")["quantity"])
    assert table(folder, "place").iloc[0]["place_first"] == 1


def test_classes_that_are_not_the_models_are_named_as_the_reason(models, tmp_path):
    for place, image in enumerate(load_images("photos", "test", limit=10, image_size=40)["image"]):
        (tmp_path / "own" / f"kind {place % 2}").mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "own" / f"kind {place % 2}" / f"{place}.png")
    own = {"images": f"folder:{tmp_path / 'own'}", "sections": ("behaviour",)}
    folder = run(tmp_path / "run", models["base"], models["tuned"], **own)
    (why,) = [row["why"] for row in about(folder)["unmeasured"] if row["what"] == "Accuracy"]
    assert why.startswith("their classes are not used: 2 of the data set's 2 classes are not among the checkpoint's 19")
    assert why[:40] in (folder / "report.html").read_text()


def test_two_tuned_models_under_a_condition(models, tmp_path):
    folder = run(
        tmp_path,
        *(models[name] for name in ("base", "tuned", "three")),
        conditions=("gaussian_blur_1",),
        sections=("behaviour", "depth", "conditions", "pictures"),
    )
    found = about(folder)
    assert found["heads"]["tuned"] == ["own"]
    assert found["heads"]["three"][0] == "tuned"
    assert set(table(folder, "behaviour")["condition"]) == {"clean", "gaussian_blur_1"}
    assert set(table(folder, "behaviour")["tuned"]) == {"tuned", "three"}


def test_models_called_alike_are_compared_into_the_run_alone(models, tmp_path):
    for place, name in (("one", "base"), ("two", "tuned")):
        shutil.copytree(models[name], tmp_path / place / "m")
    before = sorted((tmp_path / "two").rglob("*"))
    folder = run(tmp_path, *(str(tmp_path / place / "m") for place in ("one", "two")), sections=("weights",))
    assert about(folder)["tuned"] == ["two-m"]
    assert sorted((tmp_path / "two").rglob("*")) == before
    assert (folder / "parts" / "weights" / "two-m").is_dir()


REFUSED = {
    "the second pair has no head of its own": (("base", "stranger", "three"), {"head": "own"}, "cannot be had here"),
    "no SAE": (("base", "tuned"), {"saes": ("nowhere", "bare2")}, "holds no SAE"),
    "too few images for an SAE": (("base", "tuned"), {"saes": ("train",)}, "one batch takes 4096 tokens"),
    "an attack without a head": (("bare", "bare2"), {"conditions": ("pgd_4",), "unlabelled": "keep"}, "no attack"),
    "no partner": (("base", "tuned"), {"conditions": ("paired:bare2",)}, "found by each image's path"),
    "no such picture": (("base", "tuned"), {"pictures": ("nothing.png",)}, "nothing.png"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_refused_before_anything_is_measured(models, tmp_path, monkeypatch, case):
    names, settings, says = REFUSED[case]
    monkeypatch.chdir(tmp_path)
    shutil.copytree(models["bare"], tmp_path / "bare2")
    paths = [str(tmp_path / "bare2") if name == "bare2" else models[name] for name in names]
    with pytest.raises(ValueError, match=says):
        run(tmp_path, *paths, **({"head": "none"} if "bare" in names else {}) | settings)
    assert not (tmp_path / "run" / "parts").exists()


def test_one_picture_is_compared_and_what_needs_two_is_named(models, tmp_path):
    picture = tmp_path / "one.png"
    load_images("photos", "test", limit=1, image_size=40)["image"][0].save(picture)
    folder = run(tmp_path, models["bare"], models["tuned"], pictures=(str(picture),))
    assert {"what": "causes", "tuned": "tuned", "why": CAUSES_NEED} in about(folder)["unmeasured"]
    assert len(table(folder, "behaviour")) == 1


def test_the_base_is_steered_towards_the_tuned_model_and_back_from_a_condition(models, tmp_path):
    folder = run(
        tmp_path, models["base"], models["tuned"], conditions=("gaussian_blur_2",), sections=("behaviour", "causes")
    )
    found = table(folder, "steering")
    sources = found.query("control == 0").groupby("condition")["source"].agg(set).to_dict()
    assert sources == {"clean": {"between_models"}, "gaussian_blur_2": {"between_models", "mean_difference"}}
    assert set(found["control"]) == {0, 1, 2}
    assert set(found["hook_name"]) <= {"blocks.0.hook_resid_post", "blocks.2.hook_resid_post"}
    own = found.query("quantity == 'divergence' and source == 'between_models' and control == 0")
    assert own["beyond"].notna().all()
    text = (folder / "report.html").read_text()
    for row in own.itertuples():
        shown = "On clean images" if row.condition == "clean" else "Under Gaussian blur 2"
        said = (
            f"{shown}, tuned − base, added after block {row.hook_name.split('.')[1]} at scale {row.scale:g}, recovers"
        )
        assert f"{said} {share(row.recovered)} [" in text
    assert "Under Gaussian blur 2, clean − shifted, added after block" in text


def test_three_images_are_too_few_to_steer_with(models, tmp_path):
    folder = run(tmp_path, models["base"], models["tuned"], limit=3, sections=("causes",))
    (why,) = [row["why"] for row in about(folder)["unmeasured"] if row["what"] == "steering"]
    assert why.startswith("it needs 4 images")
    assert (folder / "tables" / "swaps.parquet").exists()
    assert not (folder / "tables" / "steering.parquet").exists()


def test_too_few_labelled_images_have_no_probe(models, tmp_path):
    folder = run(tmp_path, models["bare"], models["tuned"], limit=4, sections=("behaviour",))
    found = about(folder)
    assert found["heads"] == {"tuned": ["tuned"]}
    assert "a probe needs at least 10 images, and there are 4" in found["head_reason"]["tuned"]
    assert not (folder / "tables" / "combinations.parquet").exists()


def test_another_share_repeats_the_causes_alone(again):
    assert again(recovered=0.8) == ["causes/tuned"]


def test_equal_weights_behind_other_pixels_are_not_called_identical(models, tmp_path):
    shutil.copytree(models["base"], tmp_path / "other")
    settings = tmp_path / "other" / "preprocessor_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"image_mean": [0.1, 0.2, 0.3]}))
    folder = run(tmp_path, models["base"], str(tmp_path / "other"), sections=("behaviour",))
    first = comparison_lead(folder)[0]
    assert "Every weight of other equals that of base" in first
    assert "image_mean" in first
    assert "Their predictions " in first


def test_models_of_unequal_depth_are_paired_by_depth(models, tiny_hf, tiny_processor, tmp_path):
    from transformers import ViTConfig, ViTForImageClassification

    shallow = ViTForImageClassification(
        ViTConfig.from_dict(ViTForImageClassification.from_pretrained(models["base"]).config.to_dict() | SHALLOW)
    )
    shallow.save_pretrained(tmp_path / "shallow")
    tiny_processor.save_pretrained(tmp_path / "shallow")
    asked = ("behaviour", "depth", "attention")
    folder = run(tmp_path, models["base"], str(tmp_path / "shallow"), sections=asked)
    (why,) = [row["why"] for row in about(folder)["unmeasured"] if row["what"] == "attention"]
    assert why.startswith(
        "differences of attention on one image need as many blocks and heads; their numbers of blocks"
    )
    cka = table(folder, "cka")
    deep = tiny_hf.config.num_hidden_layers
    assert list(zip(cka["layer_base"], cka["layer_tuned"], strict=True)) == [(0, 0), (deep, 1)]
    assert "are paired with those of shallow by depth" in (folder / "report.html").read_text()
    few = run(tmp_path / "few", models["base"], models["tuned"], limit=5, sections=("behaviour", "depth"))
    why = "it needs at least 8 images, and there are 5"
    assert {"what": "CKA", "tuned": "tuned", "why": why} in about(few)["unmeasured"]


def test_pictures_of_each_condition_and_group_are_shown_and_left_out_when_not_asked_for(models, tmp_path):
    for place, image in enumerate(load_images("photos", "test", limit=12, image_size=40)["image"]):
        (site := tmp_path / "scans" / f"site{place % 3}").mkdir(parents=True, exist_ok=True)
        image.save(site / f"{place}.png")
    settings = {"images": f"folder:{tmp_path / 'scans'}", "groups": "(?P<site>site.)", "unlabelled": "keep"}
    settings |= {"conditions": ("gaussian_blur_1",), "sections": ("behaviour", "pictures")}
    folder = run(tmp_path, models["base"], models["tuned"], **settings)
    listed = json.loads((folder / "views" / "examples.json").read_text())
    assert [row["title"] for row in listed] == [
        *["Clean images"] * 2,
        *["Gaussian blur 1"] * 2,
        *["Of each site the clean image that differs most"] * 2,
    ]
    own = table(folder, "behaviour")
    clean = own[own["condition"] == "clean"]
    assert [row["image_id"] for row in listed[:2]] == list(clean.nlargest(2, "kl")["image_id"])
    means = clean.groupby("site")["kl"].mean().nlargest(2)
    for row, site in zip(listed[4:], means.index, strict=True):
        assert row["lines"][0] == f"site: {site}"
        assert row["image_id"] == clean[clean["site"] == site].nlargest(1, "kl")["image_id"].item()
    assert "Of each site the clean image" in (folder / "report.html").read_text()
    again = run(tmp_path, models["base"], models["tuned"], **settings | {"sections": ("behaviour",)})
    assert "Of each site the clean image" not in (again / "report.html").read_text()


def test_encoders_of_two_widths_are_read_through_a_probe_each(models, tiny_processor, tmp_path):
    from transformers import ViTForImageClassification

    config = ViTForImageClassification.from_pretrained(models["base"]).config
    narrow = ViTForImageClassification(type(config).from_dict(config.to_dict() | {"hidden_size": 16}))
    narrow.vit.save_pretrained(tmp_path / "narrow")
    tiny_processor.save_pretrained(tmp_path / "narrow")
    folder = run(tmp_path, str(tmp_path / "narrow"), models["tuned"], head="probe", limit=57, sections=DEPTH)
    assert set(table(folder, "behaviour")["head"]) == {"probe"}
    assert set(table(folder, "lens")["head"]) == {"probe"}
    assert not about(folder)["kinship"]["tuned"]["is_kin"]
