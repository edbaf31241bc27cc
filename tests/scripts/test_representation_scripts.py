"""compare_representations.py and ablate_features.py give what the package's functions give."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from script_calls import call

from mechvit import HookedViT
from mechvit.analysis import TunedLens, depth_summary, linear_cka, prediction_depth, tuned_lens
from mechvit.data import load_images, prepare
from mechvit.saes import ablate_features, feature_change, load_sae, sensitive_features

KEY = "gaussian_blur_2"


@pytest.fixture(scope="module")
def models(checkpoints):
    return {name: HookedViT.from_pretrained(folder, device="cpu") for name, folder in checkpoints.items()}


def images_of(part, tiny_processor, limit=38):
    return prepare(load_images("photos", part, limit=limit, image_size=32), tiny_processor)


@pytest.mark.long
def test_comparison_matches_functions(checkpoints, models, tiny_processor, tmp_path, capsys):
    out = tmp_path / "representations"
    call(
        "compare_representations",
        model=tuple(checkpoints.values()),
        corruptions=(KEY,),
        every_pair=True,
        limit=38,
        lens_epochs=2,
        lens_limit=38,
        lens_validation_limit=19,
        out=str(out),
    )
    printed = capsys.readouterr().out
    images = images_of("test", tiny_processor)
    cka = pd.read_parquet(out / "cka.parquet")
    assert len(cka) == 4 * 16
    wanted = linear_cka(models["base"], models[KEY], images, KEY, every_pair=True).to_frame()
    found = cka.query("model_a == 'base' and model_b == @KEY and corruption_b == @KEY").reset_index(drop=True)
    pd.testing.assert_frame_equal(found[wanted.columns], wanted)
    lens = TunedLens.load(out / "lenses" / KEY, models[KEY])
    assert lens.about["corruptions"] == [KEY]
    readings = pd.read_parquet(out / "lens_readings.parquet")
    own = readings.query("model == @KEY and corruption == 'clean' and lens == 'tuned'").reset_index(drop=True)
    expected = tuned_lens(models[KEY], lens, images).to_frame()
    pd.testing.assert_frame_equal(own[expected.columns], expected)
    depths = pd.read_parquet(out / "prediction_depth.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(out / "depth_change.parquet"), depth_summary(depths))
    logit = prediction_depth(models["base"], images, KEY).to_frame()
    base = depths.query("model == 'base' and corruption == @KEY and lens == 'logit'").reset_index(drop=True)
    pd.testing.assert_frame_equal(base[logit.columns], logit)
    names = {"model_similarity", "corruption_similarity", "lens_comparison", "depth_change", "similarity_matrix"}
    figures = {path.stem: path.read_text() for path in (out / "figures").iterdir()}
    assert set(figures) == names
    assert all("<script src=" not in text for text in figures.values())
    assert "2 lenses, 5 figures" in printed
    with pytest.raises(ValueError, match="--overwrite"):
        call("compare_representations", model=tuple(checkpoints.values()), corruptions=(KEY,), out=str(out))


@pytest.mark.long
def test_ablation_matches_functions(checkpoints, saes, models, tiny_processor, tmp_path, capsys):
    out, folder = tmp_path / "ablation", str(saes / "batchtopk")
    call(
        "ablate_features",
        model=tuple(checkpoints.values()),
        sae=folder,
        corruptions=(KEY,),
        counts=(1, 3),
        draws=2,
        target="clean_mean",
        limit=38,
        out=str(out),
        allow_other_model=True,
    )
    printed = capsys.readouterr().out
    sae = load_sae(folder)
    choose, measure = (images_of(part, tiny_processor) for part in ("sae_validation", "test"))
    change = feature_change(models, sae, choose, KEY, allow_other_model=True)
    table = pd.read_parquet(out / "feature_change.parquet")
    pd.testing.assert_frame_equal(table.drop(columns="selected_by"), change.to_frame())
    own = change.models[KEY]
    sets = sensitive_features(sae, own, 3, draws=2)
    found = ablate_features(
        models[KEY],
        sae,
        measure,
        [KEY],
        sets,
        counts=(1, 3),
        target="clean_mean",
        clean_mean=own.clean,
        allow_other_model=True,
    )
    for name, wanted in (
        ("ablation", found.per_image),
        ("ablation_summary", found.summary()),
        ("ablated_sets", sets.to_frame()),
    ):
        frame = pd.read_parquet(out / f"{name}.parquet").query("model == @KEY").reset_index(drop=True)
        pd.testing.assert_frame_equal(frame[wanted.columns], wanted)
    assert {path.stem for path in (out / "figures").iterdir()} == {
        f"feature_ablation_base_{KEY}",
        f"feature_ablation_{KEY}_{KEY}",
        f"feature_change_{KEY}",
    }
    assert "4 tables, 3 figures" in printed


@pytest.mark.long
def test_one_sae_for_two_models_on_the_command_line(checkpoints, tmp_path):
    from mechvit.saes import SAEConfig

    base, other = checkpoints.values()
    config = SAEConfig(
        architectures=("topk",), epochs=1, k=4, expansion_factor=4, train_batch_size_tokens=128, images_per_batch=16
    )
    out = tmp_path / "both"
    shared = {"model": base, "out": str(out), "corruptions": (KEY,), "limit": 38, "validation_limit": 19}
    call("train_sae", also_model=(other,), config=config, **shared)
    about = json.loads((out / "topk" / "cfg.json").read_text())["metadata"]
    assert len(set(about["checkpoint_hashes"])) == 2
    call(
        "ablate_features",
        model=(base, other),
        sae=str(out / "topk"),
        corruptions=(KEY,),
        counts=(1,),
        draws=1,
        limit=19,
        out=str(tmp_path / "ablation"),
    )
    with pytest.raises(ValueError, match="each once"):
        call("train_sae", also_model=(base,), config=config, **shared)
    with pytest.raises(ValueError, match="--also-model: the cache fixes this"):
        call("train_sae", also_model=(other,), cache="a", validation_cache="b", out=str(out))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("compare_representations", {"model": ("nowhere",)}, "a base and at least one other"),
        ("compare_representations", {"model": ("a", "b"), "corruptions": ("clean",)}, "besides clean"),
        ("compare_representations", {"model": ("a", "b"), "corruptions": ("frots_3",)}, "did you mean frost"),
        ("ablate_features", {"model": ("a",), "sae": "s", "corruptions": ("clean",)}, "besides clean"),
        ("ablate_features", {"model": ("a",), "sae": "s", "counts": (0,)}, "at least 1"),
        ("ablate_features", {"model": ("a",), "sae": "s", "draws": 0}, "at least 1"),
    ],
)
def test_what_cannot_work_is_refused_first(tmp_path, name, options, message):
    with pytest.raises(ValueError, match=message):
        call(name, **{"corruptions": (KEY,), "out": str(tmp_path / "out"), **options})
    assert not list(tmp_path.iterdir())
