"""patch_models.py gives what the package's functions give, and refuses before it computes."""

from __future__ import annotations

import pandas as pd
import pytest
from script_calls import call

from mechvit import HookedViT
from mechvit.analysis import (
    attribution_error,
    attribution_patching,
    choose_neurons,
    head_links,
    patch_models,
    patch_neurons,
)
from mechvit.data import load_images, prepare

BLUR = "gaussian_blur_2"


@pytest.mark.long
def test_patch_models_matches_functions(checkpoints, tiny_processor, tmp_path, capsys):
    out = tmp_path / "patching"
    call(
        "patch_models",
        receiver=checkpoints["base"],
        giver=checkpoints[BLUR],
        corruption=BLUR,
        limit=38,
        out=str(out),
        tokens=("all", "patches"),
        neurons=(3, 4),
    )
    printed = capsys.readouterr().out
    images = prepare(load_images("photos", "test", limit=38, image_size=32), tiny_processor)
    models = [HookedViT.from_pretrained(checkpoints[name], device="cpu") for name in ("base", BLUR)]
    ways = (*models, images, BLUR)
    patching = patch_models(*ways, tokens=("all", "patches"))
    attribution = attribution_patching(*ways, tokens=("all", "patches"))
    error, links = attribution_error(attribution, patching), head_links(*ways, patching)
    neurons = patch_neurons(*ways, choose_neurons(attribution, top=3, random=4))
    wanted = {
        "summary": patching.summary(),
        "patching": patching.to_frame(),
        "references": patching.references(),
        "attribution": attribution.to_frame(),
        "neurons": attribution.neurons(),
        "attribution_error": error.components,
        "attribution_agreement": error.overall,
        "neuron_error": neurons.to_frame(),
        "neuron_agreement": neurons.agreement(),
        "head_links": links.to_frame(),
        "head_correlations": links.correlations(),
    }
    tables = {path.stem: pd.read_parquet(path) for path in out.glob("*.parquet")}
    assert set(tables) == set(wanted)
    for name, frame in wanted.items():
        pd.testing.assert_frame_equal(tables[name], frame, obj=name)
    figures = {path.stem: path.read_text() for path in (out / "figures").iterdir()}
    assert set(figures) == {"patching_logit_difference", "patching_accuracy", "attribution", "head_links"}
    assert all("<script src=" not in text for text in figures.values())
    assert f"38 images, 32 components, {patching.passes:.1f} forward passes an image" in printed


@pytest.mark.long
def test_one_model_from_clean_to_corrupted_without_gradients(checkpoints, tmp_path):
    out = tmp_path / "harm"
    base = checkpoints["base"]
    call(
        "patch_models",
        receiver=base,
        giver=base,
        corruption=BLUR,
        giver_corruption="clean",
        kinds=("resid",),
        attribution=False,
        limit=19,
        out=str(out),
    )
    summary = pd.read_parquet(out / "summary.parquet").query("quantity == 'logit_difference' and layer == 0")
    references = pd.read_parquet(out / "references.parquet").groupby("condition")["logit_difference"].mean()
    assert summary["value"].item() == pytest.approx(references["giver"], abs=1e-5)  # the clean embedding is all
    assert sorted(path.stem for path in out.glob("*.parquet")) == ["patching", "references", "summary"]


def test_bad_input_is_refused_first(checkpoints, tmp_path):
    two = {"receiver": "nowhere", "giver": "nowhere", "out": str(tmp_path / "out")}
    with pytest.raises(ValueError, match="neurons must not both be 0"):
        call("patch_models", **two, corruption=BLUR, giver_corruption="clean", neurons=(0, 0))
    with pytest.raises(ValueError, match="sees the same images, so that patching changes nothing"):
        call("patch_models", **two, corruption=BLUR)
    with pytest.raises(ValueError, match="sees the same images"):
        call("patch_models", **two, corruption=BLUR, giver_corruption=BLUR)
    with pytest.raises(ValueError, match="gaussian_blur"):
        call("patch_models", **two, corruption="gaussian_blurr_2")
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mother.txt").write_text("Dear")
    with pytest.raises(ValueError, match="is no earlier result"):
        call("patch_models", **{**two, "giver": "b", "out": str(tmp_path / "letters")}, corruption=BLUR, overwrite=True)
    assert not (tmp_path / "out").exists()
