"""Whole comparisons of tiny models: identical ones, a bare encoder, other classes, no kin, no labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mechvit.data import load_images
from mechvit.experiment.comparison import CompareConfig, SectionLimits, run_comparison

LIMITS = SectionLimits(behaviour=19, depth=19, attention=8, difference=10, causes=8, conditions=12, pictures=2)


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
    assert table(folder, "swaps")["recovered"].isna().all()
    assert "identical" in (folder / "report.html").read_text()


def test_a_moved_block_is_the_place_of_the_difference(models, tmp_path):
    folder = run(tmp_path, models["base"], models["tuned"])
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


def test_a_second_call_repeats_no_stage_and_another_limit_only_its_section(models, tmp_path):
    said: list[str] = []
    config = {"models": (models["base"], models["tuned"]), "out": str(tmp_path / "run"), "device": "cpu", "limit": 19}
    sections = {"sections": ("behaviour", "attention")}
    run_comparison(CompareConfig(**config, **sections, limits=LIMITS), said.append)
    said.clear()
    run_comparison(CompareConfig(**config, **sections, limits=LIMITS), said.append)
    assert not [line for line in said if line.endswith("...") and not line.startswith("report")]
    said.clear()
    fewer = SectionLimits(behaviour=19, attention=5)
    run_comparison(CompareConfig(**config, **sections, limits=fewer), said.append)
    assert [line for line in said if line.startswith(("behaviour", "attention"))]
    assert "attention/tuned ..." in said
    assert "behaviour/tuned ..." not in said


def test_a_bare_encoder_is_read_through_the_tuned_head_and_through_probes(models, tmp_path):
    folder = run(tmp_path, models["bare"], models["tuned"], limit=57)
    found = about(folder)
    assert found["heads"] == {"tuned": ["tuned", "probe"]}
    assert found["kinship"]["tuned"]["is_kin"]
    assert set(table(folder, "behaviour")["head"]) == {"tuned", "probe"}
    assert table(folder, "place").iloc[0]["place_first"] == 1
    assert {"tuned", "probe"} <= set(table(folder, "combinations")["head"])


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
    assert (table(folder, "behaviour")["label"] == -1).all()
    assert {"accuracy_base"}.isdisjoint(table(folder, "behaviour_summary")["quantity"])
    assert table(folder, "place").iloc[0]["place_first"] == 1


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


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"models": ("a",)}, "models must be a base and at least one tuned model"),
        ({"models": ("a", "b"), "head": "mine"}, "head must be among"),
        ({"models": ("a", "b"), "sections": ("everything",)}, "sections must be among"),
        ({"models": ("a", "b"), "saes": ("x", "y", "z")}, "saes must be"),
        ({"models": ("a", "b"), "recovered": 1.5}, "recovered must be"),
    ],
)
def test_settings_are_refused_before_anything_is_read(changes, says):
    with pytest.raises(ValueError, match=says):
        CompareConfig(**{"out": "run", **changes})
