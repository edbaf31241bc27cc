"""The patch embedding as a matrix product, which a GPU runs, against torch's convolution and Hugging Face's models."""

from __future__ import annotations

import pytest
import torch
from family_runs import build, close, draw
from hypothesis import given, settings
from hypothesis import strategies as st
from zoo_options import daily

from mechvit.models.layers.embedding import PatchProjection


@settings(deadline=None, max_examples=40)
@given(
    size=st.integers(1, 6),
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    left_over=st.integers(0, 5),
    channels=st.integers(1, 4),
    batch=st.integers(1, 3),
    bias=st.booleans(),
    dtype=st.sampled_from([torch.float64, torch.float32]),
    channels_last=st.booleans(),
)
def test_product_is_the_convolution(size, rows, columns, left_over, channels, batch, bias, dtype, channels_last):
    patch = PatchProjection(channels, 7, size, stride=size, bias=bias).to(dtype)
    more = min(left_over, size - 1)
    pixels = torch.randn(batch, channels, rows * size + more, columns * size + more, dtype=dtype)
    if channels_last:
        pixels = pixels.to(memory_format=torch.channels_last)
    pixels.requires_grad_()
    wanted = torch.nn.functional.conv2d(pixels, patch.weight, patch.bias, stride=size)
    found = patch.product(pixels)
    tolerance = 1e-12 if dtype == torch.float64 else 2e-6
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)
    toward = torch.randn_like(wanted)
    inputs = [pixels, *patch.parameters()]
    for ours, theirs in zip(
        torch.autograd.grad(found, inputs, toward), torch.autograd.grad(wanted, inputs, toward), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=10 * tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("name", daily())
def test_every_family_gives_the_same_with_the_product(name, monkeypatch):
    """The output with the convolution is compared with Hugging Face elsewhere."""
    model = build(name, torch.float32)
    pixels = draw(dtype=torch.float32)
    with torch.no_grad():
        expected = model(pixels)
        monkeypatch.setattr(PatchProjection, "forward", PatchProjection.product)
        found = model(pixels)
    close(found, expected, 1e-6)


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (2, 3, 37, 44)])
def test_a_cpu_keeps_the_convolution_to_the_bit(shape):
    patch, pixels = PatchProjection(3, 16, 8, stride=8), torch.randn(shape)
    assert torch.equal(patch(pixels), torch.nn.functional.conv2d(pixels, patch.weight, patch.bias, stride=8))
    assert patch.product(pixels).shape == patch(pixels).shape
