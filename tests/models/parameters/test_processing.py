"""Processing keeps every family's function, does what it says to the weights, and refuses what would not."""

from __future__ import annotations

import pytest
import torch
from family_runs import BARE, CLASSIFIERS, DTYPES, LAYERS, build, close, draw, resid, run
from hf_zoo import ZOO
from torch.nn import functional as F
from transformer_lens import HookedTransformer, HookedTransformerConfig
from zoo_options import DAILY, daily

from mechvit.models.layers.attention import Attention
from mechvit.models.layers.block import LayerNorm
from mechvit.models.parameters.processing import process_weights

STEPS = ("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases")
RAW_STREAM = ("CLIPForImageClassification", "BeitModel", "BeitForMaskedImageModeling", "Data2VecVisionModel")

every = pytest.mark.parametrize("name", daily())
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def refused(name):
    """The steps that would change what a class of the zoo computes, and words of the reason."""
    entry, found = ZOO[name], {}
    if name in BARE:
        found["center_unembed"] = "has none"
    if entry.family.startswith("clip"):
        found["center_writing_weights"] = "ln_pre"
    elif entry.architecture in RAW_STREAM and entry.changes.get("use_mean_pooling", True):
        found["center_writing_weights"] = "without a LayerNorm"
    return found


def valid_steps(name):
    return {step: True for step in STEPS if step not in refused(name)}


def tolerance_of(name, dtype, resized=False):
    """1e-10 in float64, but 1e-6 where Hugging Face, and so we, pass the positions through float32 at any width."""
    through_float32 = ZOO[name].family.startswith("siglip2") or (resized and ZOO[name].family.startswith("dinov2"))
    return max(DTYPES[dtype], 1e-6 if through_float32 else 0)


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def centred(logits):
    return logits - logits.mean(-1, keepdim=True)


def assert_same_output(found, expected, steps, tolerance):
    """Logits, or a bare encoder's last hidden state; the logits less their mean once the head is centred."""
    if steps.get("center_unembed"):
        close(found.mean(-1), torch.zeros(len(found), dtype=found.dtype), tolerance)
        close(found.softmax(-1), expected.softmax(-1), tolerance)
        expected = centred(expected)
    close(found, expected, tolerance)


def cases():
    """All steps at once with every entry in float64; each step alone, and all in float32, with the daily ones."""
    for name in ZOO:
        every = valid_steps(name)
        for dtype, steps in (
            (torch.float64, every),
            (torch.float32, every),
            *((torch.float64, {s: True}) for s in every),
        ):
            first = (dtype, steps) == (torch.float64, every)
            marks = [] if name in DAILY else [pytest.mark.long if first else pytest.mark.slow]
            yield pytest.param(name, dtype, steps, id=f"{name}-{dtype}-{'+'.join(steps)}", marks=marks)


@pytest.mark.parametrize(("name", "dtype", "steps"), list(cases()))
def test_each_step_keeps_the_function(name, dtype, steps):
    plain, expected, before = run(name, dtype)
    model = build(name, dtype)
    assert model.process_weights_(**steps) is model
    assert model.cfg.processing == tuple(steps)
    tolerance, pixels = tolerance_of(name, dtype), draw(dtype=dtype)
    with torch.no_grad():
        assert_same_output(model(pixels), expected, steps, tolerance)
    logits, cache = model.run_with_cache(pixels)
    assert_same_output(logits, expected, steps, tolerance)
    for layer in range(LAYERS + 1):
        stream, wanted = resid(cache, layer), resid(before, layer)
        if "center_writing_weights" in steps:
            close(stream.mean(-1), torch.zeros(stream.shape[:-1], dtype=dtype), tolerance)
            wanted = centred(wanted)
        close(stream, wanted, tolerance)
        if layer < LAYERS:
            close(cache["pattern", layer], before["pattern", layer], tolerance)
    sizes = draw((24, 40), dtype=dtype)
    with torch.no_grad():
        elsewhere = [each(sizes, interpolate_pos_encoding=True) for each in (model, plain)]
    assert_same_output(*elsewhere, steps, tolerance_of(name, dtype, resized=True))


@every
def test_all_steps_together_leave_decompositions_exact(name):
    """Done once more, nothing is left to do but rounding."""
    model, steps = build(name), valid_steps(name)
    model.process_weights_(**steps)
    once, described = weights(model), model.cfg
    model.process_weights_(**steps)
    assert model.cfg == described
    assert list(once) == list(model.state_dict())
    for key, tensor in model.state_dict().items():
        close(tensor, once[key], 1e-12)
    logits, cache = model.run_with_cache(draw())
    close(cache.get_full_resid_decomposition().sum(0), cache["resid_post", -1])
    if name in CLASSIFIERS:
        for index in range(5):
            attrs = cache.logit_attrs(cache.decompose_resid(), index)
            close(attrs.sum((0, 2)) + cache.logit_bias(index), logits[:, index])
        close(model.unembed_residual(cache["resid_post", -1][:, model.head_tokens]), logits)


@every
def test_steps_one_after_the_other_are_in_any_order_the_same_function(name):
    model, order = build(name), (3, 2, 1, 0) if len(name) % 2 else (1, 3, 0, 2)
    steps = [STEPS[i] for i in order if STEPS[i] in valid_steps(name)]
    for step in steps:
        model.process_weights_(**{step: True})
    assert model.cfg.processing == tuple(steps)
    tolerance = tolerance_of(name, torch.float64)
    assert_same_output(model(draw()).detach(), run(name)[1], dict.fromkeys(steps, True), tolerance)


# What the weights are afterwards --------------------------------------------------------------------------------------


@every
def test_folded_layer_norms_have_gain_one_and_bias_zero(name):
    model = build(name)
    before = weights(model)
    model.process_weights_(fold_ln=True)
    assert model.cfg.normalization_type == "LNPre"
    folded = [ln for block in model.blocks for ln in (block.ln1, block.ln2)]
    if name in CLASSIFIERS:
        own = [module for module in model.modules() if isinstance(module, LayerNorm)]
        assert len(own) == 2 * LAYERS + (model.ln_final is not None) + ("attention" in model.cfg.pooling)
        folded = own
    for ln in folded:
        assert torch.equal(ln.w, torch.ones(32, dtype=torch.float64))
        assert torch.equal(ln.b, torch.zeros(32, dtype=torch.float64))
    kept = ["pooler.", "ln_final.", "ln_pre."] if name in BARE else ["ln_pre."]
    for key, tensor in model.state_dict().items():
        if key.startswith(("embed.", "carried.", *kept)):
            assert torch.equal(tensor, before[key]), key


@every
def test_folding_matches_loops_in_float64(name):
    """W'[out, in] = W[out, in] w[in] and b'[out] = b[out] + sum over in of W[out, in] b_ln[in]."""
    model, folded = build(name, torch.float32), build(name, torch.float32).process_weights_(fold_ln=True)
    for before, after in zip(model.blocks, folded.blocks, strict=True):
        readers = [(before.ln1, "attn", kind) for kind in "qkv"]
        readers += [(before.ln2, "mlp", kind) for kind in ("gate", "fc1") if getattr(before.mlp, kind) is not None]
        for ln, part, kind in readers:
            old, new = (getattr(getattr(block, part), kind) for block in (before, after))
            gain, offset = ln.w.double().tolist(), ln.b.double().tolist()
            for row in (0, old.out_features - 1):
                weight = old.weight[row].double().tolist()
                bias = 0.0 if old.bias is None else old.bias[row].item()
                close(new.weight[row].double(), torch.tensor([w * g for w, g in zip(weight, gain, strict=True)]), 1e-7)
                expected = bias + sum(w * b for w, b in zip(weight, offset, strict=True))
                assert abs(new.bias[row].item() - expected) < 1e-6


@pytest.mark.parametrize("name", daily(name for name in ZOO if "center_writing_weights" not in refused(name)))
@every_dtype
def test_everything_written_has_mean_zero_after_centring(name, dtype):
    """Patches, special tokens, registers, positions, attention and MLPs; and layer scales are folded."""
    model = build(name, dtype).process_weights_(center_writing_weights=True)
    _, cache = model.run_with_cache(draw(dtype=dtype))
    points = ["hook_embed", "hook_pos_embed"]
    points += [f"blocks.{i}.hook_{what}_out" for i in range(LAYERS) for what in ("attn", "mlp")]
    points += [f"blocks.{i}.hook_resid_{where}" for i in range(LAYERS) for where in ("pre", "mid", "post")]
    seen = [point for point in points if point in cache]
    assert len(seen) == len(points) - (model.cfg.positions != "learned")
    for point in seen:
        assert run(name, dtype)[2][point].mean(-1).abs().max() > 1e-3, "there was a mean to take out"
        means = cache[point].mean(-1)
        close(means, torch.zeros_like(means), tolerance_of(name, dtype) / 10)
    heads = cache.stack_head_results()
    close(heads.mean(-1), torch.zeros_like(heads[..., 0]), tolerance_of(name, dtype) / 10)
    for block in model.blocks:
        for module in (block.attn, block.mlp):
            assert (module.scale is not None) == model.cfg.layer_scale
            if module.scale is not None:
                assert torch.equal(module.scale, torch.ones_like(module.scale))


@every
def test_value_biases_are_zero_after_folding(name):
    model = build(name)
    had, before = model.b_V.abs().max() > 0, weights(model)
    model.process_weights_(fold_value_biases=True)
    assert torch.equal(model.b_V, torch.zeros_like(model.b_V))
    if not had:
        assert all(torch.equal(t, before[key]) for key, t in model.state_dict().items())
    if name in CLASSIFIERS:
        values = [module.b_V for module in model.modules() if isinstance(module, Attention)]
        assert len(values) == LAYERS + ("attention" in model.cfg.pooling)
        assert all(not value.any() for value in values), "the pooling head's, too"


@pytest.mark.parametrize("name", daily(CLASSIFIERS))
def test_a_centred_head_has_mean_zero(name):
    model = build(name).process_weights_(center_unembed=True)
    close(model.W_U.mean(1), torch.zeros(len(model.W_U), dtype=torch.float64))
    close(model.b_U.mean(), torch.zeros((), dtype=torch.float64))
    assert build(name).W_U.mean(1).abs().max() > 1e-2


@pytest.mark.filterwarnings("ignore:HookedTransformer is deprecated")
def test_processing_matches_transformer_lens():
    """All steps on a HookedTransformer with the same blocks and head.

    transformer-lens also subtracts from what reads a LayerNorm its mean over d_model, which changes nothing, as the
    normalised stream has mean zero. It computes in float32, hence the tolerance.
    """
    name = "vit classifier"
    model = build(name)
    shape = {"n_layers": LAYERS, "d_model": 32, "n_ctx": 17, "d_head": 16, "n_heads": 2, "d_mlp": 48, "d_vocab": 5}
    theirs = HookedTransformer(
        HookedTransformerConfig(**shape, act_fn="gelu", attention_dir="bidirectional", normalization_type="LN")
    ).double()
    parts = {"attn": ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V", "b_O"), "ln1": "wb", "ln2": "wb"}
    parts["mlp"] = ("W_in", "b_in", "W_out", "b_out")
    with torch.no_grad():
        for their, our in zip(theirs.blocks, model.blocks, strict=True):
            for part, names in parts.items():
                for key in names:
                    getattr(getattr(their, part), key).copy_(getattr(getattr(our, part), key))
        theirs.ln_final.w.copy_(model.ln_final.w)
        theirs.ln_final.b.copy_(model.ln_final.b)
        theirs.unembed.W_U.copy_(model.W_U)
        theirs.unembed.b_U.copy_(model.b_U)
        theirs.pos_embed.W_pos.copy_(model.embed.positions[0])
    steps = dict.fromkeys(STEPS, True)
    theirs.load_and_process_state_dict(theirs.state_dict(), **steps)
    model.process_weights_(**steps)
    for key in ("W_O", "b_O", "W_out", "b_out", "b_Q", "b_K", "b_V", "b_in", "b_U"):
        close(getattr(model, key), getattr(theirs, key).double(), 1e-6)
    for key in ("W_Q", "W_K", "W_V", "W_in"):
        ours = getattr(model, key)
        close(ours - ours.mean(-2, keepdim=True), getattr(theirs, key).double(), 1e-6)
    close(model.W_U - model.W_U.mean(0), theirs.W_U.double(), 1e-6)
    close(model.embed.positions[0], theirs.W_pos.double(), 1e-6)


# Refusals, and what stays ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in ZOO if refused(name)])
def test_an_invalid_step_raises_before_anything_changed(name):
    model = build(name)
    before, described = weights(model), model.cfg
    for step, reason in refused(name).items():
        for asked in ({step: True}, dict.fromkeys(STEPS, True), {"fold_ln": True, step: True}):
            with pytest.raises(ValueError, match=rf"{step if len(asked) < 4 else ''}.*{ZOO[name].architecture}"):
                model.process_weights_(**asked)
        with pytest.raises(ValueError, match=reason):
            model.process_weights_(**{step: True})
    assert model.cfg == described
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", ["clip classifier", "beit encoder, mean", "beit encoder, mean, no pooler"])
def test_what_is_refused_would_have_been_wrong(name):
    """Centring by hand changes the output of these, so the refusal is no excess of caution."""
    from mechvit.models.parameters import processing

    model = build(name)
    with torch.no_grad():
        processing._center_writing_weights(model)
    assert (model(draw()) - run(name)[1]).abs().max() > 1e-2


def test_no_step_changes_nothing():
    model = build("registers classifier, swiglu")
    before = weights(model)
    assert process_weights(model) is model
    assert model.cfg.processing == ()
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", ["siglip zero-shot", "dinov2 classifier, swiglu", "beit classifier, all positions"])
def test_a_processed_model_can_be_trained(name):
    model = build(name).process_weights_(**valid_steps(name))
    F.cross_entropy(model(draw()), torch.tensor([3, 0, 4, 1])).backward()
    for key, parameter in model.named_parameters():
        assert parameter.requires_grad
        unread = "attn.k.bias" in key and "pooler" in key
        assert unread or parameter.grad is not None, key
