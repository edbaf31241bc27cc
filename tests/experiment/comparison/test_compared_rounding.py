"""Rounding under a comparison: known to be all that differs, or measured beside a real difference."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mechvit.data import load_images
from mechvit.experiment.comparison import CompareConfig, run_comparison
from mechvit.visualization.comparison.page import comparison_lead

SECTIONS = ("behaviour", "depth", "attention", "weights")


@pytest.fixture(scope="module")
def saved(tiny_hf, tiny_processor, tmp_path_factory) -> dict[str, str]:
    """A base; the base in bfloat16; the base with a block moved, in float32 and in bfloat16."""
    from transformers import ViTConfig, ViTForImageClassification

    classes = load_images("photos", "test", limit=19, image_size=32).features["label"].names
    config = ViTConfig.from_dict(tiny_hf.config.to_dict() | {"id2label": dict(enumerate(classes)), "label2id": None})
    base, generator = ViTForImageClassification(config), torch.Generator().manual_seed(0)
    moved = copy.deepcopy(base)
    with torch.no_grad():
        for own, other in zip(base.parameters(), moved.parameters(), strict=True):
            own.add_(0.25 * torch.randn(own.shape, generator=generator))
            other.copy_(own)
        for parameter in moved.vit.layers[1].parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    folder, found = tmp_path_factory.mktemp("rounded"), {}
    half = {"base16": copy.deepcopy(base).bfloat16(), "moved16": copy.deepcopy(moved).bfloat16()}
    for name, model in ({"base": base, "moved": moved} | half).items():
        model.save_pretrained(folder / name)
        tiny_processor.save_pretrained(folder / name)
        found[name] = str(folder / name)
    return found


def compared(tmp_path: Path, *models: str, **settings: object) -> tuple[Path, str]:
    settings = {"device": "cpu", "limit": 12, "sections": SECTIONS, "out": str(tmp_path / "run")} | settings
    report = run_comparison(CompareConfig(models=models, **settings), lambda line: None)
    return report.parent, comparison_lead(report.parent)[0]


def rounding(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "tables" / "rounding.parquet")


def test_a_model_and_itself_in_bfloat16_differ_by_rounding_alone(saved, tmp_path):
    folder, first = compared(tmp_path, saved["base"], saved["base16"])
    assert first.startswith("base16 is base but for rounding")
    assert "no more than rounding alone makes" in first
    own = rounding(folder).query("model == 'base' and source == 'stored' and dtype == 'bfloat16'")
    answers = pd.read_parquet(folder / "tables" / "behaviour.parquet")
    assert np.isclose(own.query("quantity == 'kl'")["value"].item(), answers["kl"].mean(), rtol=1e-6)
    about = json.loads((folder / "comparison.json").read_text())
    assert {row["name"]: row["stored_dtype"] for row in about["models"]} == {"base": "float32", "base16": "bfloat16"}
    text = (folder / "report.html").read_text()
    assert "Nothing here is known to be more than rounding alone makes." in text
    assert "base16: no weight differs by more than rounding makes." in text
    assert "layers entropy is higher in" not in text


def test_the_rounding_of_weights_is_that_of_torch(saved, tmp_path):
    from safetensors.torch import load_file

    folder, _ = compared(tmp_path, saved["base"], saved["moved16"], sections=("behaviour",))
    weights = load_file(Path(saved["base"]) / "model.safetensors")
    most = max(float((w - w.bfloat16().float()).norm() / w.norm()) for w in weights.values())
    own = rounding(folder).query("quantity == 'weights'")["value"].item()
    assert 0.5 * most < own <= 2**-8
    assert set(rounding(folder)["model"]) == {"base"}


def test_a_real_difference_is_still_one_beside_rounding(saved, tmp_path):
    folder, first = compared(tmp_path, saved["base"], saved["moved16"], conditions=("gaussian_blur_1",))
    assert first.startswith("moved16 differs from base.")
    assert "rounding" not in first
    assert set(rounding(folder).query("quantity == 'kl'")["condition"]) == {"clean", "gaussian_blur_1"}
    assert "Storing weights in bfloat16 alone makes of base" in (folder / "report.html").read_text()


def test_computing_in_half_precision_is_measured_against_float32(saved, tmp_path):
    folder, first = compared(tmp_path, saved["base"], saved["moved"], model_dtype="bfloat16")
    assert first.startswith("moved differs from base.")
    own = rounding(folder)
    assert set(own["source"]) == {"computed"}
    assert set(own["model"]) == {"base", "tuned"}
    kl = own.query("quantity == 'kl'")["value"]
    assert ((kl > 0) & (kl < 0.01)).all()
    cosines = own[own["quantity"].str.startswith("cosine")]["value"]
    assert ((cosines < 1) & (cosines > 0.999)).all()
    folder, first = compared(tmp_path / "same", saved["base"], saved["base16"], model_dtype="bfloat16")
    assert (
        first
        == "base16 is identical to base: every weight, rounded to bfloat16, is equal, and so are the image processors."
    )


def test_what_both_have_lost_by_storing_is_said(saved, tmp_path):
    folder, _ = compared(tmp_path, saved["base16"], saved["moved16"], sections=("weights",))
    assert not (folder / "tables" / "rounding.parquet").exists()
    about = json.loads((folder / "comparison.json").read_text())
    assert {row["precision"] for row in about["models"]} == {"bfloat16"}
    assert "changes below 1/512 of a weight are lost" in (folder / "report.html").read_text()


def test_without_rounding_nothing_is_said_of_it(saved, tmp_path):
    folder, first = compared(tmp_path, saved["base"], saved["moved"], sections=("behaviour",))
    assert not (folder / "tables" / "rounding.parquet").exists()
    assert "rounding" not in first
