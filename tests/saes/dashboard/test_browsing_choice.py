"""Which latents, partners and pictures a feature browser shows, and what it refuses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from browse_calls import SMALL
from evaluation_saes import CORRUPTIONS, empty_sae, random_sae

from mechvit.saes.dashboard.collect import browse_features
from mechvit.saes.dashboard.examples import ChosenTally, pick_examples
from mechvit.saes.dashboard.results import Browsing, Partners
from mechvit.saes.dashboard.selection import choose, partners_of
from mechvit.saes.evaluation.evaluate import sae_features


def test_nearest_directions_and_matches(tiny_model, batch):
    first, second = random_sae("standard"), random_sae("batchtopk")
    order = torch.randperm(96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        second.W_dec.copy_(first.W_dec[order] * 2)
    saes = {"a": (tiny_model, first), "b": (tiny_model, second), "c": (tiny_model, random_sae(tokens="cls"))}
    found = browse_features(saes, batch, settings=SMALL)
    unit = torch.nn.functional.normalize(first.W_dec.detach().double(), dim=1)
    for i, j in enumerate(found.saes["a"].chosen.tolist()):
        cosine = (unit @ unit[j]).tolist()
        cosine[j] = -2
        wanted = sorted(range(96), key=lambda k: -cosine[k])[:3]
        assert found.saes["a"].nearest[i].tolist() == wanted
        np.testing.assert_allclose(found.saes["a"].nearest_cosine[i], [cosine[k] for k in wanted], atol=1e-5)
    assert set(found.matches) == {("a", "b"), ("b", "a")}  # the third reads other tokens
    there, back = found.matches["a", "b"], found.matches["b", "a"]
    assert back.match.tolist() == order.tolist()
    assert there.match[order].tolist() == list(range(96))
    assert (there.cosine > 0.9999).all()
    alive = found.saes["b"].features.firing_rate > 0
    partners = [j for j in there.match[found.saes["a"].chosen].tolist() if alive[j]]
    assert set(partners[:10]) <= set(found.saes["b"].chosen.tolist())


def test_large_saes_are_matched_mutually(tiny_model, batch, monkeypatch):
    """The same pairs as loops over all cosines, for the chosen latents alone."""
    monkeypatch.setattr("mechvit.saes.dashboard.selection.EXACT_UP_TO", 8)
    saes = {name: (tiny_model, random_sae(seed=seed)) for seed, name in enumerate("abc")}
    with torch.no_grad():
        saes["b"][1].W_dec.copy_(saes["a"][1].W_dec.flip(0) + 0.02 * saes["b"][1].W_dec)
    found = browse_features(saes, batch, settings=SMALL)
    assert set(found.matches) == {(a, b) for a in "abc" for b in "abc" if a != b}
    for (a, b), partners in found.matches.items():
        unit = [torch.nn.functional.normalize(saes[name][1].W_dec.detach().double(), dim=1) for name in (a, b)]
        cosine = unit[0] @ unit[1].T
        chosen = found.saes[a].chosen.tolist()
        for j in range(96):
            k = int(cosine[j].argmax())
            if j in chosen and int(cosine[:, k].argmax()) == j:
                assert int(partners.match[j]) == k
                assert float(partners.cosine[j]) == pytest.approx(float(cosine[j, k]), abs=1e-5)
            else:
                assert int(partners.match[j]) == -1
                assert partners.cosine[j].isnan()
    there = found.matches["a", "b"].match[found.saes["a"].chosen]
    assert there.tolist() == (95 - found.saes["a"].chosen).tolist()
    assert (found.matches["a", "c"].match[found.saes["a"].chosen] == -1).any()
    alive = found.saes["b"].features.firing_rate > 0
    assert {j for j in there[:10].tolist() if alive[j]} <= set(found.saes["b"].chosen.tolist())


def test_asked_latents_come_first_and_dead_ones_only_if_asked(make):
    found = make(random_sae(), features={"one": [90, 3]}).saes["one"]  # 3 is dead
    assert found.chosen[:2].tolist() == [90, 3]
    assert len(found.chosen) == 20
    assert (found.features.firing_rate[found.chosen[2:]] > 0).all()
    assert found.example_row[1].tolist() == [-1] * 9
    assert found.ablation.images[1] == 0
    assert found.ablation.label_logit[1].isnan()
    assert not found.histogram[1].any()
    assert found.label_share[1].isnan().all()


def test_an_sae_that_never_fires(make):
    sae = random_sae()
    with torch.no_grad():
        sae.b_enc.fill_(-1e4)
    page = make(sae).saes["one"]
    assert page.chosen.tolist() == []
    assert page.maps.shape == (3, 0, 9, 17)
    assert (page.strongest.feature == -1).all()
    assert page.predicted is not None


def test_few_corruptions_are_drawn_and_all_measured(make):
    given = ("gaussian_noise_1", "gaussian_noise_4", "gaussian_blur_2", "gaussian_blur_1")
    assert make(random_sae(), corruptions=given).conditions == ("clean", "gaussian_noise_4", "gaussian_blur_2")
    for n in (0, 1):
        found = make(random_sae(), corruptions=given, settings=dataclasses.replace(SMALL, drawn_corruptions=n))
        assert found.conditions == ("clean", "gaussian_noise_4")[: n + 1]
        assert found.corruptions == given
        assert found.saes["one"].sensitivity.shape == (4, 96)
        assert found.saes["one"].maps.shape[0] == n + 1


def test_choose_takes_turns(tiny_model, batch):
    features = sae_features(tiny_model, random_sae(), batch, CORRUPTIONS, top_images=2)
    written = torch.zeros(96)
    written[[50, 60]] = torch.tensor([2.0, 1.0])
    rate = features.firing_rate.clone()
    rate[[40, 41]] = torch.tensor([2.0, 1.9], dtype=rate.dtype)
    features = dataclasses.replace(features, firing_rate=rate)
    index = features.sensitivity["gaussian_noise_4"]
    moved = index.mean_absolute_difference / (2 * index.clean_mean + index.mean_difference)
    chosen = choose([7], features, written, [3, 30, 31, 32, 33], 8).tolist()  # 3 is dead
    assert chosen[:6] == [7, 30, 31, 32, 50, 40]
    assert chosen[7] == 60
    assert float(moved[chosen[6]]) > float(moved.nanmedian())
    assert len(choose(range(10), features, written, [], 4)) == 10


def test_partners_match_well_and_keep_the_order():
    partners = Partners(torch.tensor([5, 6, -1, 7, 8]), torch.tensor([0.9, 0.4, torch.nan, 0.5, 0.7]))
    assert partners_of(partners, torch.tensor([4, 0, 1, 2, 3])) == [8, 5, 7]
    assert partners_of(None, torch.tensor([4])) == []


def test_examples_by_hand():
    peaks = torch.zeros(30, 3)
    peaks[:21, 0] = torch.arange(21) + 1.0  # the n-th image has n + 1
    peaks[5, 1] = 1
    rows = pick_examples(peaks, n_top=3, n_random=2, seed=0)
    assert rows[0, :7].tolist() == [20, 19, 18, 16, 12, 8, 4]
    assert set(rows[0, 7:].tolist()) <= set(range(18)) - {16, 12, 8, 4}
    assert len(set(rows[0].tolist())) == 9
    assert rows[1].tolist() == [5] + [-1] * 8
    assert rows[2].tolist() == [-1] * 9
    assert torch.equal(rows, pick_examples(peaks, n_top=3, n_random=2, seed=0))
    drawn = {int(pick_examples(peaks, 3, 2, seed)[0, 7]) for seed in range(8)}
    assert len(drawn) > 3


def test_histogram_edges_belong_to_the_bin_below():
    tally = ChosenTally(torch.tensor([2.4, 0.0]), 2)
    tally.add(torch.tensor([[[0.0, 0.0], [2.4, 0.0], [0.05, 0.0], [0.15, 0.0]]]), torch.tensor([1]))
    assert tally.counts[0].nonzero()[:, 0].tolist() == [0, 1, 23]
    assert not tally.counts[1].any()
    np.testing.assert_allclose(tally.label_share()[0], [0, 1])


def test_what_is_refused(make, tiny_model, batch):
    with pytest.raises(ValueError, match="at least one SAE"):
        browse_features({}, batch)
    with pytest.raises(ValueError, match=r"has the latents 0 to 95; got \[96\]"):
        make(random_sae(), features={"one": [96]})
    with pytest.raises(ValueError, match="by the SAEs' names, one; got two"):
        make(random_sae(), features={"two": [1]})
    with pytest.raises(ValueError, match="n_features must be at least 1; got 0"):
        Browsing(n_features=0)
    with pytest.raises(ValueError, match="random_images must be at least 0; got -1"):
        Browsing(random_images=-1)
    sae = empty_sae()
    sae.cfg.normalize_activations = "layer_norm"
    with pytest.raises(ValueError, match="normalises its input"):
        make(sae)
