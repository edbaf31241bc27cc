"""Limits of clean-tuned models in a comparison: one more of them lies within, a planted change beyond."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from transformers import ViTForImageClassification

from mechvit.cli.main import read_options
from mechvit.data import Corruption, load_images, prepare
from mechvit.experiment.comparison import CompareConfig, SectionLimits, run_comparison
from mechvit.experiment.nulls import KINDS, NullsConfig, make_nulls
from mechvit.experiment.nulls.limits import NULL_ROWS, given_nulls, with_limits
from mechvit.finetuning import FinetuneConfig, ViTShape, finetune, train_from_scratch
from mechvit.visualization.comparison.page import comparison_lead

LIMITS = SectionLimits(behaviour=57, depth=57, attention=19, difference=10, causes=8, conditions=19, pictures=2)
SECTIONS = ("behaviour", "depth", "attention", "weights", "causes", "conditions")
TRAINING = FinetuneConfig(learning_rate=1e-3, epochs=2, batch_size=16, keep="last")


@pytest.fixture(scope="module")
def models(tiny_processor, tmp_path_factory) -> dict[str, str]:
    """A base, a model tuned on blur, five clean-tuned ones, a sixth, and the sixth with a planted change."""
    folder = tmp_path_factory.mktemp("models")
    train, training, validation = (
        prepare(load_images("photos", part, limit=count, image_size=32), tiny_processor)
        for part, count in [("train", 304), ("finetune", 57), ("finetune_validation", 19)]
    )
    shape = ViTShape(image_size=32, d_model=32, n_layers=2, n_heads=2, d_mlp=64)
    asked = {"device": "cpu", "progress": False}
    config = FinetuneConfig(learning_rate=2e-3, epochs=6, batch_size=16)
    base = train_from_scratch(shape, train, validation, folder / "base", config=config, **asked)
    blur = Corruption("gaussian_blur", 2)
    tuned = finetune(base, training, validation, folder / "tuned", corruption=blur, config=TRAINING, **asked)
    common = {"base": str(base), "like": str(tuned), "device": "cpu", "validation_limit": 19}
    nulls = make_nulls(NullsConfig(**common, out=str(folder / "nulls"), count=5), lambda line: None)
    other = make_nulls(NullsConfig(**common, out=str(folder / "other"), count=1, first_seed=50), lambda line: None)
    sixth = shutil.copytree(other / "clean_50", folder / "sixth")
    planted = shutil.copytree(sixth, folder / "planted")
    model = ViTForImageClassification.from_pretrained(planted)
    with torch.no_grad():
        model.vit.layers[1].mlp.fc2.weight.add_(0.3 * torch.randn(32, 64, generator=torch.Generator().manual_seed(1)))
    model.save_pretrained(planted)
    paths = {"base": base, "tuned": tuned, "nulls": nulls, "sixth": sixth, "planted": planted, "other": other}
    return {name: str(path) for name, path in paths.items()}


@pytest.fixture(scope="module")
def run(models, tmp_path_factory) -> Path:
    """The sixth and the planted model compared with the base, beside five nulls."""
    out = tmp_path_factory.mktemp("runs") / "run"
    config = CompareConfig(
        models=tuple(models[name] for name in ("base", "sixth", "planted")),
        out=str(out),
        nulls=(models["nulls"],),
        conditions=("gaussian_blur_2",),
        limits=LIMITS,
        limit=57,
        device="cpu",
        sections=SECTIONS,
    )
    return run_comparison(config, lambda line: None).parent


def table(run: Path, name: str, **where) -> pd.DataFrame:
    found = pd.read_parquet(run / "tables" / f"{name}.parquet")
    for column, value in where.items():
        found = found[found[column] == value]
    return found


def beyond(rows: pd.DataFrame, value: str) -> float:
    known = rows.dropna(subset=["null_low"])
    return float((~known[value].between(known["null_low"], known["null_high"])).mean())


def test_every_table_of_differences_has_limits_and_no_row_of_a_null(run):
    names = {path.stem for path in (run / "tables").glob("*.parquet")}
    assert names >= set(NULL_ROWS) - {"difference"}
    for name in names & set(NULL_ROWS):
        found = table(run, name)
        assert set(found["tuned"]) == {"sixth", "planted"}
        assert found["null_low"].notna().any(), name
        known = found.dropna(subset=["null_low"])
        assert (known["null_low"] < known["null_high"]).all()
    assert "null_low" not in table(run, "behaviour").columns


def test_one_more_clean_tuned_model_lies_within_and_a_planted_change_beyond(run):
    within = [beyond(table(run, name, tuned="sixth"), NULL_ROWS[name].value) for name in ("residual_cosine", "cka")]
    within.append(beyond(table(run, "attention_layers", tuned="sixth"), "value"))
    assert np.mean(within) < 0.25
    parts = table(run, "weight_parts", tuned="planted").set_index("part")
    changed = parts.loc["blocks.1.mlp"]
    assert changed["relative"] > changed["null_high"]
    assert changed["z_null"] > 20
    others = parts.drop(index="blocks.1.mlp")
    assert beyond(others.reset_index(), "relative") < 0.5
    kl = table(run, "behaviour_summary", quantity="kl", by="all", condition="clean").set_index("tuned")
    assert kl.loc["planted", "value"] > kl.loc["planted", "null_high"]
    assert kl.loc["sixth", "null_low"] <= kl.loc["sixth", "value"] <= kl.loc["sixth", "null_high"]


def test_a_single_row_s_limits_are_those_of_scipy():
    nulls = pd.DataFrame({"null": list("abc"), "part": "embed", "relative": [0.1, 0.13, 0.19]})
    tuned = pd.DataFrame({"tuned": ["t", "u"], "part": "embed", "relative": [0.2, 0.5]})
    found = with_limits({"weight_parts": tuned}, {"weight_parts": nulls}, 3)["weight_parts"]
    values = nulls["relative"].to_numpy()
    error = values.std(ddof=1) * np.sqrt(1 + 1 / 3)
    low, high = stats.t.interval(0.95, 2, values.mean(), error)
    assert np.allclose(found["null_low"], low)
    assert np.allclose(found["null_high"], high)
    assert np.allclose(found["z_null"], (tuned["relative"] - values.mean()) / error)
    assert (found["null_df"] == 2).all()


def test_rows_that_some_null_lacks_have_no_limits():
    nulls = pd.DataFrame({"null": list("aabb"), "part": list("xyxy"), "relative": [0.1, np.nan, 0.2, 0.4]})
    tuned = pd.DataFrame({"tuned": "t", "part": list("xyz"), "relative": [0.3, 0.3, 0.3]})
    found = with_limits({"weight_parts": tuned, "place": tuned}, {"weight_parts": nulls}, 2)
    assert found["weight_parts"]["null_low"].notna().tolist() == [True, False, False]
    assert found["place"] is tuned


def test_the_report_says_changed_only_beyond_the_limits(run):
    sixth, planted = comparison_lead(run)
    assert "sixth differs from base, as tuning on clean images does." in sixth
    assert "changed" not in sixth
    assert "planted changed from base: its KL divergence is beyond the limits of clean-tuned models" in planted
    about = json.loads((run / "comparison.json").read_text())
    assert about["nulls"]["question"] == KINDS["clean"].question
    assert [row["name"] for row in about["nulls"]["models"]] == [f"null-clean_{seed}" for seed in range(1, 6)]
    page = (run / "report.html").read_text()
    assert KINDS["clean"].question in page
    assert "mechvit nulls" not in page


def test_without_nulls_the_report_names_a_command_that_makes_them(models, tmp_path):
    config = CompareConfig(
        models=(models["base"], models["tuned"]),
        out=str(tmp_path / "run"),
        device="cpu",
        limit=19,
        limits=LIMITS,
        sections=("behaviour",),
    )
    page = run_comparison(config, lambda line: None).read_text()
    (line,) = [part.split("</code>")[0] for part in page.split("<code>mechvit ")[1:] if part.startswith("nulls ")]
    name, *words = shlex.split(line)
    options = read_options(name, words)
    assert (options.base, options.like, options.images) == (models["base"], models["tuned"], "photos")
    assert "changed" not in comparison_lead(tmp_path / "run")[0]


def test_folders_that_give_no_limits_are_refused(models, tmp_path):
    with pytest.raises(ValueError, match=r"nulls must be folders of null models.* is neither"):
        given_nulls((str(tmp_path),), models["base"])
    with pytest.raises(ValueError, match=r"nulls must hold at least 2 clean-tuned models for limits; got 1"):
        given_nulls((models["other"],), models["base"])
    with pytest.raises(ValueError, match=r"nulls must be of the base that is compared; those in .* are of .*base"):
        given_nulls((models["nulls"],), models["tuned"])
    own = given_nulls((models["sixth"], models["nulls"]), models["base"])
    assert list(own)[:2] == ["null-sixth", "null-clean_1"]
    assert len(own) == 6
