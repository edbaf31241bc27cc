"""Changes of weights against numpy and scipy in float64, and planted low-rank changes."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
import torch
from family_runs import build
from shifted_models import shifted

from mechvit.analysis import weight_change
from mechvit.analysis.weights.model_parts import model_parts
from mechvit.analysis.weights.spectra import singular_decomposition, singular_values


def as_matrix(weight: np.ndarray) -> np.ndarray:
    return weight.reshape(len(weight), -1) if weight.ndim == 4 else weight.squeeze()


@pytest.mark.parametrize(
    "name", ["vit classifier", "beit classifier, relative bias", "siglip zero-shot", "dinov3 encoder"]
)
def test_changes_match_scipy(name):
    base, tuned = build(name, torch.float32), shifted(build(name, torch.float32))
    found = weight_change(base, tuned)
    frame = found.to_frame(top=(1, 3)).set_index("weight")
    spectra = dict(list(found.spectrum_frame().groupby("weight")))
    own, other = ({n: t.numpy().astype(np.float64) for n, t in m.own_state_dict().items()} for m in (base, tuned))
    assert list(frame.index) == [n for names in model_parts(base).values() for n in names]
    for weight, row in frame.iterrows():
        B, T = own[weight], other[weight]
        D = T - B
        assert row["relative"] == pytest.approx(np.linalg.norm(D) / np.linalg.norm(B), rel=1e-9)
        cosine = (B * T).sum() / (np.linalg.norm(B) * np.linalg.norm(T))
        assert row["cosine"] == pytest.approx(cosine, rel=1e-9)
        assert row["parameters"] == B.size
        D, B = as_matrix(D), as_matrix(B)
        if D.ndim != 2:
            assert np.isnan(row["stable_rank"])
            continue
        u, s, vh = scipy.linalg.svd(D, full_matrices=False)
        bu, bs, bvh = scipy.linalg.svd(B, full_matrices=False)
        assert row["stable_rank"] == pytest.approx((s**2).sum() / s[0] ** 2, rel=1e-8)
        p = s / s.sum()
        assert row["effective_rank"] == pytest.approx(np.exp(-(p[p > 0] * np.log(p[p > 0])).sum()), rel=1e-8)
        for k in (1, 3):
            assert row[f"share_{k}"] == pytest.approx((s[:k] ** 2).sum() / (s**2).sum(), rel=1e-8)
            top = min(k, len(s))
            left = np.linalg.norm(bu[:, :top].T @ u[:, :top]) ** 2 / top
            right = np.linalg.norm(bvh[:top] @ vh[:top].T) ** 2 / top
            assert row[f"left_overlap_{k}"] == pytest.approx(left, rel=1e-6, abs=1e-9)
            assert row[f"right_overlap_{k}"] == pytest.approx(right, rel=1e-6, abs=1e-9)
        rows = spectra[weight]
        np.testing.assert_allclose(rows["singular_value"], s, rtol=1e-7, atol=1e-12)
        np.testing.assert_allclose(rows["base_singular_value"], bs, rtol=1e-7, atol=1e-12)
        np.testing.assert_allclose(rows["cumulative"], np.cumsum(s**2) / (s**2).sum(), rtol=1e-7)
        assert list(rows["k"]) == list(range(1, len(s) + 1))


def test_a_planted_change_has_its_rank_and_its_directions(tiny_model):
    tuned = copy.deepcopy(tiny_model)
    weight = tuned.blocks[1].attn.o.weight.detach()
    u, s, vh = torch.linalg.svd(weight.double())
    change = 0.5 * u[:, :1] @ vh[:1] + 0.5 * u[:, 1:2] @ vh[1:2]
    with torch.no_grad():
        tuned.blocks[1].attn.o.weight.copy_((weight.double() + change).float())
    frame = weight_change(tiny_model, tuned).to_frame(top=(2,), model="tuned").set_index("weight")
    row = frame.loc["blocks.1.attn.o.weight"]
    assert row["model"] == "tuned"
    assert row["shape"] == "32x32"
    assert row["stable_rank"] == pytest.approx(2, rel=1e-3)
    assert row["effective_rank"] == pytest.approx(2, rel=1e-2)
    assert row["share_2"] == pytest.approx(1, abs=1e-6)
    assert row["left_overlap_2"] == pytest.approx(1, abs=1e-6)
    assert row["right_overlap_2"] == pytest.approx(1, abs=1e-6)
    assert row["relative"] == pytest.approx(0.5 * 2**0.5 / float(s.norm()), rel=1e-5)
    others = frame.drop("blocks.1.attn.o.weight")
    assert (others["relative"] == 0).all()
    np.testing.assert_allclose(others["cosine"], 1, rtol=1e-12)
    assert others[["stable_rank", "share_2", "left_overlap_2"]].isna().all(axis=None)
    assert set(weight_change(tiny_model, tuned).spectrum_frame()["weight"]) == {"blocks.1.attn.o.weight"}


def test_parts_add_their_tensors_up(planted):
    base, tuned, _ = planted
    parts = weight_change(base, tuned).part_frame(model="tuned").set_index("part")
    assert list(parts.index) == list(model_parts(base))
    assert set(parts.index[parts["relative"] > 0]) == {"blocks.1.mlp"}
    assert parts.loc["blocks.1.mlp", "energy"] == 1
    own, other = (
        np.concatenate([p.detach().double().numpy().ravel() for p in m.blocks[1].mlp.parameters()])
        for m in (base, tuned)
    )
    row = parts.loc["blocks.1.mlp"]
    assert row["relative"] == pytest.approx(np.linalg.norm(other - own) / np.linalg.norm(own), rel=1e-12)
    assert row["cosine"] == pytest.approx(own @ other / np.linalg.norm(own) / np.linalg.norm(other), rel=1e-12)
    assert row["parameters"] == own.size
    assert row["base_norm"] == pytest.approx(np.linalg.norm(own))


def test_no_change_and_a_change_from_zero(tiny_model):
    same = weight_change(tiny_model, tiny_model)
    parts = same.part_frame()
    assert (parts["relative"] == 0).all()
    assert parts["energy"].isna().all()
    assert same.spectrum_frame().empty
    zero = copy.deepcopy(tiny_model)
    with torch.no_grad():
        zero.head.bias.zero_()
    row = weight_change(zero, tiny_model).to_frame().set_index("weight").loc["head.bias"]
    assert row["relative"] == np.inf
    assert np.isnan(row["cosine"])


def test_other_weights_are_refused(tiny_model):
    with pytest.raises(ValueError, match=r"needs models of which one was trained .* \(d_mlp 64 and 48\)"):
        weight_change(tiny_model, build("vit encoder", torch.float32))


SPECTRA = {
    "flat": np.ones(24),
    "falling": np.logspace(0, -3, 24),
    "steep": np.logspace(0, -12, 24),
    "low rank": np.r_[3.0, 2.0, 1.0, np.zeros(21)],
    "low rank in noise": np.r_[3.0, 2.0, 1.0, np.full(21, 1e-7)],
    "pairs": np.repeat([1.0, 1e-2, 1e-6], 8),
    "nothing": np.zeros(24),
}


@pytest.mark.parametrize("shape", [(24, 60), (60, 24), (24, 24)])
@pytest.mark.parametrize("name", SPECTRA)
def test_spectra_by_the_gram_matrix_match_an_svd(name, shape):
    """Singular values to the rounding of the largest, as an SVD's; the directions give the matrix back."""
    rng = np.random.default_rng(3)
    u, v = (np.linalg.qr(rng.normal(size=(side, 24)))[0] for side in shape)
    matrix = u * SPECTRA[name] @ v.T
    own_u, s, own_vh = scipy.linalg.svd(matrix, full_matrices=False)
    found = singular_decomposition(torch.from_numpy(matrix))
    np.testing.assert_allclose(found.values, s, rtol=0, atol=3e-15 * SPECTRA[name][0] * 24)
    np.testing.assert_allclose(found.left * found.values @ found.right.T, matrix, atol=1e-14 * 24)
    np.testing.assert_allclose(
        found.left.T @ found.left if shape[0] <= shape[1] else np.eye(24), np.eye(24), atol=1e-12
    )
    for k in (1, 2, 3):
        if SPECTRA[name][k - 1] > 2 * SPECTRA[name][k]:  # the top k span one space
            for own, other in ((found.left, own_u), (found.right, own_vh.T)):
                inside = np.linalg.norm(own[:, :k].numpy().T @ other[:, :k]) ** 2
                assert inside == pytest.approx(k, abs=1e-10)
    p = s[s > 1e-14] / s.sum() if s.any() else s[:0]
    q = found.values[found.values > 1e-14] / found.values.sum()
    wanted = np.exp(-(p * np.log(p)).sum())
    assert float(torch.special.entr(q).sum().exp()) == pytest.approx(wanted, abs=1e-8)
    np.testing.assert_allclose(singular_values(torch.from_numpy(matrix)), s, rtol=0, atol=1e-9 * SPECTRA[name][0])


@pytest.mark.parametrize("rank", [1, 3])
def test_an_edit_of_some_rank_has_at_most_this_rank(tiny_model, rank):
    base = copy.deepcopy(tiny_model).double()
    tuned, generator = copy.deepcopy(base), torch.Generator().manual_seed(6)
    weight = tuned.blocks[2].mlp.fc2.weight
    factors = (torch.randn(side, rank, generator=generator, dtype=torch.float64) for side in weight.shape)
    with torch.no_grad():
        weight.add_(0.1 * next(factors) @ next(factors).T)
    change = next(w for w in weight_change(base, tuned).weights if w.weight == "blocks.2.mlp.fc2.weight")
    assert (change.singular_values[rank:] < 1e-13 * change.singular_values[0]).all()
    assert change.share(rank) == pytest.approx(1, abs=1e-12)
    assert change.effective_rank <= rank + 1e-8
    assert change.stable_rank <= rank


def test_directions_can_be_left_out(tiny_model):
    tuned = shifted(copy.deepcopy(tiny_model))
    whole, part = weight_change(tiny_model, tuned), weight_change(tiny_model, tuned, directions=False)
    overlaps = [name for name in whole.to_frame() if "overlap" in name]
    pd.testing.assert_frame_equal(part.to_frame().drop(columns=overlaps), whole.to_frame().drop(columns=overlaps))
    assert part.to_frame()[overlaps].isna().all(axis=None)
    columns = ["weight", "k", "singular_value", "cumulative"]
    pd.testing.assert_frame_equal(part.spectrum_frame()[columns], whole.spectrum_frame()[columns])
