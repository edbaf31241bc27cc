"""Matching of latents against scipy, a naive greedy loop, and planted permutations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from evaluation_saes import random_sae
from scipy.optimize import linear_sum_assignment

from mechvit.saes.latents import matching
from mechvit.saes.latents.matching import match_features


def pair(n=60, m=80, noise=0.6, d=32):
    """SAEs whose first latents are noisy, rescaled and shuffled copies of each other; some of a have no direction."""
    generator = torch.Generator().manual_seed(4)
    a, b = random_sae(d_in=d, d_sae=n), random_sae(d_in=d, d_sae=m, seed=1)
    order = torch.randperm(m, generator=generator)[: min(n, m)]
    with torch.no_grad():
        copies = a.W_dec[: len(order)] + noise * 0.6 / d**0.5 * torch.randn(len(order), d, generator=generator)
        b.W_dec[order] = copies * (0.2 + 3 * torch.rand(len(order), 1, generator=generator))
    return a, b, order


def cosines(a, b):
    a, b = (sae.W_dec.detach().double().numpy() for sae in (a, b))
    return a @ b.T / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)


def greedy(table):
    """The highest cosine first, in a plain loop."""
    found = np.full(len(table), -1)
    taken = set()
    for place in np.argsort(-table, axis=None):
        i, j = divmod(int(place), table.shape[1])
        if found[i] < 0 and j not in taken:
            found[i] = j
            taken.add(j)
    return found


@pytest.mark.parametrize(("n", "m"), [(60, 80), (80, 60), (70, 70)])
def test_exact_match_is_scipy_s(n, m):
    a, b, _ = pair(n, m, noise=3)
    found, table = match_features(a, b), cosines(a, b)
    rows, columns = linear_sum_assignment(-table)
    wanted = np.full(n, -1)
    wanted[rows] = columns
    assert found.match.tolist() == wanted.tolist()
    np.testing.assert_allclose(found.cosine[rows], table[rows, columns], atol=1e-6)
    assert found.cosine[found.match < 0].isnan().all()
    assert int((found.match < 0).sum()) == max(0, n - m)
    np.testing.assert_allclose(found.nearest_cosine, table.max(1), atol=1e-6)
    assert found.nearest.tolist() == table.argmax(1).tolist()


@pytest.mark.parametrize("block", [1, 100, 2**24])
@pytest.mark.parametrize(("n", "m"), [(60, 80), (80, 60), (70, 70)])
def test_greedy_match_is_a_plain_loop_s(n, m, block, monkeypatch):
    monkeypatch.setattr(matching, "_BLOCK", block)
    a, b, _ = pair(n, m, noise=3)
    found, table = match_features(a, b, exact_up_to=0), cosines(a, b)
    assert found.match.tolist() == greedy(table).tolist()
    np.testing.assert_allclose(found.nearest_cosine, table.max(1), atol=1e-6)
    exact = match_features(a, b)
    assert found.cosine.nansum() <= exact.cosine.nansum() + 1e-5
    assert found.match.tolist() != exact.match.tolist()  # else the fixture would not tell them apart


def test_what_greedy_leaves_is_matched_exactly():
    a, b, _ = pair(90, 90, noise=3)
    sums = [float(match_features(a, b, exact_up_to=size).cosine.sum()) for size in (0, 45, 90)]
    assert sums[0] <= sums[1] + 1e-5 <= sums[2] + 2e-5
    match = match_features(a, b, exact_up_to=45).match
    assert sorted(match.tolist()) == list(range(90))


@pytest.mark.parametrize("exact_up_to", [0, 4096])
def test_a_planted_permutation_is_found(exact_up_to):
    a, b, order = pair(60, 80, noise=0.3)
    found = match_features(a, b, exact_up_to=exact_up_to)
    assert torch.equal(found.match, order)
    assert torch.equal(found.nearest, order)
    assert float(found.cosine.min()) > 0.8
    torch.testing.assert_close(found.cosine, found.nearest_cosine)
    back = match_features(b, a, exact_up_to=exact_up_to)
    assert torch.equal(back.match[order], torch.arange(60))
    assert int((back.match < 0).sum()) == 20


@pytest.mark.parametrize("exact_up_to", [0, 4096])
def test_latents_without_a_direction_have_no_match(exact_up_to):
    a, b, _ = pair(60, 80)
    with torch.no_grad():
        a.W_dec[[3, 11]] = 0
        b.W_dec[5] = 0
    found = match_features(a, b, exact_up_to=exact_up_to)
    assert (found.match < 0).nonzero()[:, 0].tolist() == [3, 11]
    assert found.cosine[[3, 11]].isnan().all()
    assert 5 not in found.match.tolist()
    assert found.nearest_cosine[[3, 11]].isnan().all()  # what has no direction is near to nothing
    assert found.nearest_cosine.isnan().sum() == 2


def test_repeated_directions_end(monkeypatch):
    monkeypatch.setattr(matching, "_ROUNDS", 5)
    a, b, _ = pair(40, 40)
    with torch.no_grad():
        a.W_dec[:] = a.W_dec[0]
    found = match_features(a, b, exact_up_to=0)
    assert int((found.match >= 0).sum()) == 5
    kept = found.match[found.match >= 0]
    assert len(set(kept.tolist())) == 5
    assert sorted(match_features(a, b).match.tolist()) == list(range(40))


def test_frame_and_widths():
    a, b, _ = pair(60, 80)
    found = match_features(a, b)
    frame = found.to_frame(sae_a="x", sae_b="y")
    assert list(frame.columns) == ["sae_a", "sae_b", "feature", "match", "cosine", "nearest", "nearest_cosine"]
    assert frame["match"].tolist() == found.match.tolist()
    left = match_features(b, a).to_frame()
    assert left["match"].isna().sum() == 20
    matched = left["match"].dropna().astype(int)
    assert sorted(matched) == list(range(60))
    assert left["match"].mean() == matched.mean() == 29.5  # no -1 among them
    with pytest.raises(ValueError, match="width 32 and 16"):
        match_features(a, random_sae(d_in=16, d_sae=60))
