"""Laws of every corruption: range, shape, severity, and pixels that only the seed and the image's id decide."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mechvit.data import Corruption, corrupt
from mechvit.data.corruption_spec import (
    CORRUPTION_FAMILIES,
    GROUPS,
    IMAGENET_C,
    IMAGENET_C_EXTRA,
    SEVERITIES,
    severities,
)
from mechvit.data.counter_rng import named_seed, uniform

CORRUPTED = [family for family in CORRUPTION_FAMILIES if family != "clean"]
IDS = torch.tensor([3, 11, 1_000_007, 0, 2**40, 12])
DRAWN = {
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "speckle_noise",
    "poisson_noise",
    "salt_and_pepper",
    "glass_blur",
    "motion_blur",
    "linear_motion_blur",
    "snow",
    "frost",
    "fog",
    "spatter",
    "elastic_transform",
}
"""The families with something random about them."""
RISING = {
    "glass_blur": [(1, 3), (2, 4, 5)],  # more reach comes with fewer passes
    "snow": [(1, 2, 4, 5), (1, 3, 4)],  # from 2 to 3 flakes become fewer and larger
    "spatter": [(1, 2, 3), (4, 5)],  # water to 3, then mud
    "frost": [(1, 2, 3), (4, 5)],  # from 3 to 4 only the image gets darker
    "fog": [(1, 2, 3), (4, 5)],  # from 3 to 4 only the cloud gets rougher
    "elastic_transform": [(1, 2), (3, 4, 5)],  # 1 and 2 tilt the image, 3 to 5 crumple it
    "saturate": [(1, 2), (3, 4, 5)],  # 1 and 2 take colour away, 3 to 5 add it
}
"""The runs of levels along which ImageNet-C's own constants make the image worse, where they do not throughout."""


def levels_of(family: str) -> tuple[int, ...]:
    return (1, 2) if family == "gaussian_blur" else SEVERITIES


@pytest.mark.parametrize("family", CORRUPTED)
@given(seed=st.integers(0, 2**31))
@settings(max_examples=2, deadline=None)
def test_error_grows_with_severity_and_stays_in_range(family, photos, seed):
    images, error = photos.repeat(2, 1, 1, 1), {}
    for level in levels_of(family):
        out = corrupt(images, Corruption(family, level), torch.arange(12), seed=seed)
        assert out.shape == images.shape
        assert out.dtype == images.dtype
        assert out.isfinite().all()
        assert out.min() >= 0
        assert out.max() <= 1
        error[level] = float((out - images).square().mean())
    for run in RISING.get(family, [levels_of(family)]):
        values = [error[level] for level in run]
        assert values[0] > 1e-5
        assert values == sorted(values)
        assert len(set(values)) == len(values)


@pytest.mark.parametrize("family", CORRUPTED)
@given(order=st.permutations(range(6)), parts=st.integers(1, 5), seed=st.integers(0, 2**31))
@settings(max_examples=2, deadline=None)
def test_batch_order_and_size_change_no_pixel(family, photos, order, parts, seed):
    corruption = Corruption(family, 2)
    whole = corrupt(photos, corruption, IDS, seed=seed)
    shuffled = [
        corrupt(photos[part], corruption, IDS[part], seed=seed) for part in torch.tensor(list(order)).split(parts)
    ]
    # the paper's blur multiplies whole batches, whose rounding may differ
    tolerance = 1e-6 if family == "gaussian_blur" else 0
    torch.testing.assert_close(torch.cat(shuffled), whole[list(order)], rtol=0, atol=tolerance)


@pytest.mark.parametrize("family", CORRUPTED)
def test_only_seed_and_id_decide_what_is_drawn(family, photos):
    corruption, image = Corruption(family, 4), photos[:1].repeat(2, 1, 1, 1)
    out = corrupt(image, corruption, torch.tensor([5, 6]), seed=1)
    other = corrupt(image, corruption, torch.tensor([5, 5]), seed=2)
    assert torch.equal(other[0], other[1])
    assert torch.equal(out[0], out[1]) == (family not in DRAWN)
    assert torch.equal(out[0], other[0]) == (family not in DRAWN)


@pytest.mark.parametrize("family", CORRUPTED)
def test_other_shapes_and_flat_images(family):
    for image in (torch.zeros(1, 3, 33, 40), torch.ones(1, 3, 40, 33), torch.full((1, 3, 36, 36), 0.3).double()):
        out = corrupt(image, Corruption(family, 1), torch.tensor([4]))
        assert out.shape == image.shape
        assert out.dtype == image.dtype
        assert out.isfinite().all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("family", CORRUPTED)
def test_a_gpu_gives_the_cpu_s_pixels(family, photos):
    """To rounding; where a rounded value crosses a threshold (snow, spatter, JPEG's bytes), a few pixels differ."""
    corruption = Corruption(family, 2)
    there = corrupt(photos.cuda(), corruption, IDS.cuda())
    assert there.is_cuda
    difference = (there.cpu() - corrupt(photos, corruption, IDS)).abs()
    assert difference.median() < 1e-5
    assert difference.mean() < 1e-3


def test_families_draw_apart(photos):
    """Two kinds of noise on one image are independent, and so are the frost's angle and the blur's."""
    a, b = (uniform(torch.arange(50), 400, named_seed(0, name)).flatten() for name in ("snow", "frost"))
    assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 0.02
    assert named_seed(0, "snow") != named_seed(1, "snow")
    assert 0 <= named_seed(0, "snow") < 2**63
    with pytest.raises(ValueError, match=r"seed must be in .*; got -1"):
        named_seed(-1, "snow")


def test_uniform_draws_are_uniform():
    import scipy.stats

    drawn = uniform(torch.arange(40), 2001, seed=5).double()
    assert drawn.shape == (40, 2001)
    assert scipy.stats.kstest(drawn.flatten().numpy(), "uniform").pvalue > 1e-3
    assert float(drawn.min()) >= 0
    assert float(drawn.max()) < 1


# names


def test_groups_are_imagenet_c_s():
    groups = {group: [f for f in IMAGENET_C if CORRUPTION_FAMILIES[f].group == group] for group in GROUPS}
    assert groups == {
        "noise": ["gaussian_noise", "shot_noise", "impulse_noise"],
        "blur": ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur"],
        "weather": ["snow", "frost", "fog", "brightness"],
        "digital": ["contrast", "elastic_transform", "pixelate", "jpeg_compression"],
    }
    assert [CORRUPTION_FAMILIES[f].group for f in IMAGENET_C_EXTRA] == ["noise", "blur", "weather", "digital"]
    assert {family.group for family in CORRUPTION_FAMILIES.values()} == {"clean", *GROUPS}
    assert Corruption("fog", 2).group == "weather"


def test_severities_are_five():
    assert [c.key for c in severities("fog")] == [f"fog_{i}" for i in range(1, 6)]
    with pytest.raises(ValueError, match=r"only ImageNet-C's.*a deviation of at least 1 pixel"):
        severities("gaussian_blur")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("gausian_noise_2", r"did you mean gaussian_noise\?"),
        ("jpeg_2", r"did you mean jpeg_compression\?"),
        ("elastic_3", r"did you mean elastic_transform\?"),
        ("frost", "frost needs its level, an ImageNet-C severity, as in frost_1"),
        ("frost_7", "1 to 5; got 7: the nearest is frost_5"),
        ("frost_0", "1 to 5; got 0: the nearest is frost_1"),
        ("salt_and_pepper_101", "a percentage of pixels, 1 to 100; got 101: the nearest is salt_and_pepper_100"),
        ("box_blur_0", "the nearest is box_blur_1"),
        ("xyzzy_1", r"must be one of clean, gaussian_blur.*got 'xyzzy'$"),
    ],
)
def test_unknown_names_and_levels_suggest_the_nearest(key, message):
    with pytest.raises(ValueError, match=message):
        Corruption.parse(key)


@pytest.mark.parametrize("family", CORRUPTED)
def test_every_family_reads_back(family):
    corruption = Corruption(family, 3)
    assert Corruption.parse(corruption.key) == corruption
    assert corruption.title == f"{CORRUPTION_FAMILIES[family].title} 3"


def test_counts_have_no_stray_maximum():
    """A dark pixel never turns white: the sums' rounding stays below the largest uniform."""
    dark = torch.full((40, 3, 100, 100), 0.2)
    assert corrupt(dark, "shot_noise_1", torch.arange(40)).max() < 0.55  # 12 + 6 deviations, of 60


def test_defocus_wider_than_the_image_is_refused():
    with pytest.raises(ValueError, match=r"mirrors 10 pixels .* got 10x12"):
        corrupt(torch.rand(1, 3, 10, 12), "defocus_blur_5", torch.tensor([0]))


def test_rgb_is_needed():
    with pytest.raises(ValueError, match=r"fog_1 takes RGB images, .* got \(2, 1, 8, 8\)"):
        corrupt(torch.zeros(2, 1, 8, 8), "fog_1", torch.arange(2))
