"""Analyses that share one pass of two models: each equals its own pass bit for bit, and each model runs once."""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from typing import Any

import pandas as pd
import pytest
import torch
from family_runs import build
from shifted_models import shifted

from mechvit import HookedViT
from mechvit.analysis import attention_change, behaviour_change, compare_lenses, evaluate, residual_cosine
from mechvit.analysis.attention.attention_change import AttentionMeasurement
from mechvit.analysis.behaviour.behaviour_change import BehaviourMeasurement
from mechvit.analysis.inputs import pixel_values
from mechvit.analysis.lenses.comparison import LensMeasurement
from mechvit.analysis.representations.residual_cosine import CosineMeasurement
from mechvit.analysis.shared_pass import PassBatch, PassMeasurement, run_together
from mechvit.data import ImageBatch
from mechvit.models import graft_head

CONDITIONS = ("clean", "gaussian_noise_2")


@pytest.fixture
def tuned(tiny_model) -> HookedViT:
    return shifted(copy.deepcopy(tiny_model), 0.2)


@pytest.fixture
def runs(tiny_model, tuned):
    """Number of images that each model's first block has seen."""
    seen: Counter[str] = Counter()
    for name, model in (("base", tiny_model), ("tuned", tuned)):

        def count(resid, hook, name=name):
            seen[name] += len(resid)

        model.add_hook("blocks.0.hook_resid_pre", count)
    return seen


def measured(base, tuned, images) -> list[Any]:
    return [
        BehaviourMeasurement(base, tuned, images),
        CosineMeasurement(base, tuned),
        LensMeasurement("base", base, {"logit": None}, images),
        LensMeasurement("tuned", tuned, {"logit": None}, images),
        AttentionMeasurement(base, tuned),
    ]


def check_equal(found: list[Any], base, tuned, images, **settings) -> None:
    """Compare results of a shared pass with those of each analysis alone."""
    behaviour, cosine, *lenses, attention = (each.result() for each in found)
    pd.testing.assert_frame_equal(
        behaviour.images, behaviour_change(base, tuned, images, CONDITIONS, **settings).images, check_exact=True
    )
    alone = residual_cosine(base, tuned, images, CONDITIONS, **settings)
    assert torch.equal(cosine.image_id, alone.image_id)
    assert cosine.cosine.keys() == alone.cosine.keys()
    assert all(torch.equal(values, alone.cosine[key]) for key, values in cosine.cosine.items())
    for model, read in zip((base, tuned), lenses, strict=True):
        for condition in CONDITIONS:
            one = compare_lenses(model, {"logit": None}, images, condition, **settings)["logit"]
            assert all(torch.equal(getattr(read[condition]["logit"], name), value) for name, value in vars(one).items())
    wanted = attention_change(base, tuned, images, CONDITIONS, **settings)
    assert torch.equal(attention.image_id, wanted.image_id)
    assert attention.numbers.keys() == wanted.numbers.keys()
    assert all(torch.equal(values, wanted.numbers[key]) for key, values in attention.numbers.items())


@pytest.mark.parametrize("batch_size", [7, None])
def test_together_equals_alone_bit_for_bit_and_each_model_runs_once(tiny_model, tuned, batch, runs, batch_size):
    found = measured(tiny_model, tuned, batch)
    models = {"base": tiny_model, "tuned": tuned}
    run_together(models, batch, CONDITIONS, found, batch_size, seed=3)
    assert runs == {"base": 2 * len(batch), "tuned": 2 * len(batch)}
    check_equal(found, tiny_model, tuned, batch, batch_size=batch_size, seed=3)


class Logits(PassMeasurement):
    """The logits of the only model of a pass."""

    def __init__(self) -> None:
        self.kept: list[torch.Tensor] = []

    def read(self, batch: PassBatch) -> None:
        self.kept.append(batch.logits("", batch.models[""]))


@pytest.mark.parametrize("name", ["vit classifier", "beit classifier, shared bias", "siglip classifier"])
def test_a_pass_gives_the_logits_of_a_whole_forward_pass(name):
    model, found = build(name, torch.float32), Logits()
    images = ImageBatch(torch.rand(5, 3, 32, 32), torch.full((5,), -1), torch.arange(5))
    run_together({"": model}, images, ["clean"], [found])
    with torch.inference_mode():
        assert torch.equal(found.kept[0], model(pixel_values(model, images)))


@pytest.mark.parametrize("name", ["beit classifier, shared bias", "dinov3 encoder", "siglip classifier"])
def test_models_of_other_kinds_share_a_pass(name):
    base = build(name, torch.float32)
    tuned = shifted(copy.deepcopy(base), 0.01)
    images = ImageBatch(torch.rand(5, 3, 32, 32), torch.full((5,), -1), torch.arange(5))
    found = [CosineMeasurement(base, tuned), AttentionMeasurement(base, tuned)]
    run_together({"base": base, "tuned": tuned}, images, ["clean"], found, 3)
    alone = residual_cosine(base, tuned, images, batch_size=3), attention_change(base, tuned, images, batch_size=3)
    assert all(torch.equal(values, alone[0].cosine[key]) for key, values in found[0].result().cosine.items())
    assert all(torch.equal(values, alone[1].numbers[key]) for key, values in found[1].result().numbers.items())


def test_one_encoder_is_read_through_several_heads(tiny_model, tuned, batch, runs):
    grafted = graft_head(tiny_model, tuned)
    found = [BehaviourMeasurement(tiny_model, tuned, batch), BehaviourMeasurement(grafted, tuned, batch)]
    run_together({"base": tiny_model, "tuned": tuned}, batch, CONDITIONS, found)
    assert runs == {"base": 2 * len(batch), "tuned": 2 * len(batch)}
    for model, one in zip((tiny_model, grafted), found, strict=True):
        alone = behaviour_change(model, tuned, batch, CONDITIONS).images
        pd.testing.assert_frame_equal(one.result().images, alone, check_exact=True)


def test_each_reads_as_many_images_as_it_asks_for(tiny_model, tuned, batch, runs):
    counts = (24, 14, 14, 14, 7)
    found = measured(tiny_model, tuned, batch)
    run_together({"base": tiny_model, "tuned": tuned}, batch, CONDITIONS, found, 7, counts=counts)
    assert runs == {"base": 2 * len(batch), "tuned": 2 * len(batch)}
    lengths = [len(found[0].result().images) // 2, len(found[1].result().image_id), len(found[4].result().image_id)]
    assert lengths == [24, 14, 7]
    assert [len(each.result()["clean"]["logit"].image_id) for each in found[2:4]] == [14, 14]
    few = batch.take(slice(14))
    alone = residual_cosine(tiny_model, tuned, few, CONDITIONS, batch_size=7)
    assert all(torch.equal(values, alone.cosine[key]) for key, values in found[1].result().cosine.items())
    for wrong in ((24, 24, 24, 24, 0), (25, 1, 1, 1, 1)):
        with pytest.raises(ValueError, match="counts must be"):
            run_together({"base": tiny_model, "tuned": tuned}, batch, CONDITIONS, found, counts=wrong)


def test_models_of_two_depths_answer_in_one_pass(tiny_model, batch):
    shallow = copy.deepcopy(tiny_model)
    shallow.blocks = shallow.blocks[:2]
    shallow.cfg = dataclasses.replace(shallow.cfg, n_layers=2)
    shallow.setup()
    found = behaviour_change(tiny_model, shallow, batch).images
    for name, model in (("base", tiny_model), ("tuned", shallow)):
        assert found[f"prediction_{name}"].tolist() == evaluate(model, batch).prediction.tolist()


def test_a_model_beside_itself_does_not_differ(tiny_model, batch):
    found = measured(tiny_model, tiny_model, batch)
    run_together({"base": tiny_model, "tuned": tiny_model}, batch, CONDITIONS, found)
    assert (found[0].result().images["kl"] == 0).all()
    assert all((1 - values).abs().max() < 1e-12 for values in found[1].result().cosine.values())
    changes = {key: values for key, values in found[4].result().numbers.items() if key[1].endswith("_change")}
    assert changes
    assert all((values == 0).all() for values in changes.values())


def test_hooks_of_the_caller_are_measured_too(tiny_model, batch):
    """A head whose pattern is replaced by the caller's hook is measured as replaced, and its hook stays."""
    tuned = copy.deepcopy(tiny_model)

    def even(pattern, hook):
        pattern = pattern.clone()
        pattern[:, 1] = 1 / pattern.shape[-1]
        return pattern

    tuned.add_hook("blocks.1.attn.hook_pattern", even)
    found = attention_change(tiny_model, tuned, batch)
    entropy = found.numbers["clean", "entropy_tuned"]
    torch.testing.assert_close(entropy[:, 1, 1], torch.full((24,), 17.0, dtype=torch.float64).log(), atol=1e-6, rtol=0)
    assert len(tuned.blocks[1].attn.hook_pattern._forward_hooks) == 1
