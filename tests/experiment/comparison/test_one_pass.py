"""One pass of both models for behaviour, depth and attention of a comparison, and reruns that load nothing."""

from __future__ import annotations

import importlib
import json
import shutil
from collections import Counter
from pathlib import Path

import datasets
import pandas as pd
import pytest
import torch

from mechvit import HookedViT
from mechvit.analysis import (
    attention_change,
    behaviour_change,
    compare_lenses,
    lens_comparison_summary,
    residual_cosine,
)
from mechvit.analysis.pairs.matching import block_units
from mechvit.data import load_images
from mechvit.experiment.comparison import CompareConfig, SectionLimits, run_comparison
from mechvit.experiment.comparison import pair as pair_module
from mechvit.experiment.comparison import plan as plan_module
from mechvit.experiment.comparison.plan import TIMED
from mechvit.models.layers.block import Block

LIMITS = SectionLimits(behaviour=19, depth=19, attention=19)
IN_PASS = ("behaviour", "depth", "attention")
BOOTSTRAP = {"resamples": 2000, "level": 0.95, "seed": 0}


@pytest.fixture(scope="module")
def models(tiny_hf, tiny_processor, tmp_path_factory) -> dict[str, str]:
    """A base of the photographs' 19 classes, and the same with every weight moved a little."""
    from transformers import ViTConfig, ViTForImageClassification

    classes = load_images("photos", "test", limit=19, image_size=32).features["label"].names
    config = ViTConfig.from_dict(tiny_hf.config.to_dict() | {"id2label": dict(enumerate(classes)), "label2id": None})
    folder, model = tmp_path_factory.mktemp("models"), ViTForImageClassification(config)
    generator = torch.Generator().manual_seed(3)
    for name, scale in (("base", 0.25), ("tuned", 0.02)):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
        model.save_pretrained(folder / name)
        tiny_processor.save_pretrained(folder / name)
    return {name: str(folder / name) for name in ("base", "tuned")}


@pytest.fixture
def counted(monkeypatch) -> Counter[str]:
    """Numbers of models that were loaded, and of images that entered any block."""
    seen: Counter[str] = Counter()
    load, forward = pair_module.load_model, Block.forward

    def loaded(*args):
        seen["models"] += 1
        return load(*args)

    def entered(block, resid, *args, **kwargs):
        seen["images"] += len(resid)
        return forward(block, resid, *args, **kwargs)

    monkeypatch.setattr(pair_module, "load_model", loaded)
    monkeypatch.setattr(Block, "forward", entered)
    monkeypatch.setattr(plan_module, "LEAST", 0.0)  # one pass is timed
    return seen


def compared(models: dict[str, str], folder: Path, **settings: object) -> list[str]:
    """Lines that a quick comparison prints."""
    said: list[str] = []
    given: dict = {"sections": IN_PASS, "quick": True, "limit": 19, "limits": LIMITS, "device": "cpu"} | settings
    run_comparison(CompareConfig(models=tuple(models.values()), out=str(folder), **given), said.append)
    return said


def passes(counted: Counter[str]) -> float:
    """Images that were shown to a whole model of three blocks since the last call."""
    return counted.pop("images", 0) / 3


def run_again(said: list[str]) -> list[str]:
    """Sections that were measured."""
    return [line.removesuffix("/tuned ...") for line in said if line.endswith("/tuned ...")]


TIMING = 2 * (1 + TIMED)


def test_three_sections_run_each_model_once(models, tmp_path, counted):
    said = compared(models, tmp_path / "run")
    assert counted["models"] == 2
    assert passes(counted) == 2 * 19 + TIMING
    assert any(line.startswith("  behaviour ") and line.endswith("in one pass with depth, attention") for line in said)
    assert sum(line.endswith("in the same pass") for line in said) == 2
    compared(models, tmp_path / "more", conditions=("gaussian_blur_1",), sections=(*IN_PASS, "weights"))
    assert passes(counted) == 2 * 2 * 19 + TIMING


def test_the_passes_that_are_planned_are_those_that_are_run(models, tmp_path, counted):
    """Quick causes: both models once, and each way the embedding's swap (3 blocks) and each block's (3 + 2 + 1)."""
    compared(models, tmp_path / "run", sections=("causes",))
    planned = json.loads((tmp_path / "run" / "plans" / "tuned.json").read_text())["sections"][0]
    assert (planned["images"], planned["passes"]) == (12, (2 * 3 + 2 * (3 + 3 + 2 + 1)) / 3)
    assert passes(counted) == 12 * planned["passes"] + TIMING


def test_a_finished_comparison_loads_no_model(models, tmp_path, counted):
    sections = (*IN_PASS, "weights", "causes", "pictures")
    compared(models, tmp_path / "run", sections=sections)
    before = (tmp_path / "run" / "comparison.json").read_text()
    counted.clear()
    said = compared(models, tmp_path / "run", sections=sections)
    assert not counted
    assert [line for line in said if line.endswith("All sections were measured before.")]
    assert (tmp_path / "run" / "comparison.json").read_text() == before


def test_kinship_is_judged_once(models, tmp_path, monkeypatch):
    judged: list[Block] = []
    module = importlib.import_module("mechvit.analysis.pairs.kinship")  # its folder gives the function by this name

    def units(block: Block) -> dict[str, dict[str, torch.Tensor]]:
        judged.append(block)
        return block_units(block)

    monkeypatch.setattr(module, "block_units", units)
    compared(models, tmp_path / "run", sections=(*IN_PASS, "weights", "causes"))
    assert len(judged) == 2 * 3  # each block of both models


def test_sections_that_are_left_share_a_pass(models, tmp_path, counted):
    compared(models, tmp_path / "run")
    counted.clear()
    fewer = SectionLimits(behaviour=19, depth=11, attention=7)
    said = compared(models, tmp_path / "run", limits=fewer)
    assert passes(counted) == 2 * 11 + TIMING
    assert run_again(said) == ["plan", "depth", "attention"]
    shutil.rmtree(tmp_path / "run" / "parts" / "attention")
    said = compared(models, tmp_path / "run", limits=fewer)
    assert passes(counted) == 2 * 7 + TIMING
    assert run_again(said) == ["attention"]


def test_tables_equal_those_of_single_analyses_bit_for_bit(models, tmp_path):
    compared(models, tmp_path / "run", conditions=("gaussian_blur_1",))
    parts = tmp_path / "run" / "parts"
    images = datasets.load_from_disk(str(tmp_path / "run" / "images"))
    base, tuned = (HookedViT.from_pretrained(path, device="cpu") for path in models.values())
    conditions = ("clean", "gaussian_blur_1")

    def check(section: str, name: str, wanted: pd.DataFrame) -> None:
        found = pd.read_parquet(parts / section / "tuned" / f"{name}.parquet")
        pd.testing.assert_frame_equal(found[list(wanted)], wanted, check_exact=True, check_dtype=False)

    check("behaviour", "behaviour", behaviour_change(base, tuned, images, conditions).images)
    check("depth", "residual_cosine", residual_cosine(base, tuned, images, conditions).summary(**BOOTSTRAP))
    heads = attention_change(base, tuned, images, conditions)
    check("attention", "attention_heads", heads.summary(**BOOTSTRAP))
    readings = [
        compare_lenses(model, {"logit": None}, images, condition)["logit"].to_frame(
            model=name, corruption=condition, lens="logit"
        )
        for name, model in (("base", base), ("tuned", tuned))
        for condition in conditions
    ]
    check("depth", "lens", lens_comparison_summary(pd.concat(readings), **BOOTSTRAP))
