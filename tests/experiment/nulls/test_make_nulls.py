"""Null models: as many steps as the tuned model, other seeds, the divergence that was asked for, and one recipe."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import ViTForImageClassification, ViTModel

from mechvit import HookedViT, analysis
from mechvit.data import Corruption, load_images, prepare
from mechvit.data.training_images import recorded_images
from mechvit.experiment.nulls import KINDS, NullsConfig, make_nulls, recipe_of
from mechvit.finetuning import FinetuneConfig, ViTShape, finetune, train_from_scratch

SHAPE = ViTShape(image_size=32, d_model=32, n_layers=2, n_heads=2, d_mlp=64)
TRAINING = FinetuneConfig(learning_rate=1e-3, epochs=3, batch_size=16, weight_decay=0.01, warmup_fraction=0.2, seed=3)
BLUR = Corruption("gaussian_blur", 2)


@pytest.fixture(scope="module")
def parts(tiny_processor):
    return {
        part: prepare(load_images("photos", part, limit=count, image_size=32), tiny_processor)
        for part, count in [("train", 304), ("finetune", 76), ("finetune_validation", 38)]
    }


@pytest.fixture(scope="module")
def models(parts, tmp_path_factory) -> dict[str, Path]:
    """A base, a model tuned on blur, one tuned on clean images, and the base without its head."""
    folder = tmp_path_factory.mktemp("models")
    training, validation = parts["finetune"], parts["finetune_validation"]
    config = FinetuneConfig(learning_rate=2e-3, epochs=4, batch_size=16)
    base = train_from_scratch(
        SHAPE, parts["train"], validation, folder / "base", config=config, device="cpu", progress=False
    )
    asked = {"config": TRAINING, "device": "cpu", "progress": False}
    tuned = finetune(base, training, validation, folder / "tuned", corruption=BLUR, **asked)
    plain = finetune(base, training, validation, folder / "plain", **asked)
    shutil.copytree(base, folder / "bare")
    bare = ViTModel.from_pretrained(base, add_pooling_layer=False)
    bare.save_pretrained(folder / "bare")
    return {"base": base, "tuned": tuned, "plain": plain, "bare": folder / "bare"}


def settings(models, out: Path, **more) -> NullsConfig:
    asked = {"base": models["base"], "like": models["tuned"], **more}
    paths = {name: str(asked.pop(name)) for name in ("base", "like")}
    return NullsConfig(**{"out": str(out), "device": "cpu", "validation_limit": 38, **paths, **asked})


def made(folder: Path) -> list[dict]:
    return json.loads((folder / "nulls.json").read_text())["nulls"]


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def clean(models, tmp_path_factory) -> tuple[Path, list[str]]:
    """Two clean-tuned nulls, and what was said."""
    said: list[str] = []
    return make_nulls(settings(models, tmp_path_factory.mktemp("nulls") / "out", count=2), said.append), said


def test_clean_nulls_take_as_many_steps_from_other_seeds_on_the_same_images(models, clean):
    folder, _ = clean
    log = json.loads((models["tuned"] / "training_log.json").read_text())
    assert [(null["name"], null["seed"]) for null in made(folder)] == [("clean_1", 1), ("clean_2", 2)]
    for null in made(folder):
        own = json.loads((folder / null["name"] / "training_log.json").read_text())
        assert own["corruption"] == "clean"
        assert own["kept_step"] == null["steps"] == log["kept_step"] == round(log["kept_epoch"] * 5)
        for name in ("learning_rate", "epochs", "batch_size", "weight_decay", "warmup_fraction", "precision"):
            assert own["recipe"][name] == log["recipe"][name]
        assert recorded_images(folder / null["name"]) == {"training": recorded_images(models["tuned"])["training"]}
    assert weights(folder / "clean_1") != weights(folder / "clean_2")


def test_the_divergence_is_that_of_the_analysis(models, clean, parts):
    folder, _ = clean
    about = json.loads((folder / "nulls.json").read_text())
    base = HookedViT.from_pretrained(models["base"])
    found = [(null["divergence"], folder / null["name"]) for null in about["nulls"]]
    for value, checkpoint in [*found, (about["divergence_of_tuned"], models["tuned"])]:
        change = analysis.behaviour_change(base, HookedViT.from_pretrained(checkpoint), parts["finetune_validation"])
        assert value == pytest.approx(change.images["kl"].mean(), rel=1e-4)


def test_what_is_made_and_where_each_setting_is_from_is_said(clean):
    folder, said = clean
    about = json.loads((folder / "nulls.json").read_text())
    assert {row["source"] for row in about["recipe"].values()} == {"training_log.json"}
    assert any(KINDS["clean"].question in line for line in said)
    assert any(line.strip().startswith("learning_rate") and "training_log.json" in line for line in said)
    assert any(line.startswith("1 more: about") for line in said)
    assert all(null["question"] == KINDS["clean"].question for null in about["nulls"])


def test_a_training_from_the_tuned_model_s_own_seed_is_the_tuned_model(models, parts, tmp_path):
    """To the bit: images, order, schedule and the step of the saved weights are those of its record."""
    recipe = recipe_of(models["tuned"])
    again = finetune(
        models["base"],
        parts["finetune"],
        None,
        tmp_path / "again",
        corruption=recipe.condition(),
        config=recipe.config(len(parts["finetune"]), TRAINING.seed),
        device="cpu",
        progress=False,
    )
    assert weights(again) == weights(models["tuned"])


def test_seeds_are_trained_as_the_tuned_model_and_leave_its_seed_out(models, tmp_path):
    folder = make_nulls(settings(models, tmp_path / "out", kind="seeds", count=3), print)
    assert [null["seed"] for null in made(folder)] == [1, 2, 4]
    logs = [json.loads((folder / null["name"] / "training_log.json").read_text()) for null in made(folder)]
    assert {log["corruption"] for log in logs} == {"gaussian_blur_2"}
    assert len({weights(folder / null["name"]) for null in made(folder)}) == 3
    assert weights(folder / "seeds_1") != weights(models["tuned"])


def test_an_interrupted_run_keeps_what_is_finished(models, clean, tmp_path, monkeypatch):
    import mechvit.finetuning as package

    real, calls = package.finetune, []

    def killed(*args, **kwargs):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(package, "finetune", killed)
    with pytest.raises(KeyboardInterrupt):
        make_nulls(settings(models, tmp_path / "out", count=2), print)
    assert [null["name"] for null in made(tmp_path / "out")] == ["clean_1"]
    said: list[str] = []
    make_nulls(settings(models, tmp_path / "out", count=2), said.append)
    assert len(calls) == 3
    assert any(line.startswith("clean_1: done before") for line in said)
    assert [weights(tmp_path / "out" / name) for name in ("clean_1", "clean_2")] == [
        weights(clean[0] / name) for name in ("clean_1", "clean_2")
    ]


def test_drift_ends_where_the_divergence_is_the_tuned_model_s(models, tmp_path):
    said: list[str] = []
    folder = make_nulls(settings(models, tmp_path / "out", kind="drift"), said.append)
    (null,) = made(folder)
    steps = dict(null["measured"])
    assert null["reached"]
    assert steps[null["steps"]] == null["divergence"]
    others = [abs(value - null["target"]) for step, value in steps.items() if step]
    assert abs(null["divergence"] - null["target"]) == min(others)
    assert max(steps.values()) == list(steps.values())[-1] >= null["target"]
    assert json.loads((folder / "nulls.json").read_text())["divergence_of_tuned"] == null["target"]


def test_drift_that_stays_near_the_base_is_the_furthest_point_and_says_so(models, tmp_path):
    far = tmp_path / "far"
    shutil.copytree(models["tuned"], far)
    model = ViTForImageClassification.from_pretrained(far)
    with torch.no_grad():
        model.classifier.weight.mul_(30)
    model.save_pretrained(far)
    said: list[str] = []
    folder = make_nulls(settings(models, tmp_path / "out", like=far, kind="drift", furthest=1), said.append)
    (null,) = made(folder)
    assert not null["reached"]
    assert null["divergence"] == max(value for _, value in null["measured"]) < null["target"]
    assert any("not reached; this is the furthest point" in line for line in said)


def test_kinds_share_a_folder_and_another_recipe_does_not(models, clean, tmp_path):
    shutil.copytree(clean[0], tmp_path / "out")
    make_nulls(settings(models, tmp_path / "out", kind="drift"), print)
    assert [null["name"] for null in made(tmp_path / "out")] == ["clean_1", "clean_2", "drift_1"]
    with pytest.raises(ValueError, match=r"out must hold nulls of one recipe, and .* another base or another tuned"):
        make_nulls(settings(models, tmp_path / "out", like=models["plain"], kind="seeds"), print)


@pytest.mark.parametrize("kind", ["clean", "drift"])
def test_a_plain_fine_tune_has_seeds_alone_as_a_null(models, tmp_path, kind):
    with pytest.raises(
        ValueError, match=r"kind must be seeds, since .*plain was tuned on clean images: for a plain ta"
    ):
        make_nulls(settings(models, tmp_path / "out", like=models["plain"], kind=kind), print)
    with pytest.raises(ValueError, match=r"kind must be seeds, since .* has other classes than the base: for a plain"):
        make_nulls(settings(models, tmp_path / "out", base=models["bare"], kind=kind), print)
    assert not (tmp_path / "out").exists()


def test_a_bare_base_gets_a_new_head_from_the_seed(models, tmp_path):
    folder = make_nulls(settings(models, tmp_path / "out", base=models["bare"], kind="seeds", count=2), print)
    about = json.loads((folder / "nulls.json").read_text())
    assert about["new_head"]
    assert [null["divergence"] for null in about["nulls"]] == [None, None]
    first, second = (ViTForImageClassification.from_pretrained(folder / f"seeds_{seed}") for seed in (1, 2))
    assert first.config.id2label == ViTForImageClassification.from_pretrained(models["tuned"]).config.id2label
    assert not torch.equal(first.classifier.weight, second.classifier.weight)
    kin = analysis.kinship(HookedViT.from_pretrained(models["bare"]), HookedViT.from_pretrained(folder / "seeds_1"))
    assert kin.is_kin


def test_another_base_or_other_images_are_refused(models, tmp_path, parts):
    stranger = train_from_scratch(
        SHAPE,
        parts["train"].select(range(38)),
        parts["finetune_validation"],
        tmp_path / "stranger",
        config=FinetuneConfig(epochs=1, seed=9),
        device="cpu",
        progress=False,
    )
    with pytest.raises(ValueError, match=r"base must be the model that .*tuned was tuned from; the median cosine"):
        make_nulls(settings(models, tmp_path / "out", base=stranger), print)
    with pytest.raises(
        ValueError, match=r"images must be those that .* 7. of the 76 that it records are not among the"
    ):
        make_nulls(settings(models, tmp_path / "other", seed=5), print)
