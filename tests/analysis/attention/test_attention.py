import dataclasses

import numpy as np
import pytest
import scipy.stats
import torch

from mechvit.analysis import attention_entropy, attention_shift
from mechvit.analysis.attention.capture import pattern_entropy, pattern_shift


@pytest.fixture(scope="module")
def patterns() -> tuple[torch.Tensor, torch.Tensor]:
    """Two sets of patterns, sharp and spread, some entries exactly 0."""
    generator = torch.Generator().manual_seed(0)
    clean = (6 * torch.randn(3, 4, 9, 9, generator=generator)).softmax(-1)
    corrupted = (2 * torch.randn(3, 4, 9, 9, generator=generator)).softmax(-1)
    clean[0, 1, 2] = torch.eye(9)[4]
    return clean, corrupted


def loop(function, *patterns: torch.Tensor) -> np.ndarray:
    """Average a function of rows over heads and queries, in float64, row by row."""
    arrays = [p.double().numpy() for p in patterns]
    batch, heads, queries, _ = arrays[0].shape
    values = [
        [function(*(a[b, h, q] for a in arrays)) for h in range(heads) for q in range(queries)] for b in range(batch)
    ]
    return np.mean(values, axis=1)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def squared(a: np.ndarray, b: np.ndarray) -> float:
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def test_entropy_matches_scipy(patterns):
    for pattern in patterns:
        np.testing.assert_allclose(pattern_entropy(pattern), loop(scipy.stats.entropy, pattern), atol=1e-6)


def test_entropy_keeps_its_argument(patterns):
    before = patterns[0].clone()
    pattern_entropy(patterns[0])
    assert torch.equal(before, patterns[0])


def test_shift_matches_float64_loop(patterns):
    clean, corrupted = patterns
    found = pattern_shift(clean, corrupted, torch.linalg.vector_norm(clean, dim=-1))
    np.testing.assert_allclose(found[0], loop(cosine, clean, corrupted), atol=1e-6)
    np.testing.assert_allclose(found[1], loop(squared, clean, corrupted), atol=1e-6)


def test_shift_keeps_its_digits_for_near_equals(patterns):
    clean, other = (p.double() for p in patterns)
    near = clean + 1e-4 * (other - clean)
    exact = 1 - loop(cosine, clean, near)
    c32, n32 = clean.float(), near.float()
    found = pattern_shift(c32, n32, torch.linalg.vector_norm(c32, dim=-1))[0]
    assert exact.max() < 1e-7
    np.testing.assert_allclose(1 - found.double().numpy(), exact, atol=1.2e-7)
    assert pattern_shift(clean, clean, torch.linalg.vector_norm(clean, dim=-1))[0].tolist() == pytest.approx([1] * 3)


@pytest.mark.long
@pytest.mark.parametrize("key", ["gaussian_blur_2", "gaussian_noise_4"])
def test_attention_shift_matches_hugging_face(tiny_model, batch, hf_pass, key):
    """scipy and float64 loops on Hugging Face's eager attentions."""
    clean, corrupted = hf_pass("clean")[2], hf_pass(key)[2]
    shift = attention_shift(tiny_model, batch, key)
    assert shift.entropy.shape == (24, 3)
    for layer in range(3):
        before, after = clean[layer], corrupted[layer]
        for found, expected in (
            (shift.entropy_clean, loop(scipy.stats.entropy, before)),
            (shift.entropy, loop(scipy.stats.entropy, after)),
            (shift.entropy_difference, loop(scipy.stats.entropy, after) - loop(scipy.stats.entropy, before)),
            (shift.cosine, loop(cosine, before, after)),
            (shift.squared_difference, loop(squared, before, after)),
        ):
            np.testing.assert_allclose(found[:, layer], expected, atol=2e-5)
    assert shift.entropy_difference.abs().max() > 0.01
    assert shift.cosine.min() < 0.99


def test_attention_entropy_is_the_shift_s(tiny_model, tiny_images):
    shift = attention_shift(tiny_model, tiny_images, "gaussian_noise_2", batch_size=5)
    for key, expected in (("clean", shift.entropy_clean), ("gaussian_noise_2", shift.entropy)):
        found = attention_entropy(tiny_model, tiny_images, key)
        torch.testing.assert_close(found.entropy, expected, atol=1e-5, rtol=0)
    assert list(found.to_frame(model="m").columns) == ["model", "image_id", "layer", "entropy"]


def test_attention_shift_invariant_to_batch_size(tiny_model, tiny_images):
    whole = attention_shift(tiny_model, tiny_images, "gaussian_noise_4", batch_size=24)
    parts = attention_shift(tiny_model, tiny_images, "gaussian_noise_4", batch_size=7)
    for field in dataclasses.fields(whole):
        torch.testing.assert_close(getattr(parts, field.name), getattr(whole, field.name), atol=1e-5, rtol=1e-5)


def test_clean_shift_is_none(tiny_model, batch):
    shift = attention_shift(tiny_model, batch, "clean")
    assert shift.entropy_difference.abs().max() < 1e-6
    assert shift.squared_difference.max() < 1e-10
    torch.testing.assert_close(shift.cosine, torch.ones(24, 3), atol=1e-6, rtol=0)
