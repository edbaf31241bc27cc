"""CKA against Gram matrices in float64, known answers, and streams cut anywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t

from mechvit.analysis import View, cka_of, clean_and_corrupted, compare_views, layers_by_depth, linear_cka
from mechvit.analysis.statistics.jackknife import jackknife_interval
from mechvit.data import CLEAN, Corruption

NOISE = Corruption("gaussian_noise", 4)


def gram_cka(x, y, debiased=True):
    """The definitions written out with examples by examples matrices."""
    n, one = len(x), np.ones(len(x))

    def statistic(a, b):
        K, L = a @ a.T, b @ b.T
        if not debiased:
            H = np.eye(n) - 1 / n
            return np.trace(K @ H @ L @ H) / (n - 1) ** 2
        np.fill_diagonal(K, 0)
        np.fill_diagonal(L, 0)
        sums = (one @ K @ one) * (one @ L @ one) / ((n - 1) * (n - 2))
        return (np.trace(K @ L) + sums - 2 / (n - 2) * one @ K @ L @ one) / (n * (n - 3))

    return statistic(x, y) / np.sqrt(statistic(x, x) * statistic(y, y))


def draw(seed, n, d, mean=3.0):
    return mean + np.random.default_rng(seed).normal(size=(n, d))


def examples(hidden, tokens, image_ids=None, seed=0):
    """Hugging Face's hidden state as rows, float64."""
    hidden = hidden.double()
    if tokens == "patch":
        draws = [np.random.default_rng([seed, int(image)]).random(2) for image in image_ids]
        place = [1 + 4 * int(4 * row) + int(4 * column) for row, column in draws]
        assert len(set(place)) > 5
        return hidden[range(len(hidden)), place].numpy()
    return {"cls": hidden[:, 0], "mean": hidden[:, 1:].mean(1)}[tokens].numpy()


@pytest.mark.parametrize("debiased", [True, False])
def test_matches_gram_matrices(debiased):
    x = draw(0, 40, 7)
    y = np.tanh(x @ draw(1, 7, 11, mean=0)) + 0.3 * draw(2, 40, 11)
    found = cka_of(torch.from_numpy(x), torch.from_numpy(y), debiased=debiased)
    assert found == pytest.approx(gram_cka(x, y, debiased), abs=1e-10)
    assert 0.1 < found < 0.95


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(1e-2, 1e2), shift=st.floats(-10, 10), debiased=st.booleans())
def test_invariant_to_rotation_scale_and_shift(seed, scale, shift, debiased):
    x, y = (torch.from_numpy(draw(seed + i, 30, 6)) for i in range(2))
    rotation = torch.linalg.qr(torch.from_numpy(draw(seed + 2, 6, 6, mean=0))).Q
    moved = scale * x @ rotation + shift
    assert cka_of(x, moved, debiased=debiased) == pytest.approx(1, abs=1e-9)
    assert cka_of(x, y, debiased=debiased) == pytest.approx(cka_of(moved, y, debiased=debiased), abs=1e-9)
    assert cka_of(x, y, debiased=debiased) == pytest.approx(cka_of(y, x, debiased=debiased), abs=1e-12)


def test_only_the_debiased_estimator_is_near_zero_for_independent_data():
    pairs = [[torch.from_numpy(draw(2 * i + j, 60, 40)) for j in range(2)] for i in range(40)]
    found = np.array([[cka_of(*pair, debiased=kind) for kind in (True, False)] for pair in pairs])
    assert abs(found[:, 0].mean()) < 0.02
    assert found[:, 1].min() > 0.3


@pytest.mark.parametrize("debiased", [True, False])
@pytest.mark.parametrize("tokens", ["cls", "mean", "patch"])
def test_models_match_hugging_face(tiny_model, batch, hf_pass, tokens, debiased):
    """One model clean and corrupted, every layer with every layer."""
    found = linear_cka(
        tiny_model,
        tiny_model,
        batch,
        CLEAN,
        NOISE,
        tokens=tokens,
        every_pair=True,
        debiased=debiased,
        groups=4,
        batch_size=7,
    )
    clean, noisy = (hf_pass(key)[1] for key in ("clean", "gaussian_noise_4"))
    assert found.layers.tolist() == [[i, j] for i in range(4) for j in range(4)]
    for (i, j), value in zip(found.layers.tolist(), found.value.tolist(), strict=True):
        if tokens == "cls" and 0 in (i, j):
            assert np.isnan(value)  # its embedding is the same for all images
        else:
            views = (examples(hidden, tokens, batch.image_ids) for hidden in (clean[i], noisy[j]))
            expected = gram_cka(*views, debiased)
            assert value == pytest.approx(expected, abs=2e-4)
    assert found.value.nan_to_num(1).min() < 0.95


def test_groups_are_left_out_whole(tiny_model, batch, hf_pass):
    """The jackknife's values are CKA of the images that stay, by the drawn groups."""
    found = linear_cka(tiny_model, tiny_model, batch, CLEAN, NOISE, tokens="patch", groups=4, batch_size=5, seed=3)
    group = np.random.default_rng(3).permutation(24) % 4
    clean = hf_pass("clean")[1]
    same = linear_cka(tiny_model, tiny_model, batch, tokens="patch", every_pair=True, groups=4, batch_size=5, seed=3)
    for which in range(4):
        rows = torch.from_numpy(group != which)
        expected = gram_cka(*(examples(clean[layer][rows], "patch", batch.image_ids[rows], 3) for layer in (1, 3)))
        assert same.left_out[which, 1 * 4 + 3].item() == pytest.approx(expected, abs=2e-4)
    low, high = found.interval()
    left_out = found.left_out.numpy()
    error = np.sqrt(3 / 4 * ((left_out - left_out.mean(0)) ** 2).sum(0))
    np.testing.assert_allclose(low, np.clip(found.value.numpy() - t.ppf(0.975, 3) * error, -1, 1))
    assert (high > low).all()
    frame = found.to_frame(model_a="base")
    assert list(frame) == ["model_a", "layer_a", "layer_b", "cka", "low", "high"]
    assert frame["cka"].tolist() == found.value.tolist()


def test_stream_equals_one_batch(tiny_model, tiny_images):
    whole, cut = (
        linear_cka(tiny_model, tiny_model, tiny_images, CLEAN, NOISE, groups=3, batch_size=size) for size in (24, 5)
    )
    torch.testing.assert_close(whole.value, cut.value, atol=1e-5, rtol=0)
    torch.testing.assert_close(whole.left_out, cut.left_out, atol=1e-5, rtol=0)


def test_a_model_is_like_itself_and_a_planted_change_shows_from_its_layer_on(planted):
    base, tuned, images = planted
    views = clean_and_corrupted({"base": base, "tuned": tuned}, [NOISE])
    assert views == [
        (View("base", CLEAN), View("tuned", CLEAN)),
        (View("base", NOISE), View("tuned", NOISE)),
        (View("base", CLEAN), View("base", NOISE)),
        (View("tuned", CLEAN), View("tuned", NOISE)),
    ]
    found = compare_views({"base": base, "tuned": tuned}, images, views, groups=4)
    between = found[views[0]].value
    torch.testing.assert_close(between[:2], torch.ones(2, dtype=torch.float64), atol=1e-6, rtol=0)
    assert (between[2:] < 0.99).all()  # block 1 writes what enters layer 2
    alone = linear_cka(base, tuned, images, groups=4)
    torch.testing.assert_close(alone.value, between)
    own = linear_cka(base, base, images, NOISE, groups=4)
    torch.testing.assert_close(own.value, torch.ones(4, dtype=torch.float64), atol=1e-9, rtol=0)
    low, high = own.interval()
    assert (high - low).max() < 1e-6


def test_jackknife_covers_the_value_of_many_examples():
    """For correlated data, the interval from 80 examples holds the value of 20,000 about as often as it says."""
    mix = draw(9, 5, 5, mean=0)

    def pair(seed, n):
        x = draw(seed, n, 5)
        return x, x @ mix + 1.5 * draw(seed + 1, n, 5)

    truth = cka_of(*map(torch.from_numpy, pair(0, 20_000)))
    covered = []
    for seed in range(100, 220, 2):
        x, y = map(torch.from_numpy, pair(seed, 80))
        group = torch.arange(80) % 10
        left_out = torch.tensor([[cka_of(x[group != g], y[group != g])] for g in range(10)])
        low, high = jackknife_interval(torch.tensor([cka_of(x, y)]), left_out)
        covered.append(bool(low <= truth <= high))
    assert 0.85 < np.mean(covered) <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": "all"}, "tokens must be cls, mean"),
        ({"groups": 1}, "at least 2 groups"),
        ({"groups": 13}, "13 groups and 24 images"),
    ],
)
def test_refuses_what_cannot_be_compared(tiny_model, batch, change, message):
    with pytest.raises(ValueError, match=message):
        linear_cka(tiny_model, tiny_model, batch, **change)


def test_nothing_to_compare_is_refused(tiny_model, batch):
    with pytest.raises(ValueError, match="at least one pair of views"):
        compare_views({"base": tiny_model}, batch, [])
    with pytest.raises(ValueError, match="level of an interval"):
        linear_cka(tiny_model, tiny_model, batch, groups=2).interval(1.5)


def test_layers_at_equal_shares_of_depth_are_compared(tiny_model, tiny_images):
    models, views = {"a": tiny_model, "b": tiny_model}, (View("a", CLEAN), View("b", CLEAN))
    every = compare_views(models, tiny_images, [views], every_pair=True, groups=2)[views].to_frame()
    chosen = {"a": [0, 2], "b": [1, 2]}
    found = compare_views(models, tiny_images, [views], layers=chosen, groups=2)[views].to_frame()
    assert list(zip(found["layer_a"], found["layer_b"], strict=True)) == [(0, 1), (2, 2)]
    both = found.merge(every, on=["layer_a", "layer_b"])
    assert np.allclose(both["cka_x"], both["cka_y"], equal_nan=True)
    assert np.allclose(both["low_x"], both["low_y"], equal_nan=True)
    with pytest.raises(ValueError, match="layers are paired in order, as many of a as of b; got 2 and 1"):
        compare_views(models, tiny_images, [views], layers={"a": [0, 2], "b": [1]}, groups=2)
    with pytest.raises(ValueError, match="layers of b must be one or more of 0 to"):
        compare_views(models, tiny_images, [views], layers={"a": [0], "b": [99]}, groups=2)
    assert layers_by_depth(models) == {name: list(range(tiny_model.cfg.n_layers + 1)) for name in "ab"}
