"""Results as they are shown: one line, a notebook's table, summaries with means and intervals."""

from __future__ import annotations

import dataclasses
import importlib

import numpy as np
import pandas as pd
import pytest
import torch

from mechvit import analysis
from mechvit.analysis import Outcomes, Predictions, evaluate, interval, logit_lens, resampled_means, weight_change
from mechvit.analysis.statistics.results import AveragedResult, OneLine, Result, table_html

SETTINGS = {"SmallestSetConfig", "LensTraining", "Requirement", "HeadChoice"}
"""Dataclasses of mechvit.analysis that hold settings and words alone."""


def dataclasses_of(face: str) -> list[type]:
    """The dataclasses among a face's public names."""
    module = importlib.import_module(face)
    found = (getattr(module, name) for name in module.__all__)
    return [each for each in found if isinstance(each, type) and dataclasses.is_dataclass(each)]


@pytest.mark.parametrize("face", ["mechvit.analysis", "mechvit.saes"])
def test_every_result_is_shown_in_one_line_and_as_a_table(face):
    for each in dataclasses_of(face):
        holds = [
            field for field in dataclasses.fields(each) if "Tensor" in str(field.type) or "Frame" in str(field.type)
        ]
        if holds:
            assert each.__repr__.__code__.co_filename.endswith(".py"), f"{each.__name__} shows whole arrays"
            assert "dataclasses" not in each.__repr__.__code__.co_filename, f"{each.__name__} shows whole arrays"
        if hasattr(each, "to_frame"):
            assert issubclass(each, Result), f"{each.__name__} has a table and is no Result"
            assert each.to_frame is not Result.to_frame, f"{each.__name__} has no table"
        if issubclass(each, AveragedResult):
            assert each.SUMMARISED[1] or each.summary is not AveragedResult.summary, f"{each.__name__} averages nothing"
    known = {each.__name__ for each in dataclasses_of("mechvit.analysis") if not issubclass(each, OneLine)}
    assert known <= SETTINGS | {"RidgeHead"}


def test_a_line_holds_shapes_and_never_breaks():
    @dataclasses.dataclass(frozen=True, repr=False)
    class Found(OneLine):
        image_id: torch.Tensor
        entropy: torch.Tensor
        table: pd.DataFrame
        names: tuple[str, ...]
        text: str
        size: float

    found = Found(
        torch.arange(1200), torch.zeros(1200, 3), pd.DataFrame({"a": [1], "b": [2]}), ("x", "y"), "a\n" * 90, 1 / 3
    )
    line = repr(found)
    assert "\n" not in line
    assert line.startswith("Found(1,200 images, entropy [1200, 3], table 1 rows of 2 columns, names of 2, text a a a")
    assert line.endswith("…, size 0.3333)")


def test_the_summary_of_performance_is_its_numbers(tiny_model, tiny_images):
    found = evaluate(tiny_model, tiny_images)
    table = found.summary(resamples=100).set_index("quantity")
    assert table["value"]["accuracy"] == pytest.approx(found.accuracy)
    assert table["value"]["ece"] == pytest.approx(found.ece())
    assert table["value"]["loss"] == pytest.approx(float(found.loss.mean()), rel=1e-5)
    assert (table["n"] == len(tiny_images)).all()
    wanted = interval(resampled_means(found.loss.double().numpy()[:, None], resamples=100)[:, 0])
    assert table.loc["loss", ["low", "high"]].astype(float).tolist() == pytest.approx(
        [wanted.low, wanted.high], rel=1e-5
    )
    assert "\n" not in repr(found)
    assert f"{found.accuracy:.3g}" in found._repr_html_()


def test_means_are_taken_by_layer(tiny_model, tiny_images):
    found = logit_lens(tiny_model, tiny_images)
    table = found.summary(resamples=10)
    assert list(table["layer"]) == list(range(tiny_model.cfg.n_layers + 1))
    assert np.allclose(table["value"], found.probability.double().mean(0).numpy())


def test_what_no_image_has_is_unknown():
    numbers = torch.tensor([0.5, 1.5])
    unknown = torch.full((2,), torch.nan)
    found = Outcomes(torch.arange(2), torch.zeros(2, dtype=torch.bool), unknown, numbers).summary(resamples=10)
    table = found.set_index("quantity")
    assert table["n"].to_dict() == {"correct": 0, "logit_difference": 0, "divergence": 2}
    assert table["value"]["divergence"] == 1.0
    assert table["value"].isna().to_dict() == {"correct": True, "logit_difference": True, "divergence": False}


def test_a_notebook_shows_some_rows_and_counts_the_others():
    table = pd.DataFrame({"name": ["<b>"] * 25, "value": [1 / 3] * 25})
    text = table_html("a < b", table)
    assert text.count("&lt;b&gt;") == 20
    assert "a &lt; b" in text
    assert "0.3333" in text
    assert "5 more rows in <code>summary()</code>" in text
    assert "more row" not in table_html("a", table.head(20))
    small = pd.DataFrame({"single": np.array([1 / 3, np.nan], dtype=np.float32)})
    assert "<td>0.3333</td></tr><tr><td></td>" in table_html("a", small)


def test_results_without_images_show_their_own_table(tiny_model):
    found = weight_change(tiny_model, tiny_model)
    assert found.summary().equals(found.part_frame())
    assert "blocks.0.attn" in found._repr_html_()
    assert repr(found).startswith("WeightChanges(weights of ")
    same = analysis.kinship(tiny_model, tiny_model)
    assert same.summary()["is_kin"].item()
    few = Predictions(torch.arange(3), torch.tensor([0, 1, 1]), torch.tensor([0.5, 0.75, 1.0]))
    assert repr(few) == "Predictions(3 images, prediction [3], confidence [3])"
    assert few.summary(resamples=10)["value"].tolist() == [0.75]
