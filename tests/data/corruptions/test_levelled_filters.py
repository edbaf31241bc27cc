"""Filters whose level is no severity, against scipy, skimage and loops."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import skimage.color
import skimage.filters
import skimage.morphology
import skimage.transform
import skimage.util
import torch
from float64_references import IDS, assert_equals, per_image

from mechvit.data import Corruption, corrupt
from mechvit.data.corruptions import blur
from mechvit.data.counter_rng import named_seed, uniform


def test_poisson_noise_has_its_photons():
    flat = torch.full((4, 3, 64, 64), 0.25)
    for level in range(1, 7):
        counts = corrupt(flat, Corruption("poisson_noise", level), torch.arange(4)).double() * 128 / 2**level
        rate = 32 / 2**level
        seen = np.bincount(counts.round().long().flatten(), minlength=12)[:12] / counts.numel()
        expected = scipy.stats.poisson(rate).pmf(np.arange(12))
        below = np.arange(12) < 4 * rate  # above full white counts are clipped
        np.testing.assert_allclose(seen[below], expected[below], atol=0.01)


def test_salt_and_pepper_takes_whole_pixels():
    grey = torch.full((4, 3, 96, 96), 0.4)
    ours = corrupt(grey, "salt_and_pepper_10", torch.arange(4))
    assert torch.equal(ours[:, 0], ours[:, 1])
    assert torch.equal(ours[:, 0], ours[:, 2])
    assert (ours == 0).double().mean() == pytest.approx(0.05, abs=5e-3)
    assert (ours == 1).double().mean() == pytest.approx(0.05, abs=5e-3)


@pytest.mark.parametrize("level", [1, 3])
def test_box_and_median_are_scipy_s(images, level):
    side = (2 * level + 1, 2 * level + 1, 1)
    box = [scipy.ndimage.uniform_filter(x, side, mode="nearest") for x in per_image(images)]
    assert_equals(corrupt(images, Corruption("box_blur", level), IDS), box)
    median = [scipy.ndimage.median_filter(x, side, mode="nearest") for x in per_image(images)]
    assert_equals(corrupt(images, Corruption("median_blur", level), IDS), median)


@pytest.mark.parametrize("level", [1, 2])
def test_bilateral_matches_loops(images, level):
    images, reach = images[:1, :, :12, :12], 2 * level
    x = np.pad(per_image(images)[0], [(reach, reach)] * 2 + [(0, 0)], mode="edge")
    out = np.zeros((12, 12, 3))
    offsets = np.arange(-reach, reach + 1)
    near = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * level**2))
    for i, j in np.ndindex(12, 12):
        window = x[i : i + 2 * reach + 1, j : j + 2 * reach + 1]
        alike = np.exp(-(np.abs(window - x[i + reach, j + reach]).sum(-1) ** 2) / (2 * blur.BILATERAL_COLOUR**2))
        weights = near * alike
        out[i, j] = (weights[..., None] * window).sum((0, 1)) / weights.sum()
    assert_equals(corrupt(images, Corruption("bilateral_blur", level), IDS[:1]), [out])


@pytest.mark.parametrize("level", [1, 4])
def test_sharpen_is_skimage_s_unsharp_mask(images, level):
    theirs = [skimage.filters.unsharp_mask(x, radius=1, amount=level, channel_axis=2) for x in per_image(images)]
    assert_equals(corrupt(images, Corruption("sharpen", level), IDS), theirs)


def test_linear_motion_blur_draws_a_line_in_each_image_s_direction():
    level, ids = 9, torch.arange(20)
    point = torch.zeros(20, 3, 41, 41, dtype=torch.float64)
    point[:, :, 20, 20] = 1
    line = corrupt(point, Corruption("linear_motion_blur", level), ids)[:, 0]
    assert line.sum((1, 2)).tolist() == pytest.approx([1] * 20)
    angles = 180 * uniform(ids, 1, named_seed(0, "linear_motion_blur"))[:, 0].double()
    y, x = (part - 20.0 for part in torch.meshgrid(torch.arange(41), torch.arange(41), indexing="ij"))
    for weights, angle in zip(line, angles, strict=True):
        spread = torch.tensor([[(weights * a * b).sum() for a in (x, -y)] for b in (x, -y)])
        values, vectors = torch.linalg.eigh(spread)
        assert values[0] < 0.3, "thin"
        assert values[1] == pytest.approx((19**2 - 1) / 12, rel=0.25), "19 pixels long"
        direction = float(torch.atan2(vectors[1, 1], vectors[0, 1]).rad2deg())
        assert abs((direction - float(angle) + 90) % 180 - 90) < 4
