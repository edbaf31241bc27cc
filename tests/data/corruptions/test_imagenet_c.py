"""ImageNet-C's noise and blur against the published definition, anew in float64 with scipy and skimage."""

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
from float64_references import IDS, PUBLISHED, assert_equals, blurred, per_image, streaked, zoomed

from mechvit.data import Corruption, corrupt
from mechvit.data.corruption_spec import SEVERITIES
from mechvit.data.corruptions import blur, digital, noise
from mechvit.data.counter_rng import named_seed, uniform

by_severity = pytest.mark.parametrize("level", SEVERITIES)


@pytest.mark.parametrize("name", PUBLISHED)
def test_constants_are_the_published_ones(name):
    ours, published = PUBLISHED[name]
    assert ours == dict(zip(SEVERITIES, published, strict=True))
    assert round(224 * digital.ELASTIC_UNIT, 9) == 244


# noise


@by_severity
def test_shot_noise_is_scipy_s_poisson(level):
    photons = noise.SHOT_PHOTONS[level]
    ramp = torch.linspace(0, 1, 64).view(1, 1, 1, 64).expand(2, 3, 32, 64).contiguous()
    ours = corrupt(ramp, Corruption("shot_noise", level), IDS)
    draw = uniform(IDS, ramp[0].numel(), named_seed(0, "shot_noise")).view_as(ramp).double().numpy()
    counts = scipy.stats.poisson.ppf(draw, photons * ramp.double().numpy()).clip(0)
    same = np.isclose(ours.numpy(), np.minimum(counts / photons, 1), atol=1e-6)
    assert same.mean() > 0.999, "all but draws within rounding of a step"
    assert (ours[..., 0] == 0).all()


@by_severity
def test_impulse_noise_is_skimage_s(level):
    grey = torch.full((4, 3, 96, 96), 0.4)
    ours = corrupt(grey, Corruption("impulse_noise", level), torch.arange(4)).numpy()
    theirs = skimage.util.random_noise(grey.numpy(), mode="s&p", amount=noise.IMPULSE_SHARE[level], rng=0)
    for value in (0, 1, np.float32(0.4)):
        assert (ours == value).mean() == pytest.approx(np.isclose(theirs, value).mean(), abs=5e-3)
    assert set(np.unique(ours)) == {0, np.float32(0.4), 1}
    assert not ((ours == 0).all(1) | (ours == 0.4).all(1) | (ours == 1).all(1)).all(), "channels are drawn apart"


@by_severity
def test_speckle_noise_scales_with_the_pixel(level):
    for value in (0.1, 0.3):
        flat = torch.full((4, 3, 96, 96), value)
        ours = corrupt(flat, Corruption("speckle_noise", level), torch.arange(4)).double().flatten().numpy()
        expected = scipy.stats.norm(value, value * noise.SPECKLE_STD[level])
        for quantile in (0.1, 0.3, 0.5, 0.7, 0.9):
            assert np.quantile(ours, quantile) == pytest.approx(expected.ppf(quantile), abs=0.01 * value)


# blur


@by_severity
def test_gaussian_blur_c_is_skimage_s(images, level):
    ours = corrupt(images, Corruption("gaussian_blur_c", level), IDS)
    assert_equals(ours, [blurred(image, [1, 2, 3, 4, 6][level - 1]) for image in per_image(images)])


@by_severity
def test_defocus_blur_is_a_softened_disc(images, level):
    radius, alias = blur.DEFOCUS[level]
    disc = np.pad(skimage.morphology.disk(radius).astype(float), max(8, radius) - radius)
    taps = 1 if radius <= 8 else 2
    kernel = scipy.ndimage.gaussian_filter(disc / disc.sum(), alias, mode="mirror", radius=taps)
    np.testing.assert_allclose(blur.defocus_kernel(level).numpy(), kernel, atol=1e-12)
    theirs = [scipy.ndimage.correlate(image, kernel[..., None], mode="mirror") for image in per_image(images)]
    assert_equals(corrupt(images, Corruption("defocus_blur", level), IDS), theirs)


@by_severity
def test_glass_blur_is_the_published_loop(images, level):
    """Row by row from the lower right, with numpy's views where the published code has them."""
    sigma, reach, times = blur.GLASS[level]
    height, width = images.shape[-2:]
    drawn = uniform(IDS, 2 * times * height * width, named_seed(0, "glass_blur")).double().numpy()
    steps = np.floor(drawn * 2 * reach).astype(int).reshape(2, times, 2, height, width) - reach
    assert set(np.unique(steps)) == set(range(-reach, reach))
    theirs = []
    for image, moves in zip(per_image(images), steps, strict=True):
        x = blurred(image, sigma)
        for t in range(times):
            for h in range(height - reach, reach, -1):
                for w in range(width - reach, reach, -1):
                    dy, dx = moves[t, :, h, w]
                    x[h, w], x[h + dy, w + dx] = x[h + dy, w + dx], x[h, w]
        theirs.append(blurred(x, sigma))
    assert_equals(corrupt(images, Corruption("glass_blur", level), IDS), theirs)


@by_severity
def test_motion_blur_is_imagemagick_s(images, level):
    angles = 90 * uniform(IDS, 1, named_seed(0, "motion_blur"))[:, 0].double().numpy() - 45
    assert (np.abs(angles) <= 45).all()
    theirs = [streaked(x, *blur.MOTION[level], a) for x, a in zip(per_image(images), angles, strict=True)]
    assert_equals(corrupt(images, Corruption("motion_blur", level), IDS), theirs)


@by_severity
def test_zoom_blur_is_scipy_s_zoom(images, level):
    factors = np.arange(1, *PUBLISHED["zoom_blur"][1][level - 1])
    theirs = [(x + sum(zoomed(x, z) for z in factors)) / (len(factors) + 1) for x in per_image(images)]
    assert_equals(corrupt(images, Corruption("zoom_blur", level), IDS), theirs)
