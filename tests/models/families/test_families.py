"""Every supported class of every family computes what Hugging Face computes, and returns to the same checkpoint."""

from __future__ import annotations

import functools
import json
from itertools import pairwise

import pytest
import torch
from hf_reference import cut_into_patches, run_reference, vision_encoder, vision_inputs
from hf_zoo import FULL_SIZE, ZOO
from torch.nn import functional as F
from transformers.models.siglip2.image_processing_pil_siglip2 import convert_image_to_patches
from zoo_options import daily, daily_but, exact

from mechvit import HookedViT
from mechvit.models.families.supported import FAMILIES

pytestmark = pytest.mark.filterwarnings("error::UserWarning")
every = pytest.mark.parametrize("name", exact())
SIZES = [(24, 40), (32, 32), (16, 64)]  # the last has as many patches as the second
WIDE_DTYPES = {torch.float32: 1e-5, torch.float64: 1e-10}


def close(found, expected, tolerance):
    """Agree to `tolerance`, absolute below 1 and relative above: streams reach 10, where float32 steps by 1e-6."""
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def draw(size=(32, 32), batch=4, dtype=torch.float32):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(dtype)


def convert(entry, hf_model):
    return HookedViT.from_hf(hf_model, **entry.zero_shot_head(hf_model.dtype))


@functools.cache
def built(name, dtype):
    """Return a Hugging Face model and its HookedViT, for tests that leave both as they are."""
    hf_model = ZOO[name](dtype)
    return hf_model, convert(ZOO[name], hf_model)


@functools.cache
def wide(name, dtype):
    """Return the Hugging Face model of a half dtype with the same weights in float64."""
    hf_model = ZOO[name](torch.float64)
    hf_model.load_state_dict(built(name, dtype)[0].state_dict())
    return hf_model


def output(reference):
    return reference.last_hidden_state if reference.logits is None else reference.logits


def streams(cache, model):
    return [cache["resid_pre", 0], *(cache["resid_post", layer] for layer in range(model.cfg.n_layers))]


def is_resid(name):
    return name.endswith(("hook_resid_pre", "hook_resid_post"))


def test_every_supported_class_is_tested():
    supported = {(family.name, name) for family in FAMILIES.values() for name in family.architectures}
    model_types = {model_type: family.name for family in FAMILIES.values() for model_type in family.model_types}
    assert {(model_types[entry.family], entry.architecture) for entry in ZOO.values()} == supported
    assert {entry.family for entry in ZOO.values()} == set(model_types)
    assert {model_types[entry.family] for entry in FULL_SIZE.values()} == set(FAMILIES)


@every
def test_reference_is_hugging_faces_own(name):
    """The streams are its hidden states, whose blocks map one to the next; patterns are distributions."""
    entry, pixels = ZOO[name], draw()
    hf_model, text = entry(), entry.text_embeds()
    theirs = {kind: run_reference(hf_model, pixels, attention=kind, text_embeds=text) for kind in ("sdpa", "eager")}
    theirs["exact"] = run_reference(hf_model, pixels, attention="exact", text_embeds=text)
    assert theirs["sdpa"].attentions is None
    assert output(theirs["sdpa"]).std(0).max() > 0.1, "images differ"
    for kind in ("eager", "exact"):
        close(output(theirs[kind]), output(theirs["sdpa"]), 1e-5)
        assert len(theirs[kind].attentions) == 3
        for pattern in theirs[kind].attentions:
            close(pattern.sum(-1), torch.ones(pattern.shape[:-1]), 1e-5)
            assert pattern.std() > 0.01, "not uniform"
    encoder = vision_encoder(hf_model)
    if entry.family == "vit_mae":
        encoder.config.mask_ratio = 0.0
    with torch.no_grad():
        own = encoder(**vision_inputs(encoder.config, pixels, False), output_hidden_states=True)
    ours = theirs["sdpa"].hidden_states
    assert len(ours) == len(own.hidden_states) == 4
    assert all(torch.equal(stream, expected) for stream, expected in zip(ours, own.hidden_states, strict=True))
    assert all((a - b).abs().max() > 0.1 for a, b in pairwise(ours))


@pytest.mark.parametrize("name", [name for name, entry in ZOO.items() if entry.zero_shot])
def test_reference_similarity_is_that_of_hugging_faces_forward(name):
    hf_model, pixels, words = ZOO[name](), draw(), torch.tensor([[0, 7, 9, 2], [0, 4, 5, 2], [0, 3, 8, 2]])
    with torch.no_grad():
        text = hf_model.get_text_features(words).pooler_output
        inputs = vision_inputs(vision_encoder(hf_model).config, pixels, False)
        expected = hf_model(input_ids=words, **inputs).logits_per_image
    assert expected.shape == (4, 3)
    close(run_reference(hf_model, pixels, text_embeds=text).logits, expected, 1e-6)


def test_reference_cuts_patches_as_siglip2s_image_processor():
    pixels = draw((24, 40))
    expected = [torch.from_numpy(convert_image_to_patches(image.numpy(), 8)) for image in pixels]
    assert torch.equal(cut_into_patches(pixels, 8), torch.stack(expected))


@every
@pytest.mark.parametrize("dtype", WIDE_DTYPES, ids=str)
def test_logits_and_hidden_states_match_hugging_face(name, dtype):
    entry, pixels = ZOO[name], draw(dtype=dtype)
    hf_model, model = built(name, dtype)
    theirs, tolerance = run_reference(hf_model, pixels, text_embeds=entry.text_embeds(dtype)), WIDE_DTYPES[dtype]
    close(model(pixels), output(theirs), tolerance)
    out, fused = model.run_with_cache(pixels, names_filter=is_resid)
    close(out, output(theirs), tolerance)
    explicit_out, explicit = model.run_with_cache(pixels)  # explicit softmax and LayerNorm everywhere
    close(explicit_out, output(theirs), tolerance)
    for cache in (fused, explicit):
        for found, expected in zip(streams(cache, model), theirs.hidden_states, strict=True):
            close(found, expected, tolerance)


@every
@pytest.mark.parametrize("dtype", WIDE_DTYPES, ids=str)
def test_patterns_match_hugging_face(name, dtype):
    pixels, (hf_model, model) = draw(dtype=dtype), built(name, dtype)
    theirs = run_reference(hf_model, pixels, attention="eager" if dtype == torch.float32 else "exact")
    _, cache = model.run_with_cache(pixels, names_filter=lambda point: point.endswith("hook_pattern"))
    assert model.cfg.n_layers == len(theirs.attentions)
    for layer, expected in enumerate(theirs.attentions):
        close(cache["pattern", layer], expected, WIDE_DTYPES[dtype])


@pytest.mark.parametrize("name", daily())
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("watched", [False, True], ids=["fused", "explicit"])
def test_half_precision_errs_no_more_than_hugging_face(name, dtype, watched):
    """Against float64 with the same weights, at most twice the error of Hugging Face in the same dtype."""
    entry, pixels = ZOO[name], draw(batch=8).to(dtype)
    (hf_half, model), text = built(name, dtype), entry.text_embeds(dtype)
    exact = run_reference(wide(name, dtype), pixels.double(), text_embeds=None if text is None else text.double())
    theirs = run_reference(hf_half, pixels, attention="eager" if watched else "sdpa", text_embeds=text)
    out, cache = model.run_with_cache(pixels, names_filter=None if watched else is_resid)
    triples = [(out, output(theirs), output(exact))]
    triples += list(zip(streams(cache, model), theirs.hidden_states, exact.hidden_states, strict=True))
    for found, same_dtype, truth in triples:
        assert found.dtype == dtype
        error, allowed = (found.double() - truth).abs().max(), (same_dtype.double() - truth).abs().max()
        assert error <= 2 * allowed
        assert error < 0.05 * truth.abs().max()


def comparable(config):
    """A config as JSON, without what says how rather than what."""

    def strip(value):
        if not isinstance(value, dict):
            return value
        left_out = ("architectures", "dtype", "transformers_version", "_name_or_path")
        return {key: strip(item) for key, item in value.items() if key not in left_out}

    return json.dumps(strip(config.to_dict()), sort_keys=True)


def assert_same_checkpoint(found, expected):
    assert type(found) is type(expected)
    theirs, ours = expected.state_dict(), found.state_dict()
    assert ours.keys() == theirs.keys()
    for key, tensor in theirs.items():
        assert ours[key].dtype == tensor.dtype, key
        assert torch.equal(ours[key], tensor), key
    assert comparable(found.config) == comparable(expected.config)


@pytest.mark.parametrize(("name", "dtype"), daily_but(torch.float64, [torch.bfloat16]))
def test_to_hf_returns_the_same_checkpoint(name, dtype):
    entry, pixels = ZOO[name], draw(dtype=dtype)
    hf_model, text = entry(dtype), entry.text_embeds(dtype)
    back = convert(entry, hf_model).to_hf()
    assert_same_checkpoint(back, hf_model)
    found, expected = (run_reference(model, pixels, text_embeds=text) for model in (back, hf_model))
    assert torch.equal(output(found), output(expected)), "buffers too are the same"


@every
def test_from_pretrained_reads_what_save_pretrained_wrote(name, tmp_path):
    entry, pixels = ZOO[name], draw()
    hf_model = entry()
    hf_model.save_pretrained(tmp_path)
    model = HookedViT.from_pretrained(tmp_path, device="cpu", **entry.zero_shot_head())
    assert torch.equal(model(pixels), convert(entry, hf_model)(pixels))
    assert_same_checkpoint(model.to_hf(), hf_model)


@pytest.mark.parametrize("name", exact(name for name in ZOO if "classifier" not in name and "shot" not in name))
@pytest.mark.parametrize("dtype", WIDE_DTYPES, ids=str)
def test_pooler_matches_hugging_face(name, dtype):
    entry, pixels, (hf_model, model) = ZOO[name], draw(dtype=dtype), built(name, dtype)
    theirs = run_reference(hf_model, pixels)
    if theirs.logits is not None:
        assert entry.architecture == "DeiTForImageClassificationWithTeacher"
    elif theirs.pooler_output is None or torch.equal(theirs.pooler_output, theirs.last_hidden_state[:, 0]):
        assert model.pooler is None, "it has no weights"
    else:
        close(model.pooler(theirs.last_hidden_state), theirs.pooler_output, WIDE_DTYPES[dtype])


@pytest.mark.parametrize(("name", "size"), daily_but(SIZES[0], SIZES[1:]))
def test_other_image_sizes_match_hugging_face(name, size):
    """In float64. SigLIP 2 alone to 1e-5: Hugging Face resizes its positions by weights taken in float32."""
    entry, pixels = ZOO[name], draw(size, dtype=torch.float64)
    (hf_model, model), text = built(name, torch.float64), entry.text_embeds(torch.float64)
    theirs = run_reference(hf_model, pixels, interpolate=True, text_embeds=text)
    tolerance = 1e-5 if entry.family.startswith("siglip2") and size != (32, 32) else 1e-10
    close(model(pixels, interpolate_pos_encoding=True), output(theirs), tolerance)
    out, cache = model.run_with_cache(pixels, interpolate_pos_encoding=True)
    close(out, output(theirs), tolerance)
    for found, expected in zip(streams(cache, model), theirs.hidden_states, strict=True):
        close(found, expected, tolerance)
    if size == (32, 32):
        close(model(pixels), output(theirs), tolerance)
    else:
        with pytest.raises(ValueError, match="interpolate_pos_encoding"):
            model(pixels)


@pytest.mark.parametrize("name", exact(name for name, entry in ZOO.items() if not entry.family.startswith("siglip2")))
def test_pixels_beyond_the_last_whole_patch_are_left_out_as_by_hugging_face(name):
    entry, pixels = ZOO[name], draw((37, 47), dtype=torch.float64)
    (hf_model, model), text = built(name, torch.float64), entry.text_embeds(torch.float64)
    theirs = run_reference(hf_model, pixels, interpolate=True, text_embeds=text)
    close(model(pixels, interpolate_pos_encoding=True), output(theirs), 1e-10)


@pytest.mark.parametrize(("name", "watched"), daily_but(False, [True]))
def test_loss_and_its_gradient_match_hugging_face(name, watched):
    """A bare encoder's is a fixed random projection of what it returns."""
    entry, labels = ZOO[name], torch.tensor([3, 0, 4, 1])
    (hf_model, model), text = built(name, torch.float64), entry.text_embeds(torch.float64)
    ours, theirs = (draw(dtype=torch.float64).requires_grad_() for _ in range(2))
    reference = run_reference(hf_model, theirs, text_embeds=text)
    hooks = [(lambda point: True, lambda tensor, hook: None)] if watched else []
    with model.hooks(fwd_hooks=hooks):
        if reference.logits is None:
            out = model(ours)
            towards = torch.randn(out.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
            loss, expected = (out * towards).mean(), (reference.last_hidden_state * towards).mean()
        else:
            loss, expected = model(ours, "loss", labels=labels), F.cross_entropy(reference.logits, labels)
    close(loss, expected, 1e-9)
    loss.backward(inputs=[ours])  # the models are others' too: their weights take no gradient
    expected.backward(inputs=[theirs])
    assert theirs.grad.abs().max() > 1e-4
    close(ours.grad, theirs.grad, 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL_SIZE)
def test_full_size_matches_hugging_face(name):
    """ViT-B/16's shape in float32, to 1e-5 of the largest value: rounding grows with what is added up."""
    entry = FULL_SIZE[name]
    hf_model, pixels, text = entry(), draw((224, 224), batch=1), entry.text_embeds()
    theirs = run_reference(hf_model, pixels, attention="eager", text_embeds=text)
    model = convert(entry, hf_model)
    assert (model.cfg.d_model, model.cfg.n_layers, model.cfg.grid) == (768, 12, (14, 14))
    out, cache = model.run_with_cache(pixels, names_filter=lambda point: is_resid(point) or "pattern" in point)
    pairs = [(model(pixels), output(theirs)), (out, output(theirs))]
    pairs += zip(streams(cache, model), theirs.hidden_states, strict=True)
    pairs += [(cache["pattern", layer], pattern) for layer, pattern in enumerate(theirs.attentions)]
    assert len(pairs) == 2 + 13 + 12
    for found, expected in pairs:
        assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
