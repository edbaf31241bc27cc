"""Descriptions of latents, against loops in float64 and planted SAEs whose latents are known."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from evaluation_saes import CHOSEN, CONDITIONS, CORRUPTIONS, KINDS, D, empty_sae, float64_codes, random_sae

from mechvit import HookedViT
from mechvit.data import ImageBatch
from mechvit.saes import evaluate_saes
from mechvit.saes.evaluation.evaluate import sae_features
from mechvit.saes.latents.statistics import TopImages, label_statistics, purity

TOP = 4


def rare_sae(kind, **settings):
    """Latents that fire on few tokens, so that some have fewer than TOP images."""
    sae = random_sae(kind, **settings)
    with torch.no_grad():
        sae.b_enc -= 2.5 * torch.linspace(0, 1, 96)
    return sae


@pytest.mark.parametrize("tokens", CHOSEN)
@pytest.mark.parametrize("kind", KINDS)
def test_features_match_loops(tiny_model, batch, hf_logits, kind, tokens):
    sae = rare_sae(kind, tokens=tokens)
    found = sae_features(tiny_model, sae, batch, CORRUPTIONS, top_images=TOP, seed=3, batch_size=7)
    codes = {key: float64_codes(sae, hf_logits(key)[1][:, CHOSEN[tokens]]) for key in CONDITIONS}
    clean = codes["clean"]
    first_patch = 0 if tokens == "patches" else 1
    labels = batch.labels.tolist()
    few = 0
    for j in range(96):
        own = clean[:, :, j]
        fired = own[own > 0]
        assert float(found.firing_rate[j]) == pytest.approx(len(fired) / own.numel(), abs=1.01 / own.numel())
        if found.firing_rate[j] == 0:
            assert found.mean_activation[j].isnan()  # a mean over no token
        else:
            total = float(found.mean_activation[j] * found.firing_rate[j]) * own.numel()
            assert total == pytest.approx(float(fired.sum()), rel=1e-4, abs=1e-4)
        assert float(found.max_activation[j]) == pytest.approx(float(own.max()), abs=1e-4)
        best = sorted(((max(row), -i) for i, row in enumerate(own.tolist()) if max(row) > 1e-4), reverse=True)[:TOP]
        few += len(best) < TOP
        for place, (score, i) in enumerate(best):
            image = int(found.top_image[j, place])
            assert float(found.top_score[j, place]) == pytest.approx(score, abs=1e-4)
            assert image == int(batch.image_ids[-i])
            assert int(found.top_patch[j, place]) == int(own[-i].argmax()) - first_patch
        assert (found.top_image[j, len(best) :] == -1).all() or float(found.top_score[j, len(best)]) < 1e-3
        assert torch.equal(found.top_score[j].isnan(), found.top_image[j] == -1)
        if not best:
            assert (int(found.top_label[j]), int(found.mass_label[j]), int(found.selective_label[j])) == (-1, -1, -1)
            assert found.top_label_purity[j].isnan()
            assert found.selectivity[j].isnan()
            continue
        label, count = Counter(labels[-i] for _, i in best).most_common(1)[0]
        assert float(found.top_label_purity[j]) == count / len(best)
        assert int(found.top_label[j]) == label
        per_image = own.sum(1).tolist()
        mass = [sum(a for a, c in zip(per_image, labels, strict=True) if c == k) for k in range(5)]
        means = [m / max(1, labels.count(k)) for k, m in enumerate(mass)]
        assert float(found.mass_label_purity[j]) == pytest.approx(max(mass) / sum(mass), abs=1e-4)
        assert mass[int(found.mass_label[j])] == pytest.approx(max(mass))
        present = sorted(means[k] for k in range(5) if k in labels)
        a, b = present[-1], sum(present[:-1]) / (len(present) - 1)
        assert float(found.selectivity[j]) == pytest.approx((a - b) / (a + b), abs=1e-4)
        assert means[int(found.selective_label[j])] == pytest.approx(a)
    assert few > 0


@pytest.mark.parametrize("tokens", CHOSEN)
def test_sensitivity_matches_loops(tiny_model, batch, hf_logits, tokens):
    sae = rare_sae("batchtopk", tokens=tokens)
    found = sae_features(tiny_model, sae, batch, CORRUPTIONS, seed=3, batch_size=5)
    where = CHOSEN["cls" if tokens == "cls" else "patches"]
    clean = float64_codes(sae, hf_logits("clean")[1][:, where]).flatten(0, 1)
    assert list(found.sensitivity) == list(CORRUPTIONS)
    moved = 0
    for key, shown in found.sensitivity.items():
        other = float64_codes(sae, hf_logits(key)[1][:, where]).flatten(0, 1)
        for j in range(96):
            a, b = clean[:, j].tolist(), other[:, j].tolist()
            n = len(a)
            assert float(shown.clean_mean[j]) == pytest.approx(sum(a) / n, abs=1e-5)
            difference = [y - x for x, y in zip(a, b, strict=True)]
            assert float(shown.mean_difference[j]) == pytest.approx(sum(difference) / n, abs=1e-5)
            assert float(shown.mean_absolute_difference[j]) == pytest.approx(sum(map(abs, difference)) / n, abs=1e-5)
            if sum(a) == 0:
                assert shown.ratio[j].isnan()
                assert shown.kept[j].isnan()
                continue
            assert float(shown.ratio[j]) == pytest.approx(sum(b) / sum(a), rel=1e-4, abs=1e-4)
            kept = sum(y > 0 for x, y in zip(a, b, strict=True) if x > 0) / sum(x > 0 for x in a)
            assert float(shown.kept[j]) == pytest.approx(kept, abs=1e-6)
            moved += 0 < kept < 1
    assert moved > (0 if tokens == "cls" else 20)


def test_a_planted_latent_fires_where_it_was_planted(tiny_model, batch, hf_logits):
    """One latent an image: a direction and bias that only one patch of that image reaches."""
    x = hf_logits("clean")[1]
    sae = empty_sae(d_sae=24)
    generator = torch.Generator().manual_seed(1)
    planted = torch.randint(0, 17, (24,), generator=generator)
    flat = x.reshape(-1, D)
    with torch.no_grad():
        sae.b_dec.copy_(flat.mean(0))
        for i, token in enumerate(planted.tolist()):
            own = x[i, token] - sae.b_dec
            direction = torch.linalg.lstsq((flat - sae.b_dec).T @ (flat - sae.b_dec), own).solution
            direction /= own @ direction  # 1 at its own token, as little as can be elsewhere
            others = (flat - sae.b_dec) @ direction
            others[i * 17 + token] = -torch.inf
            sae.W_enc[:, i] = direction
            sae.b_enc[i] = -others.max() - 0.01 if others.max() < 0.9 else -1e4
    kept = (sae.b_enc > -1).nonzero()[:, 0].tolist()
    assert len(kept) > 10
    found = sae_features(tiny_model, sae, batch, top_images=3, batch_size=5)
    for i in kept:
        assert float(found.firing_rate[i]) == pytest.approx(1 / (24 * 17))
        assert found.top_image[i].tolist() == [int(batch.image_ids[i]), -1, -1]
        assert int(found.top_patch[i, 0]) == int(planted[i]) - 1
        assert (
            int(found.top_label[i]) == int(found.mass_label[i]) == int(found.selective_label[i]) == int(batch.labels[i])
        )
        assert float(found.top_label_purity[i]) == float(found.mass_label_purity[i]) == float(found.selectivity[i]) == 1


def test_batches_change_nothing(tiny_model, batch):
    saes = {kind: rare_sae(kind) for kind in KINDS}
    whole = evaluate_saes(tiny_model, saes, batch, CORRUPTIONS, top_images=TOP, seed=3, batch_size=24).features
    for kind, sae in saes.items():
        alone = sae_features(tiny_model, sae, batch, CORRUPTIONS, top_images=TOP, seed=3, batch_size=1)
        pd.testing.assert_frame_equal(alone.to_frame(), whole[kind].to_frame(), rtol=1e-4, atol=1e-4)
        pd.testing.assert_frame_equal(alone.sensitivity_frame(), whole[kind].sensitivity_frame(), rtol=1e-3, atol=1e-4)


def test_features_leave_quality_and_cosine_as_they_are(tiny_model, batch):
    saes = {kind: random_sae(kind) for kind in KINDS}
    with_features = evaluate_saes(tiny_model, saes, batch, CORRUPTIONS, top_images=2)
    without = evaluate_saes(tiny_model, saes, batch, CORRUPTIONS)
    assert with_features.quality == without.quality
    for key, cosine in without.cosine.items():
        assert torch.equal(with_features.cosine[key].cosine, cosine.cosine)
    assert without.features == {}


def test_frames_hold_what_was_found(tiny_model, batch, tmp_path):
    found = sae_features(tiny_model, rare_sae("standard"), batch, CORRUPTIONS, top_images=TOP, seed=3)
    frame = found.to_frame(model="base", architecture="standard")
    frame.to_parquet(tmp_path / "features.parquet", index=False)
    frame = pd.read_parquet(tmp_path / "features.parquet")
    assert list(frame.columns[:4]) == ["model", "architecture", "feature", "firing_rate"]
    for j in (0, 20, 60, 95):
        row = frame.iloc[j]
        n = int((found.top_image[j] >= 0).sum())
        assert row["top_image"].tolist() == found.top_image[j, :n].tolist()
        assert row["top_patch"].tolist() == found.top_patch[j, :n].tolist()
        np.testing.assert_array_equal(row["top_score"], found.top_score[j, :n])
        assert row["logit_raised"].tolist() == found.logits.raised[j].tolist()
        assert row["selectivity"] == float(found.selectivity[j]) or math.isnan(row["selectivity"])
    assert frame["top_image"].iloc[0].tolist() == []  # dead
    moved = found.sensitivity_frame(model="base")
    assert list(moved.columns)[:3] == ["model", "corruption", "feature"]
    assert len(moved) == 2 * 96
    row = moved.query("corruption == 'gaussian_noise_4' and feature == 20")
    assert row["kept"].item() == float(found.sensitivity["gaussian_noise_4"].kept[20])
    none = sae_features(tiny_model, rare_sae("standard"), batch).sensitivity_frame(model="base")
    assert list(none.columns) == list(moved.columns)
    assert len(none) == 0


def test_a_bare_encoder_takes_any_labels_and_has_no_logits(tiny_hf, tiny_processor, tiny_model, batch):
    bare = HookedViT.from_hf(tiny_hf.vit, image_processor=tiny_processor)
    labels = batch.labels * 7
    found = sae_features(bare, random_sae(), ImageBatch(batch.images, labels, batch.image_ids), batch_size=5)
    own = sae_features(tiny_model, random_sae(), batch)
    assert found.logits is None
    assert own.logits is not None
    assert torch.equal(found.top_label, torch.where(own.top_label < 0, -1, 7 * own.top_label))
    torch.testing.assert_close(found.selectivity, own.selectivity, rtol=1e-4, atol=1e-5, equal_nan=True)
    assert sae_features(tiny_model, random_sae(hook="blocks.1.ln2.hook_normalized"), batch).logits is None


def test_equal_scores_keep_the_first_image():
    for split in ((6,), (1, 5), (3, 2, 1), (1,) * 6):
        top = TopImages(3, 2, torch.zeros(1))
        codes = torch.tensor([[1.0, 0.0], [2.0, 2.0], [1.0, 1.0], [0.0, 2.0], [0.0, 0.0], [3.0, 2.0]])[:, :, None]
        first = 0
        for part in codes.split(split):
            top.add(part, first)
            first += len(part)
        assert top.score[:, 0].tolist() == [3, 2, 2]
        assert (top.place[:, 0] // 2).tolist() == [5, 1, 3]
        assert top.place[0, 0] % 2 == 0
        assert top.place[2, 0] % 2 == 1


def test_purity_by_hand():
    rows = [[2, 1, 1, 3], [3, 2, 2, 3], [4, -1, -1, -1], [-1, -1, -1, -1], [0, 0, 0, 0], [1, 2, -1, -1]]
    label, share = purity(torch.tensor(rows))
    assert label.tolist() == [1, 3, 4, -1, 0, 1]
    assert share[[0, 1, 2, 4, 5]].tolist() == [0.5, 0.5, 1, 1, 0.5]
    assert share[3].isnan()


def test_label_statistics_by_hand():
    mass = torch.tensor([[6.0, 0.0, 1.0], [3.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    found = label_statistics(mass, torch.tensor([6, 1, 0, 2]))  # no image has label 2
    assert found["mass_label"].tolist() == [0, -1, 0]
    assert found["mass_label_purity"][[0, 2]].tolist() == [0.6, 1]
    assert found["selective_label"].tolist() == [1, -1, 0]  # means 1, 3, .5
    assert float(found["selectivity"][0]) == pytest.approx((3 - 0.75) / (3 + 0.75))
    assert float(found["selectivity"][2]) == 1
    assert found["selectivity"][1].isnan()
    assert label_statistics(mass[:1], torch.tensor([3]))["selectivity"].isnan().all()  # one label has no others


def test_no_mean_of_a_table_counts_what_is_not_there(tiny_model, batch):
    """A dead latent has no label, no mean activation and no top image: pandas leaves these out of its means."""
    sae = rare_sae("standard", tokens="all")
    with torch.no_grad():
        sae.b_enc[:40] = -1e4
    found = sae_features(tiny_model, sae, batch, CORRUPTIONS[:1], top_images=TOP)
    frame = found.to_frame()
    alive = (found.firing_rate > 0).numpy()
    assert 0 < alive.sum() <= 56
    for name in ("top_label", "mass_label", "selective_label", "mean_activation"):
        assert (frame[name].notna() == alive).all(), name
        assert float(frame[name].mean()) == pytest.approx(getattr(found, name)[alive].double().mean().item()), name
    assert all(len(row) == len(scores) for row, scores in zip(frame["top_image"], frame["top_score"], strict=True))
    numbers = frame.select_dtypes("number").drop(columns="feature")
    assert not (numbers.fillna(0) < 0).any(axis=None)


def test_missing_labels_survive_parquet(tiny_model, batch, tmp_path):
    sae = rare_sae("standard", tokens="all")
    with torch.no_grad():
        sae.b_enc[:40] = -1e4
    frame = sae_features(tiny_model, sae, batch, CORRUPTIONS[:1], top_images=TOP).to_frame()
    frame.to_parquet(tmp_path / "features.parquet")
    back = pd.read_parquet(tmp_path / "features.parquet")
    assert back["top_label"].isna().sum() >= 40
    pd.testing.assert_series_equal(back["mass_label"], frame["mass_label"])
