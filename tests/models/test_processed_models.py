"""A processed model is converted, saved, loaded and given back as any other, or says why not."""

from __future__ import annotations

import pytest
import torch
from family_runs import build, draw
from hf_reference import run_reference
from hf_zoo import ZOO
from test_processing import STEPS, refused, valid_steps
from zoo_options import daily

from mechvit import HookedViT

every = pytest.mark.parametrize("name", daily())


@every
def test_processing_after_a_conversion_and_before(name):
    """To float64 and then processed, or processed and then to float64: the same up to float32's rounding."""
    steps = valid_steps(name)
    first = build(name, torch.float32).to(torch.float64).process_weights_(**steps)
    last = build(name, torch.float32).process_weights_(**steps).to(torch.float64)
    assert first.cfg == last.cfg
    assert first.cfg.dtype == torch.float64
    for key, tensor in first.state_dict().items():
        assert tensor.dtype == torch.float64
        torch.testing.assert_close(last.state_dict()[key], tensor, rtol=1e-6, atol=1e-6)
    assert first.process_weights_(**steps)(draw()).dtype == torch.float64


@pytest.mark.long
@every
def test_from_pretrained_processes_what_it_loads(name, tmp_path):
    entry, steps = ZOO[name], valid_steps(name)
    entry().save_pretrained(tmp_path)
    model = HookedViT.from_pretrained(tmp_path, "cpu", **steps, **entry.zero_shot_head())
    expected = build(name, torch.float32).process_weights_(**steps)
    assert model.cfg == expected.cfg
    assert model.cfg.processing == tuple(steps)
    assert list(model.state_dict()) == list(expected.state_dict())
    assert all(torch.equal(tensor, expected.state_dict()[key]) for key, tensor in model.state_dict().items())
    for step, reason in refused(name).items():
        with pytest.raises(ValueError, match=reason):
            HookedViT.from_pretrained(tmp_path, "cpu", **{step: True}, **entry.zero_shot_head())


@pytest.mark.long
@every
def test_to_hf_is_the_same_function_or_names_what_has_no_place(name):
    """Folding makes biases that some classes lack; the text embeddings of a zero-shot model are not given back."""
    text = ZOO[name].text_embeds(torch.float64)
    placeless = ZOO[name].family in ("beit", "data2vec-vision") or name == "clip zero-shot"
    for steps in [*({step: True} for step in valid_steps(name)), valid_steps(name)]:
        model = build(name).process_weights_(**steps)
        if placeless and "fold_ln" in steps:
            with pytest.raises(ValueError, match=r"no place for .*bias.*processing.*save_pretrained"):
                model.to_hf()
            continue
        theirs = run_reference(model.to_hf(), draw(), text_embeds=text)
        expected = theirs.last_hidden_state if theirs.logits is None else theirs.logits
        if text is not None and "center_unembed" in steps:
            expected = expected - expected.mean(-1, keepdim=True)
        torch.testing.assert_close(model(draw()).detach(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["siglip zero-shot", "siglip2 zero-shot"])
def test_the_constant_of_a_centred_zero_shot_head_goes_back(name, tmp_path):
    """Also through a file, and after centring twice."""
    model, expected = build(name), ZOO[name](torch.float64).state_dict()
    model.process_weights_(center_unembed=True).process_weights_(center_unembed=True).save_pretrained(tmp_path)
    for found in (model, HookedViT.from_pretrained(tmp_path, "cpu")):
        back = found.to_hf().state_dict()
        assert all(torch.equal(back[key], tensor) for key, tensor in expected.items())


def test_every_step_is_refused_somewhere_or_valid_everywhere():
    assert {step for name in ZOO for step in valid_steps(name)} == set(STEPS)
