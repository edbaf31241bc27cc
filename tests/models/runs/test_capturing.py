"""The compiled forward pass gives what the hooked one gives, whatever becomes of the compiler."""

from __future__ import annotations

import pytest
import torch
from hf_zoo import ZOO

from mechvit import HookedViT

KINDS = ["vit classifier", "beit classifier, all positions", "dinov2 classifier, swiglu", "dinov3 encoder"]
KINDS += ["clip classifier", "siglip zero-shot"]
NAMES = ["blocks.1.hook_resid_post", "blocks.0.attn.hook_pattern", "blocks.1.attn.hook_z"]


def build(name):
    return HookedViT.from_hf(ZOO[name](), **ZOO[name].zero_shot_head())


def draw(batch=4, dtype=torch.float32):
    return torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(dtype)


def assert_same(found, model, pixels, stop, tolerance=1e-5):
    with torch.no_grad():
        expected = model.run_with_cache(pixels, names_filter=list(found), stop_at_layer=stop)[1]
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=tolerance, atol=tolerance)
        assert not tensor.requires_grad
        assert not tensor.is_inference()


@pytest.mark.long
@pytest.mark.parametrize("name", [*KINDS[:2], *(pytest.param(name, marks=pytest.mark.slow) for name in KINDS[2:])])
def test_matches_run_with_cache(name):
    """Traced whole, and its operators decomposed, by torch's own compiler; the code generator is the slow test's."""
    model = build(name)
    cache = model.compile_cache(NAMES, stop_at_layer=2, batch_size=4, backend="aot_eager")
    found = cache(draw())
    assert cache.compiled
    assert set(found) == set(cache.names) == set(NAMES)
    assert_same(found, model, draw(), 2)
    again = cache(draw() + 1)
    assert_same(again, model, draw() + 1, 2)
    assert_same(found, model, draw(), 2)  # the first result is still what it was


@pytest.mark.long
def test_any_number_of_caches_can_be_compiled():
    model = build("vit classifier")
    for _ in range(10):
        cache = model.compile_cache(NAMES[1], stop_at_layer=1, batch_size=4, backend="eager")
        assert_same(cache(draw()), model, draw(), 1)
        assert cache.compiled


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit classifier", "dinov3 encoder"])
def test_matches_run_with_cache_once_compiled(name):
    model = build(name)
    cache = model.compile_cache(NAMES, stop_at_layer=2, batch_size=4)
    found = cache(draw())
    assert cache.compiled
    assert_same(found, model, draw(), 2, 1e-4)


def test_the_model_stays_as_it_was():
    model = build("vit classifier")
    points, before = set(model.hook_dict), model(draw())
    cache = model.compile_cache("hook_logits", batch_size=4, backend="eager")
    assert torch.equal(model(draw()), before)
    assert set(model.hook_dict) == points
    torch.testing.assert_close(cache(draw())["hook_logits"], before.detach())
    with torch.no_grad():
        model.head.bias += 1
    torch.testing.assert_close(cache(draw())["hook_logits"], before.detach() + 1)  # the weights are shared


def test_another_dtype_has_weights_of_its_own():
    model = build("vit classifier")
    cache = model.compile_cache("blocks.0.hook_resid_post", batch_size=4, dtype=torch.float64, backend="eager")
    found = cache(draw())["blocks.0.hook_resid_post"]
    assert found.dtype == torch.float64
    assert model.cfg.dtype == torch.float32
    assert_same({"blocks.0.hook_resid_post": found}, build("vit classifier").to(torch.float64), draw().double(), None)


def test_a_smaller_batch_runs_uncompiled():
    model, calls = build("vit classifier"), []

    def backend(graph, inputs):
        calls.append(inputs)
        return graph.forward

    cache = model.compile_cache(NAMES, stop_at_layer=2, batch_size=4, backend=backend)
    assert_same(cache(draw(3)), model, draw(3), 2)
    assert not calls
    cache(draw())
    assert len(calls) == 1
    cache(draw(1))
    cache(draw() * 2)
    assert len(calls) == 1, "compiled once"
    with pytest.raises(ValueError, match="batches of 4 images; got 5"):
        cache(draw(5))


def test_a_compiler_that_fails_is_named_and_left_out():
    model = build("vit classifier")

    def backend(graph, inputs):
        raise RuntimeError("no such chip")

    cache = model.compile_cache(NAMES, stop_at_layer=2, batch_size=4, backend=backend)
    with pytest.warns(UserWarning, match=r"runs uncompiled, since compiling failed \(.*no such chip"):
        found = cache(draw())
    assert not cache.compiled
    assert_same(found, model, draw(), 2)
    assert_same(cache(draw() + 1), model, draw() + 1, 2)


def test_full_batches_compile_once():
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    cache = build("vit classifier").compile_cache(NAMES, stop_at_layer=2, batch_size=4, backend=backend)
    for _ in range(3):
        cache(draw())
    assert len(compiled) == 1


@pytest.mark.parametrize("first", [False, True], ids=["once it ran", "at the first call"])
def test_want_of_memory_and_later_failures_are_raised(first):
    model, error = build("vit classifier"), torch.OutOfMemoryError if first else RuntimeError

    def backend(graph, inputs):
        def run(*args):
            if first or cache._ran:
                raise error("planted")
            return graph.forward(*args)

        return run

    cache = model.compile_cache(NAMES, stop_at_layer=2, batch_size=4, backend=backend)
    if not first:
        cache(draw())
    with pytest.raises(error, match="planted"):
        cache(draw())
    assert cache.compiled


@pytest.mark.long
def test_want_of_memory_while_compiling_is_raised():
    def backend(graph, inputs):
        raise torch.OutOfMemoryError("planted")

    cache = build("vit classifier").compile_cache(NAMES, stop_at_layer=2, batch_size=4, backend=backend)
    with pytest.raises(Exception, match="planted"):
        cache(draw())
    assert cache.compiled


def test_pixels_are_moved_to_the_models_device():
    cache = build("vit classifier").to("meta").compile_cache(NAMES, stop_at_layer=2, batch_size=4, backend="eager")
    assert {tensor.device.type for tensor in cache(draw()).values()} == {"meta"}
    assert {tensor.device.type for tensor in cache(draw(3)).values()} == {"meta"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["vit classifier", "dinov3 encoder"])
def test_cuda_graphs_give_the_same_and_keep_earlier_results(name):
    """The third call is the first that replays the graph, into the memory of the second."""
    model = build(name).to("cuda")
    cache = model.compile_cache(NAMES, stop_at_layer=2, batch_size=4)
    batches = [(draw() + i).to("cuda") for i in range(5)]
    found = [cache(pixels) for pixels in batches]
    assert cache.compiled
    for pixels, kept in zip(batches, found, strict=True):
        assert_same(kept, model, pixels, 2, 1e-4)
    assert_same(cache(batches[0][:3]), model, batches[0][:3], 2, 1e-4)
    half = model.compile_cache(NAMES[0], stop_at_layer=2, batch_size=4, dtype=torch.bfloat16)
    for pixels, exact in zip(batches, found, strict=True):
        resid, expected = half(pixels)[NAMES[0]], exact[NAMES[0]]
        assert resid.dtype == torch.bfloat16
        assert (resid.float() - expected).abs().max() <= 0.05 * expected.abs().max()


@pytest.mark.parametrize(
    ("names", "options", "reason"),
    [
        (["blocks.1.hook_resid_pots"], {}, "hook_resid_post"),
        (["hook_logits"], {"stop_at_layer": 2}, "stop_at_layer=2"),
        (NAMES, {"batch_size": 0}, "batch_size"),
        ("blocks.0.attn.hook_result", {}, "set_use_attn_result"),
    ],
    ids=["name", "beyond", "batch", "request"],
)
def test_bad_input_is_refused(names, options, reason):
    with pytest.raises(ValueError, match=reason):
        build("vit classifier").compile_cache(names, **{"batch_size": 4, **options})


def test_attached_hooks_are_refused():
    model = build("vit classifier")
    model.add_hook("blocks.0.hook_resid_post", lambda x, hook: x * 2)
    with pytest.raises(ValueError, match="does not run hooks"):
        model.compile_cache(NAMES, batch_size=4)
