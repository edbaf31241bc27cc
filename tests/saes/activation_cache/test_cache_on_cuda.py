"""On a GPU a cache holds what a CPU's holds; and nothing waits for a forward pass to know its images' labels."""

from __future__ import annotations

import pytest
import torch
from cache_contents import CORRUPTIONS, HOOKS

from mechvit.saes.activation_cache import shard_compute as compute
from mechvit.saes.activation_cache.manifest import DTYPES

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def rows_of(cache):
    return next(cache.in_order(10**6)).float()


@pytest.mark.gpu
@gpu
@pytest.mark.parametrize("tokens", ["all", "patches", "cls"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_match_a_cpus(make_cache, tiny_model, dtype, tokens):
    settings = {"hooks": HOOKS, "dtype": dtype, "tokens": tokens, "corruptions": CORRUPTIONS[:1]}
    expected = make_cache("cpu", **settings)
    found = make_cache("cuda", model=tiny_model.to("cuda"), **settings)
    assert all(torch.equal(values, expected.images()[name]) for name, values in found.images().items())
    tolerance = {"float32": 1e-4, "float16": 2e-3, "bfloat16": 1.6e-2}[dtype]
    torch.testing.assert_close(rows_of(found), rows_of(expected), rtol=tolerance, atol=tolerance)


@pytest.mark.gpu
@gpu
def test_a_captured_pass_gives_the_same_rows(make_cache, tiny_model):
    model = tiny_model.to("cuda")
    expected, found = make_cache("eager", model=model), make_cache("captured", model=model, compiled=True)
    torch.testing.assert_close(rows_of(found), rows_of(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
@gpu
def test_nan_is_named_on_a_gpu(make_cache, tiny_model):
    model = tiny_model.to("cuda")
    with torch.no_grad():
        model.blocks[0].mlp.b_out.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"batch 0, image \d+: .* not finite"):
        make_cache("nan", model=model)


def test_labels_are_fetched_before_the_forward_pass_is_queued(make_cache, tiny_model, tiny_images, monkeypatch):
    """Afterwards they would be there only when a GPU has done all of it."""
    plan, seen, cpu = make_cache().plan, [], torch.Tensor.cpu

    def fetch(tensor, *args, **options):
        seen.append("fetched")
        return cpu(tensor, *args, **options)

    def forward(pixels):
        seen.append("queued")
        return compute.run_to(tiny_model, pixels, plan.hooks)

    monkeypatch.setattr(torch.Tensor, "cpu", fetch)
    compute.compute_shard(tiny_model, tiny_images, plan, 0, seen.append, forward)
    assert [each for each in seen if isinstance(each, str)] == ["fetched", "queued"] * 2
