"""Activations through SAEs spliced into a HookedViT, against stock `SAE.forward` and plain hooks."""

from __future__ import annotations

import pytest
import torch
from hf_zoo import ZOO
from random_saes import FIRST, KINDS, RESID, Z, make_sae, replaced, stock_with_error
from zoo_options import daily

from mechvit import HookedViT


@pytest.fixture
def model(make_hf):
    return HookedViT.from_hf(make_hf())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_with_the_error_term_the_logits_stay(model, pixels, kind, dtype, tolerance):
    model.to(dtype)
    pixels = pixels.to(dtype)
    sae = make_sae(kind, dtype=str(dtype).removeprefix("torch."))
    untouched = model(pixels)
    assert (model.run_with_saes(pixels, saes=[sae]) - untouched).abs().max() > 1e-2
    for logits in (
        model.run_with_saes(pixels, saes=[sae], use_error_term=True),
        model.run_with_hooks_with_saes(pixels, saes=(sae,), use_error_term=True),
        model.run_with_cache_with_saes(pixels, saes=sae, use_error_term=True)[0],
    ):
        assert (logits - untouched).abs().max() <= tolerance * max(1, untouched.abs().max())


@pytest.mark.parametrize("kind", KINDS)
def test_without_it_the_reconstruction_flows_on(model, pixels, kind):
    sae = make_sae(kind)
    expected, _ = replaced(model, pixels, RESID, lambda x: sae.decode(sae.encode(x)))
    torch.testing.assert_close(model.run_with_saes(pixels, saes=[sae]), expected, rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_saes_hook_points_are_cached(model, pixels, kind):
    sae = make_sae(kind)
    _, plain = model.run_with_cache(pixels, names_filter=RESID)
    _, everything = model.run_with_cache_with_saes(pixels, saes=[sae], use_error_term=True)
    assert RESID not in everything
    names = {f"{RESID}.{name}" for name in sae.hook_dict}
    assert names <= set(everything)
    _, cache = model.run_with_cache_with_saes(pixels, saes=[sae], use_error_term=True, names_filter=names)
    x = plain[RESID]
    torch.testing.assert_close(cache[f"{RESID}.hook_sae_input"], x, rtol=0, atol=0)
    acts = sae.encode(x)
    assert 0 < (acts > 0).double().mean() < 1
    torch.testing.assert_close(cache[f"{RESID}.hook_sae_acts_post"], acts, rtol=0, atol=0)
    torch.testing.assert_close(cache[f"{RESID}.hook_sae_error"], x - sae.decode(acts), rtol=0, atol=0)
    torch.testing.assert_close(cache[f"{RESID}.hook_sae_output"], x, rtol=1e-5, atol=1e-5)
    # One name alone, and only the tokens asked for.
    name = f"{RESID}.hook_sae_acts_post"
    _, cut = model.run_with_cache_with_saes(pixels, saes=[sae], names_filter=name, pos_slice=(0, 2), stop_at_layer=2)
    assert list(cut) == [name]
    torch.testing.assert_close(cut[name], acts[:, :2], rtol=0, atol=0)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(
    ("point", "error"),
    [
        *(
            (point, error)
            for point in ("input", "acts_pre", "acts_post", "recons", "output")
            for error in (False, True)
        ),
        ("error", True),
    ],
)
@pytest.mark.parametrize("kind", ["standard", "topk"])
def test_an_edit_inside_the_sae_acts_as_in_stock_sae_lens(model, pixels, kind, point, error, in_place):
    """The reference is sae-lens's own forward pass, whose error term ignores the edit."""
    sae, stock = make_sae(kind), make_sae(kind)

    def edit(x, hook):
        return x * 1.5 + 0.1

    def edit_in_place(x, hook):
        x.mul_(1.5).add_(0.1)

    stock.add_hook(f"hook_sae_{point}", edit)
    with torch.no_grad():
        forward = stock_with_error(stock) if error else stock
        expected, _ = replaced(model, pixels, RESID, forward)
        untouched = model.run_with_saes(pixels, saes=[sae], use_error_term=error)
        hooks = [(f"{RESID}.hook_sae_{point}", edit_in_place if in_place else edit)]
        logits = model.run_with_hooks_with_saes(pixels, saes=[sae], use_error_term=error, fwd_hooks=hooks)
        again = model.run_with_saes(pixels, saes=[sae], use_error_term=error)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    assert (logits - untouched).abs().max() > 1e-3
    assert torch.equal(again, untouched)


def test_ablating_a_latent_subtracts_its_decoder_row(model, pixels):
    """With the error term the edited residual is x - act * W_dec[latent], whatever the SAE fails to explain."""
    sae = make_sae()
    x = model.run_with_cache(pixels, names_filter=RESID)[1][RESID]
    acts = sae.encode(x)
    latent = int((acts > 0).float().mean((0, 1)).argmax())

    def ablate(acts, hook):
        acts[..., latent] = 0
        return acts

    with torch.no_grad(), model.saes([sae], use_error_term=True):
        hooks = [(f"{RESID}.hook_sae_acts_post", ablate)]
        logits = model.run_with_hooks(pixels, fwd_hooks=hooks)
    expected, _ = replaced(model, pixels, RESID, lambda x: x - acts[..., latent, None] * sae.W_dec[latent])
    assert (logits - model(pixels)).abs().max() > 1e-3
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


def test_gradients_are_those_of_stock_sae_lens(model, pixels, labels):
    """The error term passes no gradient; the SAE's latents get the loss's."""
    sae, stock = make_sae(), stock_with_error(make_sae())
    for error, forward in ((False, make_sae()), (True, stock)):
        grads = []
        for run in (
            lambda x, e=error: model.run_with_saes(x, "loss", labels=labels, saes=[sae], use_error_term=e),
            lambda x, f=forward: model.run_with_hooks(
                x, "loss", labels=labels, fwd_hooks=[(RESID, lambda r, hook: f(r))]
            ),
        ):
            x = pixels.clone().requires_grad_()
            grads.append(torch.autograd.grad(run(x), x)[0])
        assert grads[0].abs().max() > 1e-4
        torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-7)


def test_gradients_at_latents_are_cached(model, pixels, labels):
    sae = make_sae()
    name = f"{RESID}.hook_sae_acts_post"
    _, cache = model.run_with_cache_with_saes(
        pixels, "loss", labels=labels, saes=[sae], use_error_term=True, names_filter=name, incl_bwd=True
    )
    acts = cache[name].clone().requires_grad_()
    loss = model.run_with_hooks_with_saes(
        pixels, "loss", labels=labels, saes=[sae], use_error_term=True, fwd_hooks=[(name, lambda x, hook: acts)]
    )
    (expected,) = torch.autograd.grad(loss, acts)
    assert expected.abs().max() > 1e-5
    torch.testing.assert_close(cache[f"{name}_grad"], expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize(("tokens", "chosen"), [("patches", slice(1, None)), ("cls", slice(0, 1))])
@pytest.mark.parametrize("said_by", ["keyword", "metadata"])
def test_other_tokens_pass_unchanged(model, pixels, tokens, chosen, said_by):
    sae = make_sae(hook_tokens=tokens if said_by == "metadata" else "all")
    options = {"tokens": tokens} if said_by == "keyword" else {}

    def change(x):
        out = x.clone()
        out[:, chosen] = sae.decode(sae.encode(x[:, chosen]))
        return out

    with torch.no_grad():
        expected, x = replaced(model, pixels, RESID, change)
        names = [f"{RESID}.hook_sae_input", "blocks.2.hook_resid_pre"]
        logits, cache = model.run_with_cache_with_saes(pixels, saes=[sae], names_filter=names, **options)
        torch.testing.assert_close(logits, expected, rtol=0, atol=0)
        torch.testing.assert_close(cache[f"{RESID}.hook_sae_input"], x[:, chosen], rtol=0, atol=0)
        after = cache["blocks.2.hook_resid_pre"]
        assert torch.equal(after, change(x))
        assert not torch.equal(after, sae.decode(sae.encode(x)))  # as it would be with all tokens
        everything = model.run_with_saes(pixels, saes=[sae], tokens="all")
    assert (everything - expected).abs().max() > 1e-3


@pytest.mark.parametrize("error", [False, True])
def test_hook_z_with_heads_joined(model, pixels, error):
    sae = make_sae(name=Z)
    forward = stock_with_error(make_sae(name=Z)) if error else make_sae(name=Z)
    expected, z = replaced(model, pixels, Z, forward)
    assert z.shape == (4, 17, 2, 16)
    name = f"{Z}.hook_sae_input"
    logits, cache = model.run_with_cache_with_saes(pixels, saes=[sae], use_error_term=error, names_filter=name)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(cache[name], z.flatten(2), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "d_in"),
    [
        ("hook_embed", 32),
        ("blocks.0.hook_resid_pre", 32),
        ("blocks.0.attn.hook_q", 16),
        (Z, 16),
        ("blocks.1.hook_attn_out", 32),
        ("blocks.1.mlp.hook_pre", 64),
        ("blocks.1.mlp.hook_post", 64),
        ("blocks.2.ln1.hook_normalized", 32),
        ("ln_final.hook_normalized", 32),
        ("hook_head_input", 32),
        ("hook_logits", 5),
    ],
)
def test_every_kind_of_point_takes_an_sae(model, pixels, name, d_in):
    sae = make_sae(name=name, d_in=d_in)
    expected, _ = replaced(model, pixels, name, lambda x: sae.decode(sae.encode(x)))
    torch.testing.assert_close(model.run_with_saes(pixels, saes=[sae]), expected, rtol=0, atol=0)
    assert (model.run_with_saes(pixels, saes=[sae], use_error_term=True) - model(pixels)).abs().max() < 1e-5


@pytest.mark.parametrize("entry", daily())
def test_every_point_of_every_family_takes_an_sae(entry, pixels):
    """With SAEs at all points at once and the error term, each is run and the output stays."""
    hf_model = ZOO[entry](torch.float64)
    model = HookedViT.from_hf(hf_model, **ZOO[entry].zero_shot_head(torch.float64))
    pixels = pixels.double()
    with torch.no_grad():
        output, cache = model.run_with_cache(pixels, return_cache_object=False)
        vectors = {n: x for n, x in cache.items() if not n.endswith(("hook_scale", "hook_attn_scores", "hook_pattern"))}
        saes = [make_sae("jumprelu", n, x.shape[-1], "float64") for n, x in vectors.items() if not n.endswith("hook_z")]
        saes += [
            make_sae("topk", n, x.shape[-2:].numel(), "float64") for n, x in vectors.items() if n.endswith("hook_z")
        ]
        assert len(saes) == len(vectors) > 30
        with model.saes(saes, use_error_term=True):
            spliced, inside = model.run_with_cache(pixels, return_cache_object=False)
    assert {f"{name}.hook_sae_acts_post" for name in vectors} <= set(inside)
    torch.testing.assert_close(spliced, output, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("entry", daily())
def test_tokens_of_every_family(entry, pixels):
    """CLS is the first token where there is one, and the last ones are the patches, one each."""
    model = HookedViT.from_hf(ZOO[entry](), **ZOO[entry].zero_shot_head())
    n_patches = (model.cfg.image_size // model.cfg.patch_size) ** 2
    for name in ("hook_embed", RESID):
        sae, point = make_sae(name=name), f"{name}.hook_sae_input"
        whole = model.run_with_cache(pixels, names_filter=name, return_cache_object=False)[1][name]

        def read(tokens, sae=sae, point=point):
            options = {"names_filter": point, "return_cache_object": False}
            return model.run_with_cache_with_saes(pixels, saes=[sae], tokens=tokens, **options)[1][point]

        torch.testing.assert_close(read("patches"), whole[:, -n_patches:], rtol=0, atol=0)
        if model.cfg.cls_token:
            torch.testing.assert_close(read("cls"), whole[:, :1], rtol=0, atol=0)
        else:
            with pytest.raises(ValueError, match=r'has no CLS. Use tokens="all"'):
                read("cls")


def test_two_saes_at_two_points(model, pixels):
    first, second = make_sae(name=FIRST), make_sae("topk", name=RESID, seed=1)
    hooks = [(name, lambda x, hook, s=sae: s.decode(s.encode(x))) for name, sae in ((FIRST, first), (RESID, second))]
    expected = model.run_with_hooks(pixels, fwd_hooks=hooks)
    with model.saes([first, second]):
        assert model.acts_to_saes == {FIRST: first, RESID: second}
        torch.testing.assert_close(model(pixels), expected, rtol=0, atol=0)
    assert model.acts_to_saes == {}
