"""What the whole runs share: exchanges in named directions, tables joined over models, summaries, views of pictures."""

from __future__ import annotations

import copy
import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file

from mechvit.analysis import study, swap_weights
from mechvit.analysis.study import StudyTables
from mechvit.data.corruption_spec import CLEAN, Corruption
from mechvit.experiment.runs.stages import write_tables
from mechvit.experiment.sections import exchanges
from mechvit.experiment.sections.exchanges import CLEAN_INTO_CORRUPTED, INTO_BASE, INTO_TUNED, Exchange
from mechvit.experiment.sections.study import study_summaries
from mechvit.experiment.sections.views import write_views
from mechvit.experiment.tables import joined_tables

BOOTSTRAP = {"resamples": 20, "level": 0.95, "seed": 0}
BLUR = Corruption.parse("gaussian_blur_2")


@pytest.fixture
def pair(tiny_model, tiny_images) -> Exchange:
    """A base, the same with block 1's MLP moved, and eight images."""
    tuned, generator = copy.deepcopy(tiny_model), torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in tuned.blocks[1].mlp.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    images = tiny_images.select(range(8))
    return Exchange(base=tiny_model, tuned=tuned, images=images, seed=0, bootstrap=BOOTSTRAP)


def test_swaps_go_in_the_directions_that_are_asked_for(pair):
    own = {"parts": ("blocks.0", "blocks.1"), "cumulative": None}
    found = exchanges.swaps(pair, [CLEAN], {INTO_TUNED: own, INTO_BASE: own | {"parts": ("blocks.1",)}})
    assert found.groupby("direction")["part"].agg(set).to_dict() == {
        INTO_TUNED: {"blocks.0", "blocks.1"},
        INTO_BASE: {"blocks.1"},
    }
    swapped = found.query("part == 'blocks.1' and quantity == 'divergence'").set_index("direction")["recovered"]
    assert swapped[INTO_BASE] == pytest.approx(1, abs=1e-6)
    assert swapped[INTO_TUNED] == pytest.approx(1, abs=1e-6)
    other = found.query("part == 'blocks.0' and quantity == 'divergence'")
    assert other["recovered"].item() == pytest.approx(0, abs=1e-6)
    alone = swap_weights(pair.base, pair.tuned, pair.images, [CLEAN], parts=("blocks.1",), cumulative=None)
    pd.testing.assert_frame_equal(
        found[found["direction"] == INTO_BASE].drop(columns="direction").reset_index(drop=True),
        alone.summary(**BOOTSTRAP),
    )


def test_patching_takes_each_direction_s_activations(pair):
    kinds = dict.fromkeys((INTO_BASE, INTO_TUNED, CLEAN_INTO_CORRUPTED), ("resid",))
    found = exchanges.patching_table(exchanges.patched(pair, BLUR, kinds).items(), BOOTSTRAP)
    last = found.query("layer == 3 and quantity == 'divergence'").set_index("direction")
    assert (last["value"].abs() < 1e-9).all()  # all that the head reads is the giver's, and one head reads both
    first = found.query("layer == 0 and quantity == 'divergence'").set_index("direction")
    assert first.loc[INTO_BASE, "recovered"] == pytest.approx(0, abs=1e-6)  # the embeddings are equal
    assert first.loc[CLEAN_INTO_CORRUPTED, "recovered"] == pytest.approx(1, abs=1e-6)  # the images alone differ


def test_tables_are_joined_over_the_models_that_have_them(tmp_path):
    write_tables(tmp_path / "a", {"one": pd.DataFrame({"x": [1, 2]}), "two": pd.DataFrame({"y": [3]})})
    write_tables(tmp_path / "b", {"one": pd.DataFrame({"x": [4]})})
    found = joined_tables({"A": [tmp_path / "a"], "B": [tmp_path / "b"]}, "model")
    assert found["one"].to_dict("list") == {"model": ["A", "A", "B"], "x": [1, 2, 4]}
    assert found["two"].to_dict("list") == {"model": ["A"], "y": [3]}
    assert joined_tables({"B": [tmp_path / "b"]})["one"].columns.tolist() == ["x"]


def test_a_study_in_which_nothing_is_right_has_no_first_correct_layers(tiny_model, tiny_images):
    found = study({"base": tiny_model, "tuned": tiny_model}, tiny_images.select(range(6)), [BLUR])
    wrong = found.lens.assign(rank=1)
    summaries = study_summaries(vars(StudyTables(found.performance, wrong, found.attention)), BOOTSTRAP)
    assert set(summaries) == {"first_correct", "performance_summary", "lens_summary", "attention_summary"}
    assert summaries["first_correct"].empty
    right = wrong.assign(rank=np.where(wrong["model"] == "tuned", 0, 1))
    table = study_summaries({**vars(found), "lens": right}, BOOTSTRAP)["first_correct_summary"]
    assert set(table["model"]) == {"tuned"}
    assert (table["mean"] == 0).all()
    assert table["difference"].isna().all()  # the base is never right


def test_views_that_the_models_do_not_allow_leave_no_file(tmp_path):
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    write_views(tmp_path / "views", {"examples": {"a/1": pixels}}, {"examples": [1]}, explorer=None, lens=None)
    names = {path.name for path in (tmp_path / "views").iterdir() if not path.name.startswith(".")}
    assert names == {"examples.safetensors", "examples.json"}
    assert np.array_equal(load_file(tmp_path / "views" / "examples.safetensors")["a/1"], pixels)
    assert json.loads((tmp_path / "views" / "examples.json").read_text()) == [1]
