"""ImageNet-C's weather and digital corruptions against the published definition, in float64 and with Pillow."""

from __future__ import annotations

from io import BytesIO

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
from float64_references import IDS, PUBLISHED, assert_equals, per_image, streaked, zoomed
from PIL import Image
from skimage.feature import canny

from mechvit.data import Corruption, corrupt
from mechvit.data.corruption_spec import SEVERITIES
from mechvit.data.corruptions import digital, drops, weather
from mechvit.data.corruptions.plasma import plasma
from mechvit.data.counter_rng import named_seed, standard_normal, uniform

by_severity = pytest.mark.parametrize("level", SEVERITIES)


# weather


@by_severity
def test_snow_is_the_published_recipe(images, level):
    mean, std, zoom, threshold, radius, sigma, kept = weather.SNOW[level]
    height, width = images.shape[-2:]
    drawn = standard_normal(IDS, height * width + 1, named_seed(0, "snow")).double().numpy()
    angles = -135 + 90 * scipy.stats.norm.cdf(drawn[:, -1])
    theirs = []
    for x, noise_, angle in zip(per_image(images), drawn, angles, strict=True):
        layer = zoomed((mean + std * noise_[:-1]).reshape(height, width), zoom)
        layer[layer < threshold] = 0
        layer = streaked(layer.clip(0, 1), radius, sigma, angle)[..., None]
        grey = (x @ [0.299, 0.587, 0.114])[..., None]
        x = kept * x + (1 - kept) * np.maximum(x, grey * 1.5 + 0.5)
        theirs.append((x + layer + np.rot90(layer, 2)).clip(0, 1))
    ours = corrupt(images, Corruption("snow", level), IDS)
    # flakes are drawn in float32: a few pixels fall on the other side of the threshold
    difference = np.abs(np.stack(per_image(ours)) - np.stack(theirs))
    assert np.median(difference) < 1e-6
    assert difference.mean() < 1e-4


def test_plasma_is_diamond_square():
    """Point by point on the torus, square step then diamond step."""
    side, roughness = 16, 1.7
    wobble = 2 * uniform(torch.tensor([7]), side * side, 3).double().numpy().reshape(side, side) - 1
    field, step, reach = np.zeros((side, side)), side, 1.0
    while step > 1:
        half = step // 2
        for y in range(half, side, step):
            for x in range(half, side, step):
                corners = [field[(y + a) % side, (x + b) % side] for a in (-half, half) for b in (-half, half)]
                field[y, x] = np.mean(corners) + reach * wobble[y, x]
        for y in range(0, side, half):
            for x in range((y + half) % step, side, step):
                ends = [(y - half, x), (y + half, x), (y, x - half), (y, x + half)]
                field[y, x] = np.mean([field[a % side, b % side] for a, b in ends]) + reach * wobble[y, x]
        step, reach = half, reach / roughness**2
    field = (field - field.min()) / (field.max() - field.min())
    ours = plasma(13, 16, roughness, torch.tensor([7]), 3)[0]
    np.testing.assert_allclose(ours.numpy(), field[:13], atol=1e-5)


@by_severity
def test_fog_adds_plasma_and_scales_back(images, level):
    weight, roughness = weather.FOG[level]
    cloud = plasma(48, 44, roughness, IDS, named_seed(0, "fog")).double().numpy()[..., None]
    theirs = [
        ((x + weight * c) * x.max() / (x.max() + weight)).clip(0, 1)
        for x, c in zip(per_image(images), cloud, strict=True)
    ]
    assert_equals(corrupt(images, Corruption("fog", level), IDS), theirs)


@by_severity
def test_frost_blends_its_texture(images, level):
    kept, iced = weather.FROST[level]
    texture = weather.frost_texture(48, 44, IDS, named_seed(0, "frost")).double()
    theirs = [(kept * x + iced * t).clip(0, 1) for x, t in zip(per_image(images), per_image(texture), strict=True)]
    assert_equals(corrupt(images, Corruption("frost", level), IDS), theirs)


def test_frost_texture_is_bluish_ice():
    texture = weather.frost_texture(224, 224, torch.arange(3), 0)
    assert texture.mean((1, 2, 3)).tolist() == pytest.approx([0.45] * 3, abs=0.03)
    assert texture.std((1, 2, 3)).tolist() == pytest.approx([0.2] * 3, abs=0.04)
    red, _, blue = texture.mean((2, 3)).unbind(1)
    assert (blue > red + 0.05).all()
    first, second = texture[0].flatten(), texture[1].flatten()
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 0.9, "another pane for each image"


@by_severity
def test_brightness_raises_skimage_s_value(images, level):
    theirs = []
    for x in per_image(images):
        hsv = skimage.color.rgb2hsv(x)
        hsv[..., 2] = (hsv[..., 2] + level / 10).clip(0, 1)
        theirs.append(skimage.color.hsv2rgb(hsv))
    assert_equals(corrupt(images, Corruption("brightness", level), IDS), theirs, 5e-6)


# digital


@by_severity
def test_contrast_matches_numpy(images, level):
    c = [0.4, 0.3, 0.2, 0.1, 0.05][level - 1]
    theirs = [((x - x.mean((0, 1))) * c + x.mean((0, 1))).clip(0, 1) for x in per_image(images)]
    assert_equals(corrupt(images, Corruption("contrast", level), IDS), theirs)


@by_severity
def test_elastic_transform_is_an_affine_map_and_a_field(photos, level):
    """skimage's affine warp, then scipy's map_coordinates with skimage's smoothed noise; 48 pixels, as 224 in ratio."""
    images = photos[:2].double()
    strength, sigma, reach = (244 / 224 * 48 * part for part in PUBLISHED["elastic"][1][level - 1])
    drawn = 2 * uniform(IDS, 6 + 2 * 48 * 48, named_seed(0, "elastic_transform")).double().numpy() - 1
    square = np.array([[40, 40], [40, 8], [8, 8]], dtype=float)
    theirs = []
    for x, d in zip(per_image(images), drawn, strict=True):
        warp = skimage.transform.AffineTransform.from_estimate(square + reach * d[:6].reshape(3, 2), square)
        tilted = skimage.transform.warp(x, warp, order=1, mode="reflect")
        dx, dy = (
            strength * skimage.filters.gaussian(part, sigma=sigma, mode="reflect", truncate=3)
            for part in d[6:].reshape(2, 48, 48)
        )
        ys, xs, zs = np.meshgrid(np.arange(48), np.arange(48), np.arange(3), indexing="ij")
        places = [ys + dy[..., None], xs + dx[..., None], zs]
        theirs.append(scipy.ndimage.map_coordinates(tilted, places, order=1, mode="reflect").clip(0, 1))
    assert_equals(corrupt(images, Corruption("elastic_transform", level), IDS), theirs, 1e-4)


@by_severity
def test_pixelate_is_pillow_s_box(large_photos, level):
    share = PUBLISHED["pixelate"][1][level - 1]
    theirs = []
    for x in per_image((large_photos * 255).round().byte()):
        small = Image.fromarray(x).resize((int(224 * share),) * 2, Image.Resampling.BOX)
        theirs.append(np.array(small.resize((224, 224), Image.Resampling.BOX)) / 255)
    # Pillow rounds to bytes after each of four passes
    assert_equals(corrupt(large_photos, Corruption("pixelate", level), IDS), theirs, 2.1 / 255)


@by_severity
def test_jpeg_compression_is_pillow_s(images, level):
    theirs = []
    for x in per_image((images * 255).round().byte()):
        file = BytesIO()
        Image.fromarray(x).save(file, "JPEG", quality=[25, 18, 15, 10, 7][level - 1])
        theirs.append(np.array(Image.open(file)) / 255)
    assert_equals(corrupt(images, Corruption("jpeg_compression", level), IDS), theirs, 1e-12)


@by_severity
def test_saturate_scales_skimage_s_saturation(images, level):
    factor, more = digital.SATURATE[level]
    theirs = []
    for x in per_image(images):
        hsv = skimage.color.rgb2hsv(x)
        hsv[..., 1] = (hsv[..., 1] * factor + more).clip(0, 1)
        theirs.append(skimage.color.hsv2rgb(hsv))
    assert_equals(corrupt(images, Corruption("saturate", level), IDS), theirs, 1e-6)


# spatter


@pytest.mark.parametrize("level", [4, 5])
def test_mud_covers_the_image(images, level):
    mean, std, sigma, threshold, soft, _ = drops.SPATTER[level]
    drawn = standard_normal(IDS, 48 * 44, named_seed(0, "spatter")).double().numpy().reshape(2, 48, 44)
    theirs = []
    for x, noise_ in zip(per_image(images), drawn, strict=True):
        wet = skimage.filters.gaussian(mean + std * noise_, sigma=sigma) > threshold
        cover = skimage.filters.gaussian(wet.astype(float), sigma=soft)[..., None]
        cover[cover < 0.8] = 0
        theirs.append(x * (1 - cover) + cover * np.array([63, 42, 20]) / 255)
    assert sum(float((cover > 0).mean()) for cover in theirs) > 0
    assert_equals(corrupt(images, Corruption("spatter", level), IDS), theirs, 1e-5)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_water_lightens_towards_turquoise(level):
    grey = torch.full((2, 3, 96, 96), 0.2, dtype=torch.float64)
    added = corrupt(grey, Corruption("spatter", level), IDS) - grey
    red, green, blue = added.unbind(1)
    light = green / (238 / 255)
    np.testing.assert_allclose(red, light * 175 / 255, atol=1e-9)
    np.testing.assert_allclose(blue, green, atol=1e-9)
    assert light.amax((1, 2)).tolist() == pytest.approx([drops.SPATTER[level][4]] * 2)
    drawn = standard_normal(IDS, 96 * 96, named_seed(0, "spatter")).double().numpy().reshape(2, 96, 96)
    mean, std, sigma, threshold, *_ = drops.SPATTER[level]
    dry = np.stack([skimage.filters.gaussian(mean + std * n, sigma=sigma) < threshold - 1e-6 for n in drawn])
    assert (light.numpy()[dry] == 0).all()


def test_water_light_matches_loops():
    """One drop on a dry pane: brute-force distances to its outline, then every step by loops."""
    y, x = np.mgrid[:40, :40]
    drop = (190 * (((y - 18) / 11) ** 2 + ((x - 21) / 8) ** 2 < 1)).astype(np.uint8)
    edges = canny(drop.astype(float), sigma=0, low_threshold=50, high_threshold=150)
    outline = (drop > 0) & ~scipy.ndimage.binary_erosion(drop > 0)
    near = scipy.ndimage.binary_dilation(outline, np.ones((3, 3)))
    assert edges.any()
    assert near[edges].all(), "edges lie on the outline"
    ys, xs = np.nonzero(edges)
    distance = np.sqrt((y[..., None] - ys) ** 2 + (x[..., None] - xs) ** 2).min(-1).clip(max=20)

    def window(field, i, j):
        return np.pad(field, 1, mode="reflect")[i : i + 3, j : j + 3]

    places = list(np.ndindex(40, 40))
    mean = np.array([window(distance, *p).mean() for p in places]).reshape(40, 40)
    levels = np.floor(mean + 1e-9).astype(int)
    first = (levels == levels.min()).sum()
    spread = np.array([round(255 * ((levels <= v).sum() - first) / (1600 - first)) for v in levels.ravel()])
    kernel = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    relief = np.array([(window(spread.reshape(40, 40), *p) * kernel).sum() for p in places]).clip(0, 255)
    smooth = np.array([round(window(relief.reshape(40, 40), *p).mean()) for p in places]).reshape(40, 40)
    light = drop * smooth / (drop * smooth).max()
    np.testing.assert_allclose(drops.water_light(drop), light, atol=1e-12)


def test_a_dry_pane_has_no_light():
    assert (drops.water_light(np.zeros((8, 8), np.uint8)) == 0).all()
    assert drops.equalised(np.full((3, 3), 7, np.uint8)).tolist() == [[7] * 3] * 3
