"""Corruptions against scipy, ImageNet-C's published constants, and the laws that make them reproducible."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mechvit.data import CLEAN, CORRUPTIONS, PAPER_CORRUPTIONS, Corruption, corrupt
from mechvit.data.corruption_spec import CORRUPTION_FAMILIES
from mechvit.data.counter_rng import splitmix64, standard_normal

IDS = torch.tensor([3, 11, 1_000_007])


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(3, 3, 40, 48, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("level", [1, 2, 4])
def test_blur_matches_scipy(images, level):
    ours = corrupt(images.double(), Corruption("gaussian_blur", level), IDS)
    theirs = scipy.ndimage.gaussian_filter(
        images.double().numpy(), sigma=(0, 0, level, level), mode="mirror", truncate=4.0
    )
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-12)


@pytest.mark.parametrize(("level", "std"), [(1, 0.08), (2, 0.12), (3, 0.18), (4, 0.26), (5, 0.38)])
def test_noise_has_imagenet_c_deviation(level, std):
    grey = torch.full((4, 3, 128, 128), 0.5)
    noisy = corrupt(grey, Corruption("gaussian_noise", level), torch.arange(4))
    assert noisy.min() >= 0
    assert noisy.max() <= 1
    expected = scipy.stats.norm(0.5, std)
    inside = noisy[(noisy > 0) & (noisy < 1)].double().numpy()
    truncated = scipy.stats.truncnorm(-0.5 / std, 0.5 / std, 0.5, std)
    assert inside.std() == pytest.approx(truncated.std(), rel=0.01)
    assert (noisy == 0).float().mean().item() == pytest.approx(expected.cdf(0), abs=2e-3)


def test_draws_are_standard_normal():
    draws = standard_normal(torch.arange(50), 4001, seed=2).double().numpy()
    assert scipy.stats.kstest(draws.ravel(), "norm").pvalue > 1e-3
    correlation = np.corrcoef(draws)
    assert np.abs(correlation - np.eye(50)).max() < 0.08, "images are independent"
    halves = np.corrcoef(draws[:, :2000].ravel(), draws[:, 2001:].ravel())[0, 1]
    assert abs(halves) < 0.01, "the two Box-Muller halves are independent"


def test_splitmix64_matches_published_sequence():
    # The first outputs of the reference generator seeded with 1234567 (Rosetta Code, Pseudo-random numbers).
    state, outputs = 1234567, []
    for _ in range(5):
        signed = state - (1 << 64) if state >= 1 << 63 else state
        outputs.append(int(splitmix64(torch.tensor([signed]))[0]) % (1 << 64))
        state = (state + 0x9E3779B97F4A7C15) % (1 << 64)
    assert outputs == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


@pytest.mark.parametrize("corruption", PAPER_CORRUPTIONS, ids=lambda c: c.key)
def test_invariant_to_batching_and_order(images, corruption):
    whole = corrupt(images, corruption, IDS)
    order = [2, 0, 1]
    torch.testing.assert_close(corrupt(images[order], corruption, IDS[order]), whole[order], rtol=0, atol=0)
    for i in range(3):
        single = corrupt(images[i : i + 1], corruption, IDS[i : i + 1])
        torch.testing.assert_close(single[0], whole[i], rtol=0, atol=1e-7)


def test_noise_depends_on_seed_and_id_only(images):
    noise = Corruption("gaussian_noise", 2)
    assert torch.equal(corrupt(images, noise, IDS, seed=1), corrupt(images, noise, IDS, seed=1))
    assert not torch.equal(corrupt(images, noise, IDS, seed=1), corrupt(images, noise, IDS, seed=2))
    assert not torch.equal(corrupt(images, noise, IDS), corrupt(images, noise, IDS + 1))


def test_clean_changes_nothing(images):
    assert corrupt(images, CLEAN, IDS) is images


@given(st.sampled_from(PAPER_CORRUPTIONS), st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_stays_in_unit_interval(corruption, seed):
    images = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(seed))
    out = corrupt(images, corruption, torch.tensor([seed, 5]), seed=seed)
    assert out.shape == images.shape
    assert out.min() >= 0
    assert out.max() <= 1
    bright = corrupt(torch.ones_like(images), corruption, torch.tensor([seed, 5]), seed=seed)
    assert bright.max() <= 1, "what is corrupted can be given to corrupt again"


def test_every_paper_corruption_has_a_function():
    assert {c.family for c in PAPER_CORRUPTIONS} <= set(CORRUPTIONS) == set(CORRUPTION_FAMILIES) - {"clean"}
    assert [c.level for c in PAPER_CORRUPTIONS] == [1, 2, 4, 1, 2, 4]


@pytest.mark.parametrize(
    ("images", "ids", "message"),
    [
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.arange(2), "must be a floating"),
        (torch.zeros(3, 32, 32), torch.arange(3), "must be a floating"),
        (torch.zeros(2, 3, 32, 32), torch.arange(3), "one id for each of the 2 images"),
        (
            torch.full((1, 3, 32, 32), 1.5),
            torch.arange(1),
            r"RGB in \[0, 1\], before normalisation; got values from 1.5",
        ),
    ],
)
def test_bad_input_is_refused(images, ids, message):
    with pytest.raises(ValueError, match=message):
        corrupt(images, PAPER_CORRUPTIONS[0], ids)


def test_blur_wider_than_the_image_is_refused():
    with pytest.raises(ValueError, match="needs larger images; got 16x16"):
        corrupt(torch.rand(1, 3, 16, 16), "gaussian_blur_4", torch.tensor([0]))


@pytest.mark.parametrize(
    "key", ["gaussian_blur", "gaussian_blur_0", "gaussian_noise_6", "frosty_1", "clean_1", "blur 4"]
)
def test_bad_keys_are_refused(key):
    with pytest.raises(ValueError, match=r"family|level|corruption"):
        Corruption.parse(key)


@pytest.mark.parametrize("corruption", [CLEAN, *PAPER_CORRUPTIONS], ids=lambda c: c.key)
def test_key_round_trip(corruption):
    assert Corruption.parse(corruption.key) == corruption


def test_negative_seed_is_refused():
    with pytest.raises(ValueError, match=r"seed must be in .*; got -1"):
        standard_normal(torch.arange(2), 4, seed=-1)
