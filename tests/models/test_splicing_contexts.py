"""Splicing SAEs in and out of a HookedViT: what is restored, what stays apart, and what is refused."""

from __future__ import annotations

import copy

import pytest
import torch
from random_saes import FIRST, RESID, Z, make_sae, replaced, stock_with_error
from sae_lens.saes.sae import SAEMetadata
from sae_lens.saes.transcoder import Transcoder, TranscoderConfig
from torch.nn import functional as F

from mechvit import HookedViT


@pytest.fixture
def model(make_hf):
    return HookedViT.from_hf(make_hf())


def test_contexts_nest_level_by_level(model, pixels):
    outer, inner, other = make_sae(), make_sae(seed=1), make_sae(name=FIRST, seed=2)
    names = list(model.hook_dict)
    untouched, alone = model(pixels), model.run_with_saes(pixels, saes=[outer])
    with model.saes(outer) as same:
        assert same is model
        with model.saes([inner, other]):
            assert model.acts_to_saes == {FIRST: other, RESID: inner}
            hooks = [(n, lambda x, hook, s=s: s.decode(s.encode(x))) for n, s in ((FIRST, other), (RESID, inner))]
            within = model(pixels)
        assert model.acts_to_saes == {RESID: outer}
        _, cache = model.run_with_cache(pixels)
        assert f"{RESID}.hook_sae_acts_post" in cache
        assert torch.equal(model(pixels), alone)
    assert torch.equal(within, model.run_with_hooks(pixels, fwd_hooks=hooks))
    assert torch.equal(model(pixels), untouched)
    assert list(model.hook_dict) == names


@pytest.mark.parametrize("where", ["context", "hook", "inner context"])
def test_an_exception_restores_the_very_hook_point(model, pixels, where):
    points = dict(model.hook_dict)
    calls = []
    model.add_hook(RESID, lambda x, hook: calls.append(hook.name), is_permanent=True)

    def fail(x, hook):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        if where == "hook":
            model.run_with_hooks_with_saes(pixels, saes=[make_sae()], fwd_hooks=[(f"{RESID}.hook_sae_input", fail)])
        with model.saes([make_sae(), make_sae(name=FIRST)]):
            if where == "context":
                raise KeyboardInterrupt
            with model.saes([make_sae(seed=1)]):
                raise KeyboardInterrupt
    assert list(model.hook_dict) == list(points)
    assert all(model.hook_dict[name] is point and point.name == name for name, point in points.items())
    calls.clear()
    model(pixels)
    assert calls == [RESID]


def test_hooks_that_were_there_fire_on_what_the_sae_reads(model, pixels):
    """No hook is put to sleep by a splice, and `reset_hooks` still finds it."""
    sae = make_sae()
    expected, _ = replaced(model, pixels, RESID, lambda x: sae.decode(sae.encode(2 * x)))
    without, _ = replaced(model, pixels, RESID, lambda x: sae.decode(sae.encode(x)))
    model.add_hook(RESID, lambda x, hook: 2 * x)
    model.add_sae(sae)
    torch.testing.assert_close(model(pixels), expected, rtol=0, atol=0)
    model.reset_hooks()
    torch.testing.assert_close(model(pixels), without, rtol=0, atol=0)


def test_adding_and_resetting(model, pixels):
    first, second = make_sae(), make_sae(name=FIRST)
    untouched = model(pixels)
    model.add_sae(make_sae(seed=3))
    model.add_sae(first, use_error_term=True)  # takes the place of the one before
    model.add_sae(second)
    assert model.acts_to_saes == {RESID: first, FIRST: second}
    model.reset_saes(FIRST)
    assert model.acts_to_saes == {RESID: first}
    assert (model(pixels) - untouched).abs().max() < 1e-5
    model.reset_saes([RESID])
    assert torch.equal(model(pixels), untouched)
    with pytest.raises(ValueError, match=r"No SAE is spliced in at 'blocks.1.hook_resid_post'"):
        model.reset_saes(RESID)
    with model.saes([first], reset_saes_end=False):
        pass
    assert model.acts_to_saes == {RESID: first}
    model.reset_saes()
    assert model.acts_to_saes == {}


def test_the_saes_own_setting_of_the_error_term_is_kept(model, pixels):
    untouched = model(pixels)
    assert (model.run_with_saes(pixels, saes=[stock_with_error(make_sae())]) - untouched).abs().max() < 1e-5
    off = model.run_with_saes(pixels, saes=[stock_with_error(make_sae())], use_error_term=False)
    assert (off - untouched).abs().max() > 1e-2


def test_one_sae_in_two_models(model, make_hf, pixels):
    """The SAE's hook points answer to the model that runs, in whatever order they are taken out."""
    sae, other = make_sae(), HookedViT.from_hf(make_hf())
    name = f"{RESID}.hook_sae_acts_post"
    model.add_sae(sae)
    other.add_sae(sae)
    other.reset_saes()
    assert list(model.run_with_cache(pixels, names_filter=name)[1]) == [name]
    model.reset_saes()
    _, cache = sae.run_with_cache(torch.randn(2, 32))
    assert set(cache) == set(sae.hook_dict) - {"hook_sae_error"}


def test_other_layers_stay_fused(model, pixels, monkeypatch):
    calls = []
    genuine = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or genuine(*a, **k))
    model.run_with_saes(pixels, saes=[make_sae(), make_sae(name=Z)])
    assert len(calls) == model.cfg.n_layers


def test_the_saes_weights_are_not_the_models(model):
    keys, weights = list(model.state_dict()), len(list(model.parameters()))
    saved = {key: value.clone() for key, value in model.to_hf().state_dict().items()}
    with model.saes([make_sae(), make_sae(name=FIRST)]):
        assert list(model.state_dict()) == keys
        assert len(list(model.parameters())) == weights
        spliced = model.to_hf().state_dict()
    assert spliced.keys() == saved.keys()
    assert all(torch.equal(spliced[key], saved[key]) for key in saved)


def test_a_spliced_model_can_be_copied(model, pixels):
    sae = make_sae()
    model.add_sae(sae)
    twin = copy.deepcopy(model)
    expected = model(pixels)
    model.reset_saes()
    assert twin.acts_to_saes[RESID] is not sae
    assert torch.equal(twin(pixels), expected)
    twin.reset_saes()
    assert torch.equal(twin(pixels), model(pixels))


def test_a_clean_pass_is_computed_only_when_something_watches(model, pixels, monkeypatch):
    sae, calls = make_sae(), []
    genuine = sae.encode
    monkeypatch.setattr(sae, "encode", lambda x: calls.append(1) or genuine(x))
    model.run_with_saes(pixels, saes=[sae], use_error_term=True)
    assert len(calls) == 1
    model.run_with_cache_with_saes(pixels, saes=[sae], use_error_term=True, names_filter=f"{RESID}.hook_sae_acts_post")
    assert len(calls) == 3


def transcoder():
    about = SAEMetadata(hook_name=FIRST, hook_name_out=RESID)
    return Transcoder(TranscoderConfig(d_in=32, d_out=32, d_sae=48, apply_b_dec_to_input=False, metadata=about))


REFUSED = {
    "a point that the model lacks": (
        lambda: [make_sae(name="blocks.9.hook_resid_post")],
        {},
        "no hook point 'blocks.9",
    ),
    "a point on request": (lambda: [make_sae(name="blocks.0.hook_mlp_in")], {}, r"set_use_hook_mlp_in\(True\)"),
    "no point": (lambda: [make_sae(name=None)], {}, r"Set sae.cfg.metadata.hook_name"),
    "another width": (
        lambda: [make_sae(d_in=24)],
        {},
        "d_in must be 32, the width at 'blocks.1.hook_resid_post'; got 24",
    ),
    "heads not joined": (lambda: [make_sae(name="blocks.0.attn.hook_q")], {}, "d_in must be 16"),
    "a pattern": (lambda: [make_sae(name="blocks.0.attn.hook_pattern", d_in=17)], {}, "holds no vectors"),
    "another dtype": (lambda: [make_sae(dtype="float64")], {}, r"got torch.float64. Call sae.to\("),
    "no weights": (lambda: [make_sae().to("meta")], {}, "must hold weights; it is on the meta device"),
    "one point twice": (
        lambda: [make_sae(), make_sae(seed=1)],
        {},
        "Only one SAE can stand at 'blocks.1.hook_resid_post'",
    ),
    "a transcoder": (lambda: [transcoder()], {}, "from 'blocks.0.hook_resid_post' to 'blocks.1.hook_resid_post'"),
    "no SAE": (lambda: ["sae.safetensors"], {}, "Only sae-lens SAEs can be spliced in; got str"),
    "unknown tokens": (lambda: [make_sae()], {"tokens": "registers"}, "got 'registers'"),
    "unknown tokens in the SAE": (lambda: [make_sae(hook_tokens="some")], {}, "got 'some'"),
    "tokens of a pooled point": (lambda: [make_sae(name="hook_head_input")], {"tokens": "cls"}, "outside the blocks"),
    "beyond the stop": (lambda: [make_sae()], {"stop_at_layer": 1}, "stop_at_layer=1 ends the run before"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_before_any_compute(model, pixels, case):
    saes, options, message = REFUSED[case]
    points, ran = dict(model.hook_dict), []
    model.embed.register_forward_pre_hook(lambda *args: ran.append(1))
    fitting = make_sae(name="blocks.2.hook_resid_post") if case != "beyond the stop" else make_sae(name=FIRST)
    with pytest.raises(ValueError, match=message):
        model.run_with_saes(pixels, saes=[fitting, *saes()], **options)
    if case not in ("one point twice", "beyond the stop"):
        with pytest.raises(ValueError, match=message):
            model.add_sae(saes()[0], **options)
    assert not ran
    assert dict(model.hook_dict) == points
    assert model.acts_to_saes == {}


def test_an_sae_of_an_sae_is_refused(model):
    model.add_sae(make_sae())
    with pytest.raises(ValueError, match=r"no hook point 'blocks.1.hook_resid_post.hook_sae_input'"):
        model.add_sae(make_sae(name=f"{RESID}.hook_sae_input"))
