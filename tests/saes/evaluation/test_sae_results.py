"""The tables of an evaluation hold what it found."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from evaluation_saes import CONDITIONS, CORRUPTIONS, KINDS, random_sae

from mechvit.saes import evaluate_sae, evaluate_saes
from mechvit.saes.evaluation.results import FiringRates
from mechvit.saes.evaluation.sae_table import sae_settings


def test_frames(tiny_model, batch):
    saes = {kind: random_sae(kind) for kind in KINDS}
    found = evaluate_saes(tiny_model, saes, batch, CORRUPTIONS)
    quality, cosine = found.quality_frame(model="base"), found.cosine_frame(model="base")
    assert list(quality.columns) == ["model", "architecture", "corruption", "metric", "value"]
    assert len(quality) == 2 * 3 * 16  # without top5: there are five classes
    row = quality.query("architecture == 'batchtopk' and corruption == 'gaussian_noise_4' and metric == 'l0'")
    assert row["value"].item() == found.quality["batchtopk", "gaussian_noise_4"].l0
    assert list(cosine.columns) == ["model", "architecture", "corruption", "image_id", "token", "cosine"]
    assert cosine["cosine"].dtype == np.float32
    assert len(cosine) == 2 * 2 * 24 * 16
    image = int(batch.image_ids[5])
    asked = (cosine[["architecture", "corruption", "image_id", "token"]] == ["standard", CORRUPTIONS[0], image, 9]).all(
        axis=1
    )
    assert cosine["cosine"][asked].item() == float(found.cosine["standard", CORRUPTIONS[0]].cosine[5, 9])
    none = evaluate_saes(tiny_model, saes, batch, CORRUPTIONS, cosine_corruptions=()).cosine_frame(model="base")
    assert list(none.columns) == list(cosine.columns)
    assert len(none) == 0


def test_baseline_frame(tiny_model, batch):
    found = evaluate_saes(tiny_model, {"a": random_sae()}, batch, CORRUPTIONS)
    frame = found.baseline_frame(model="base")
    assert list(frame.columns) == ["model", "baseline", "corruption", "metric", "value"]
    assert len(frame) == 3 * 3 * 3
    row = frame.query("baseline == 'mean' and corruption == 'gaussian_blur_2' and metric == 'ece'")
    assert row["value"].item() == found.baselines["mean", "gaussian_blur_2"].ece


def test_density_by_hand():
    rate = torch.tensor([0.0, 0.0, 1.0, 10**-0.2, 0.011, 0.012, 1e-9, 10**-5.9], dtype=torch.float64)
    frame = FiringRates(rate).to_frame(model="base")
    assert list(frame.columns) == ["model", "low", "high", "latents"]
    assert frame["latents"].sum() == 8
    shown = {(row.low, row.high): row.latents for row in frame.itertuples() if row.latents}
    assert shown == {(-math.inf, -math.inf): 2, (-6.0, -5.75): 2, (-2.0, -1.75): 2, (-0.25, 0.0): 2}


def test_density_frame_and_dense_fraction_match_the_rates(tiny_model, batch):
    saes = {kind: random_sae(kind) for kind in KINDS}
    found = evaluate_saes(tiny_model, saes, batch, CORRUPTIONS, dense_above=0.3)
    frame = found.density_frame()
    assert list(found.firing) == [(kind, key) for kind in KINDS for key in CONDITIONS]
    for (kind, key), firing in found.firing.items():
        rates = firing.rate.tolist()
        quality = found.quality[kind, key]
        assert quality.dense_fraction == sum(rate > 0.3 for rate in rates) / 96
        assert sum(rates) == pytest.approx(quality.l0, rel=1e-12)
        part = frame[(frame["architecture"] == kind) & (frame["corruption"] == key)]
        for row in part.iloc[1:].itertuples():
            logs = [math.log10(rate) for rate in rates if rate]
            wanted = sum(row.low <= log < row.high or log == row.high == 0 for log in logs)
            assert row.latents == wanted
        assert part["latents"].iloc[0] == sum(rate == 0 for rate in rates) >= 7
    loose = evaluate_sae(tiny_model, saes["standard"], batch, dense_above=0.0)
    assert loose.dense_fraction == 1 - loose.dead_fraction > found.quality["standard", "clean"].dense_fraction


def test_settings_are_what_saes_say():
    saes = {
        "sweep/a": random_sae("batchtopk", architecture_in_training="batchtopk", k=8, lr=1e-3),
        "seed1/standard": random_sae(),
        "mine": random_sae("batchtopk", tokens="cls"),
    }
    frame = sae_settings(saes, model="base")
    assert frame["architecture"].tolist() == list(saes)
    assert frame["kind"].tolist() == ["batchtopk", "standard", "jumprelu"]
    assert frame["k"].iloc[0] == 8
    assert np.isnan(frame[["k", "lr"]].iloc[1:]).all(axis=None)
    assert frame["hook_tokens"].tolist() == ["all", "all", "cls"]
    assert set(frame["d_sae"]) == {96}
    assert set(frame["model"]) == {"base"}
