from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hf_zoo import ZOO
from hypothesis import given
from hypothesis import strategies as st

from mechvit import HookedViT
from mechvit.analysis import attention_maps, attention_rollout, head_numbers
from mechvit.analysis.attention.maps import decode, encode

FAMILIES = ["vit classifier", "deit with teacher", "dinov2 classifier", "registers classifier", "dinov3 encoder"]
FAMILIES += ["ijepa classifier", "siglip zero-shot", "clip classifier", "beit classifier, shared bias"]


def numbers_by_loops(pattern: np.ndarray, grid: tuple[int, int], prefix: int) -> tuple[float, float, list[float]]:
    """Entropy, mean distance and prefix mass of one head, a weight at a time."""
    n = len(pattern)
    entropy = -sum(p * math.log(p) for row in pattern.tolist() for p in row if p > 0) / n
    means = []
    for q in range(prefix, n):
        place = divmod(q - prefix, grid[1])
        far = [math.dist(place, divmod(k - prefix, grid[1])) for k in range(prefix, n)]
        weights = pattern[q, prefix:].tolist()
        means.append(sum(w * d for w, d in zip(weights, far, strict=True)) / sum(weights))
    mass = [sum(pattern[q, k] for q in range(prefix, n)) / (n - prefix) for k in range(prefix)]
    return entropy, sum(means) / len(means), mass


@pytest.mark.parametrize(("grid", "prefix"), [((4, 4), 1), ((2, 5), 3), ((3, 3), 0)])
def test_head_numbers_match_loops(grid, prefix):
    n = prefix + grid[0] * grid[1]
    pattern = (3 * torch.randn(2, 3, n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(3))).softmax(-1)
    found = head_numbers(pattern, grid, prefix)
    for image in range(2):
        for head in range(3):
            entropy, distance, mass = numbers_by_loops(pattern[image, head].numpy(), grid, prefix)
            assert float(found.entropy[image, head]) == pytest.approx(entropy, rel=1e-12)
            assert float(found.distance[image, head]) == pytest.approx(distance, rel=1e-12)
            assert found.prefix_mass[image, head].tolist() == pytest.approx(mass, rel=1e-12)


def test_known_patterns_have_known_numbers():
    """A head on itself looks no distance away, and one on its right neighbour one patch."""
    still = torch.eye(4)[None, None]
    right = torch.eye(4).roll(1, 0).T[None, None]  # 0 -> 1, 1 -> 2, 2 -> 3, 3 -> 0
    assert float(head_numbers(still, (1, 4), 0).distance) == 0
    assert float(head_numbers(right, (1, 4), 0).distance) == pytest.approx((1 + 1 + 1 + 3) / 4)
    assert float(head_numbers(torch.full((1, 1, 4, 4), 0.25), (1, 4), 0).entropy) == pytest.approx(math.log(4))


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 8))
def test_a_byte_keeps_a_weight_to_four_thousandths_of_the_largest(seed, spread):
    logits = spread * np.random.default_rng(seed).normal(size=(2, 9, 9))
    pattern = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    codes, scale = encode(pattern)
    assert codes.dtype == np.uint8
    error = np.abs(decode(codes, scale) - pattern) / scale[:, None, None]
    assert error.max() <= 1 / 255
    small = pattern < 0.01 * scale[:, None, None]
    assert error[small].max(initial=0) <= 4.1e-4


@pytest.mark.parametrize("name", FAMILIES)
def test_maps_match_the_cache(name):
    entry = ZOO[name]
    model = HookedViT.from_hf(entry(), **entry.zero_shot_head())
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    _, cache = model.run_with_cache(pixels)
    found = attention_maps(model, pixels, layers=[2, 0], heads=[1], rollouts=[("mean", 0.0), ("max", 0.9)])
    assert len(found) == 2
    for image, maps in enumerate(found):
        assert maps.codes.shape == (2, 1, model.cfg.n_tokens, model.cfg.n_tokens)
        for place, layer in enumerate((2, 0)):
            pattern = cache["pattern", layer][image, 1].detach().double().numpy()
            decoded = decode(maps.codes[place, 0], maps.scale[place, 0])
            np.testing.assert_allclose(decoded, pattern, atol=pattern.max() / 250)
            entropy, distance, mass = numbers_by_loops(pattern, model.cfg.grid, model.cfg.n_prefix_tokens)
            assert maps.entropy[place, 0] == pytest.approx(entropy, rel=1e-5)
            assert maps.distance[place, 0] == pytest.approx(distance, rel=1e-5)
            assert maps.prefix_mass[place, 0].tolist() == pytest.approx(mass, rel=1e-5)
    for place, (fusion, ratio) in enumerate([("mean", 0.0), ("max", 0.9)]):
        whole = attention_rollout(model, pixels, fusion=fusion, discard_ratio=ratio)
        np.testing.assert_allclose(np.stack([maps.rollouts[place] for maps in found]), whole, atol=1e-7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": [3]}, r"layers must be one or more of 0 to 2, none twice; got \[3\]"),
        ({"heads": [0, 0]}, r"heads must be one or more of 0 to 1, none twice; got \[0, 0\]"),
        ({"layers": []}, r"layers must be one or more"),
        ({"rollouts": [("sum", 0.0)]}, "fusion must be one of"),
    ],
)
def test_maps_refuse_choices(tiny_model, options, message):
    with pytest.raises(ValueError, match=message):
        attention_maps(tiny_model, torch.zeros(1, 3, 32, 32), **options)
