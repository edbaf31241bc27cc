"""Scripts that compare models of two processors: each row is what its model gives on its own pixels."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
from script_calls import call
from transformers import CLIPImageProcessorPil

from mechvit import HookedViT
from mechvit.analysis import evaluate
from mechvit.data import load_images


@pytest.fixture(scope="module")
def pair(checkpoints, tmp_path_factory):
    """`base` as it is, and the other one with a processor that crops."""
    folder = tmp_path_factory.mktemp("cropped") / "gaussian_blur_2"
    shutil.copytree(checkpoints["gaussian_blur_2"], folder)
    CLIPImageProcessorPil(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return checkpoints["base"], str(folder)


def alone(folder, corruption):
    """The model by itself on raw pictures."""
    images = load_images("photos", "test", limit=38, image_size=32)
    return evaluate(HookedViT.from_pretrained(folder, device="cpu"), images, corruption).probability.numpy()


def check(table, pair, corruption):
    for name, folder in zip(("base", "gaussian_blur_2"), pair, strict=True):
        rows = table[(table["model"] == name) & (table["corruption"] == corruption)]
        np.testing.assert_allclose(rows["probability"], alone(folder, corruption), rtol=0, atol=1e-5)


@pytest.mark.long
def test_robustness(pair, tmp_path):
    call("robustness", model=pair, families=("gaussian_blur",), levels=(2,), limit=38, out=str(tmp_path / "out"))
    check(pd.read_parquet(tmp_path / "out" / "performance.parquet"), pair, "gaussian_blur_2")


@pytest.mark.long
def test_analyze(pair, tmp_path):
    call("analyze", base=pair[0], tuned=pair[1:], corruptions=("gaussian_blur_2",), limit=38, out=str(tmp_path / "out"))
    check(pd.read_parquet(tmp_path / "out" / "performance.parquet"), pair, "gaussian_blur_2")


@pytest.mark.parametrize(
    ("script", "options"),
    [
        ("patch_models", {"corruption": "gaussian_blur_2"}),
        ("swap_weights", {"corruptions": ("gaussian_blur_2",)}),
        ("steer", {"corruption": "gaussian_blur_2"}),
    ],
)
def test_interventions_name_the_settings(pair, tmp_path, script, options):
    names = ("receiver", "giver") if script == "patch_models" else ("base", "tuned")
    with pytest.raises(ValueError, match=r"in the other's place needs .* differ in size .*crop_size"):
        call(script, **dict(zip(names, pair, strict=True)), out=str(tmp_path / "out"), limit=38, **options)
