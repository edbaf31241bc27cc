"""evaluate_sae.py on a sweep: every table, SAEs of several hook points and seeds, and those of another model."""

from __future__ import annotations

import html
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import transformers
from sae_lens import SAE, JumpReLUSAE, JumpReLUSAEConfig, StandardSAE, StandardSAEConfig
from sae_lens.saes.sae import SAEMetadata
from script_calls import call

from mechvit import HookedViT
from mechvit.data import load_images, prepare
from mechvit.models.checkpoints.fingerprint import checkpoint_hash
from mechvit.saes import evaluate_saes, load_sae
from mechvit.saes.evaluation.evaluate import sae_features

TABLES = {
    "sae_quality",
    "sae_baselines",
    "sae_settings",
    "sae_density",
    "sae_features",
    "sae_sensitivity",
    "sae_cosine",
    "sae_matches",
}


def evaluate_sae(**options: Any) -> None:
    call("evaluate_sae", **{"corruptions": ("gaussian_noise_4",), "limit": 19, **options})


@pytest.fixture(scope="module")
def model(checkpoint) -> str:
    """A random ViT of the photographs' 19 classes."""
    return checkpoint


@pytest.fixture(scope="module")
def sweep(model, tmp_path_factory) -> Path:
    """seed0 and seed1, two SAEs each, the second seed's latents being the first's, shuffled; and another hook point."""
    folder = tmp_path_factory.mktemp("sweep")
    own = checkpoint_hash(HookedViT.from_pretrained(model, device="cpu"))
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    for kind, cls, config in (
        ("standard", StandardSAE, StandardSAEConfig),
        ("batchtopk", JumpReLUSAE, JumpReLUSAEConfig),
    ):
        about = SAEMetadata(
            hook_name="blocks.1.hook_resid_post",
            hook_tokens="all",
            model_name="base",
            checkpoint_hash=own,
            architecture_in_training=kind,
            k=8,
            lr=1e-3,
        )
        sae = cls(config(d_in=32, d_sae=64, metadata=about))
        generator = torch.Generator().manual_seed(len(kind))
        with torch.no_grad():
            for name, weight in sae.named_parameters():
                weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
                if name == "threshold":
                    weight.abs_()
        sae.save_model(folder / "seed0" / kind)
        with torch.no_grad():
            for name, weight in sae.named_parameters():
                if name != "b_dec":
                    weight.copy_(weight[:, order].clone() if name == "W_enc" else weight[order].clone())
        sae.save_model(folder / "seed1" / kind)
    sae.cfg.metadata.hook_name = "blocks.0.hook_mlp_out"
    sae.cfg.metadata.checkpoint_hash = "0" * 64
    sae.save_model(folder / "other" / "batchtopk")
    return folder


@pytest.fixture(scope="module")
def out(model, sweep, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation") / "out"
    evaluate_sae(model=model, saes=(str(sweep),), top_images=3, stability=True, allow_other_model=True, out=str(folder))
    return folder


@pytest.fixture(scope="module")
def tables(out) -> dict[str, pd.DataFrame]:
    return {path.stem: pd.read_parquet(path) for path in out.glob("*.parquet")}


@pytest.mark.long
def test_every_sae_is_in_every_table(tables):
    assert set(tables) == TABLES
    names = {"seed0/standard", "seed0/batchtopk", "seed1/standard", "seed1/batchtopk", "other/batchtopk"}
    for name in TABLES - {"sae_baselines", "sae_matches"}:
        assert set(tables[name]["architecture"]) == names
        assert set(tables[name]["model"]) == {"base"}
    settings = tables["sae_settings"].set_index("architecture")
    assert settings.loc["seed1/batchtopk", ["kind", "k", "lr"]].tolist() == ["batchtopk", 8, 1e-3]


def test_hook_points_are_evaluated_apart(tables, model, sweep, tiny_processor):
    saes = {"other/batchtopk": load_sae(sweep / "other" / "batchtopk")}
    images = prepare(load_images("photos", "test", limit=19, image_size=32), tiny_processor)
    here = HookedViT.from_pretrained(model, device="cpu")
    found = evaluate_saes(here, saes, images, ["gaussian_noise_4"], allow_other_model=True)
    quality = tables["sae_quality"]
    shown = quality[quality["architecture"].isin(saes)].reset_index(drop=True)
    pd.testing.assert_frame_equal(shown, found.quality_frame(model="base"))
    baselines = tables["sae_baselines"]
    shown = baselines[baselines["hook_name"] == "blocks.0.hook_mlp_out"].drop(columns=["hook_name", "hook_tokens"])
    pd.testing.assert_frame_equal(shown.reset_index(drop=True), found.baseline_frame(model="base"))


def test_features_are_the_function_s(tables, model, sweep, tiny_processor):
    images = prepare(load_images("photos", "test", limit=19, image_size=32), tiny_processor)
    here = HookedViT.from_pretrained(model, device="cpu")
    folder = sweep / "seed0" / "standard"
    wanted = sae_features(here, load_sae(folder), images, ["gaussian_noise_4"], top_images=3)
    for name, frame in (("sae_features", wanted.to_frame()), ("sae_sensitivity", wanted.sensitivity_frame())):
        shown = tables[name][tables[name]["architecture"] == "seed0/standard"].drop(columns=["model", "architecture"])
        lists = [column for column in frame if frame[column].map(lambda cell: hasattr(cell, "__len__")).all()]
        frame = frame.astype(dict.fromkeys(set(lists) - {"corruption"}, object))
        pd.testing.assert_frame_equal(shown.reset_index(drop=True), frame, rtol=1e-5)


def test_two_seeds_are_matched(tables):
    found = tables["sae_matches"]
    assert set(zip(found["sae_a"], found["sae_b"], strict=True)) == {
        (f"seed0/{kind}", f"seed1/{kind}") for kind in ("standard", "batchtopk")
    }
    assert (found["cosine"] > 0.9999).all()
    features = tables["sae_features"].set_index(["architecture", "feature"])
    for name, pair in found.groupby("sae_a"):
        assert sorted(pair["match"]) == list(range(64))
        assert pair["firing_rate"].tolist() == features.loc[name, "firing_rate"].tolist()
        same = features.loc[name.replace("seed0", "seed1"), "firing_rate"].loc[pair["match"]]
        assert pair["firing_rate"].tolist() == pytest.approx(same.tolist(), abs=3e-3)
    wide = tables["sae_quality"].pivot(index=["architecture", "metric"], columns="corruption", values="value")
    for kind in ("standard", "batchtopk"):  # a shuffled SAE is as good
        first, second = (wide.loc[f"{seed}/{kind}"] for seed in ("seed0", "seed1"))
        pd.testing.assert_frame_equal(first, second, rtol=1e-4, atol=1e-4)


def test_figures_stand_alone(out):
    for name, words in (("frontier", "explained variance"), ("density", "firing rate")):
        page = (out / f"{name}.html").read_text(encoding="utf-8")
        assert words in page
        assert "form-action 'none'; base-uri 'none'" in html.unescape(page)
        assert '<script src="http' not in page


def test_saes_of_another_model_are_refused(model, sweep):
    with pytest.raises(ValueError, match=r"trained on another model \(base, checkpoint hash 000000000000\)"):
        evaluate_sae(model=model, saes=(str(sweep / "other"),))
    evaluate_sae(model=model, saes=(str(sweep / "other"),), allow_other_model=True, top_images=0)


def test_features_can_be_left_out(model, sweep, tmp_path, capsys):
    evaluate_sae(model=model, saes=(str(sweep / "seed0"),), top_images=0, out=str(tmp_path / "out"))
    names = {path.stem for path in (tmp_path / "out").glob("*.parquet")}
    assert names == TABLES - {"sae_features", "sae_sensitivity", "sae_matches"}
    assert SAE.load_from_disk(sweep / "seed0" / "standard").cfg.d_sae == 64
    assert "matched" not in capsys.readouterr().out


@pytest.mark.long
def test_a_bare_encoder_is_evaluated_without_answers_and_through_a_probe(model, sweep, tmp_path, capsys):
    classifier = transformers.ViTForImageClassification.from_pretrained(model)
    classifier.vit.save_pretrained(tmp_path / "bare")
    shutil.copy(Path(model) / "preprocessor_config.json", tmp_path / "bare")
    settings = {"model": str(tmp_path / "bare"), "saes": (str(sweep / "seed0" / "standard"),), "limit": 57}
    settings |= {"top_images": 2, "allow_other_model": True}
    evaluate_sae(**settings, out=str(tmp_path / "plain"))
    plain = pd.read_parquet(tmp_path / "plain" / "sae_quality.parquet")
    assert "accuracy" not in set(plain["metric"])
    assert "explained_variance" in set(plain["metric"])
    evaluate_sae(**settings, probe=True, out=str(tmp_path / "probed"))
    assert "RidgeHead(19 classes of 32 values, fitted on 4" in capsys.readouterr().out
    probed = pd.read_parquet(tmp_path / "probed" / "sae_quality.parquet")
    assert {"accuracy", "cross_entropy_recovered"} <= set(probed["metric"])
    kept = probed[probed["metric"].isin(plain["metric"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept.drop(columns="model"), plain.drop(columns="model"))
