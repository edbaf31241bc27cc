"""Pairs that share no head: weights are compared where both have them, and interventions run under one head."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
import transformers

from mechvit import HookedViT
from mechvit.analysis import (
    Direction,
    SmallestSetConfig,
    difference_lens,
    evaluate,
    fit_shared_probe,
    interpolate_weights,
    patch_models,
    residual_cosine,
    shortest_run,
    smallest_set,
    steer,
    swap_weights,
    weight_change,
    with_probe,
)
from mechvit.analysis.inputs import pixel_values
from mechvit.data import ImageBatch
from mechvit.models import graft_head, linear_head

CLASSES = {0: "red", 1: "green", 2: "blue"}
CLEAN = ["clean"]


def three_classes(model: HookedViT, seed: int = 6) -> HookedViT:
    weight = torch.randn(3, 32, generator=torch.Generator().manual_seed(seed))
    return copy.deepcopy(linear_head(model, weight, torch.zeros(3), CLASSES))


@pytest.fixture
def bare(tiny_hf, tiny_processor) -> HookedViT:
    """The encoder of the tiny model with a pooler that no classifier has."""
    config = copy.deepcopy(tiny_hf.config)
    model = transformers.ViTModel(config).eval()
    model.load_state_dict(tiny_hf.vit.state_dict(), strict=False)
    return HookedViT.from_hf(model, tiny_processor)


@pytest.fixture
def tuned(planted) -> HookedViT:
    """A classifier of three classes whose encoder differs from the bare one in one MLP."""
    return three_classes(planted[1])


@pytest.fixture
def images(tuned, batch) -> ImageBatch:
    any_labels = dataclasses.replace(batch, labels=batch.labels % 3)
    return dataclasses.replace(batch, labels=evaluate(tuned, any_labels).prediction)


def test_a_new_head_leaves_the_encoder_unchanged(tiny_model, batch):
    """Its weights differ by exactly 0, what differs in shape is listed, and a grafted head gives the same outputs."""
    tuned = three_classes(tiny_model)
    found = weight_change(tiny_model, tuned)
    assert {w.weight for w in found.weights} == {n for n in tiny_model.own_state_dict() if not n.startswith("head.")}
    assert all(w.change_norm == 0 for w in found.weights)
    assert [(w.weight, w.base_shape, w.tuned_shape) for w in found.left_out] == [
        ("head.weight", (5, 32), (3, 32)),
        ("head.bias", (5,), (3,)),
    ]
    pixels = pixel_values(tiny_model, batch)
    assert torch.equal(graft_head(tiny_model, tuned)(pixels), tuned(pixels))


def test_parts_that_only_one_has_are_listed(bare, tuned):
    found = weight_change(bare, tuned)
    assert {(w.weight, w.base_shape is None, w.tuned_shape is None) for w in found.left_out} == {
        ("pooler.dense.weight", False, True),
        ("pooler.dense.bias", False, True),
        ("head.weight", True, False),
        ("head.bias", True, False),
    }
    frame = found.left_out_frame(model="tuned").set_index("weight")
    assert frame.loc["head.weight", "base_shape"] == ""
    assert frame.loc["head.weight", "tuned_shape"] == "3x32"
    changed = {w.part for w in found.weights if w.change_norm > 0}
    assert changed == {"blocks.1.mlp"}
    assert weight_change(bare, bare).left_out == ()


def test_all_encoder_weights_swapped_are_the_tuned_model(bare, tuned, images):
    base = graft_head(bare, tuned)
    found = swap_weights(base, tuned, images, CLEAN)
    assert found.shared == ("ln_final", "head")
    parts = {swap.part for _, swap in found.outcomes}
    assert not {"ln_final", "head"} & parts
    assert {"embed", "blocks.1", "blocks.1.mlp"} <= parts
    every = {swap.kind: swap for _, swap in found.outcomes if swap.k == 4}
    giver = found.references["clean", "giver"]
    for kind in ("first", "last"):
        whole = found.outcomes["clean", every[kind]]
        assert torch.equal(whole.logit_difference, giver.logit_difference)
        assert torch.equal(whole.correct, giver.correct)
    assert giver.correct.all()
    only = found.outcomes["clean", next(s for _, s in found.outcomes if s.part == "blocks.1.mlp")]
    assert torch.equal(only.logit_difference, giver.logit_difference)
    assert not torch.equal(found.references["clean", "receiver"].logit_difference, giver.logit_difference)
    named = swap_weights(base, tuned, images, CLEAN, parts=["head"], cumulative=None)
    ((_, head),) = named.outcomes
    assert torch.equal(
        named.outcomes["clean", head].logit_difference, named.references["clean", "receiver"].logit_difference
    )


def test_heads_of_their_own_are_swapped_as_before(planted):
    base, tuned, images = planted
    found = swap_weights(base, tuned, images, ["gaussian_noise_2"])
    assert found.shared == ()
    assert {"ln_final", "head"} <= {swap.part for _, swap in found.outcomes}


def test_every_intervention_runs_under_a_grafted_head(bare, tuned, images):
    base = graft_head(bare, tuned)
    line = interpolate_weights(base, tuned, images, CLEAN, alphas=[0, 0.5, 1])
    for alpha, end in ((0.0, "receiver"), (1.0, "giver")):
        assert torch.equal(line.outcomes["clean", alpha].logit_difference, line.outcomes["clean", end].logit_difference)
    patched = patch_models(base, tuned, images, "clean", kinds=["resid", "mlp"], tokens=["all"])
    last = patched.components.index(next(c for c in patched.components if c.kind == "resid" and c.layer == 2))
    torch.testing.assert_close(patched.logit_difference[last], patched.giver.logit_difference, rtol=1e-4, atol=1e-4)
    direction = Direction("blocks.1.hook_resid_post", "all", torch.ones(1, 32), "mean_difference")
    steered = steer(base, tuned, images, ["gaussian_noise_2"], [direction], scales=[1.0], controls=1)
    assert len(steered.to_frame()) == 2 * 2 * len(images)
    config = SmallestSetConfig(unit="parts", resamples=50)
    run = shortest_run(base, tuned, images, resamples=50)
    assert run.chosen == (1, 1)
    chosen = smallest_set(base, tuned, images, "clean", config=config)
    assert chosen.groups == ("blocks.1.mlp",)


def test_a_probe_shared_by_both_serves_as_their_head(bare, planted, batch):
    models = {"base": bare, "tuned": planted[1]}
    halves = batch.take(slice(0, 12)), batch.take(slice(12, 24))
    head = fit_shared_probe(models, halves[0])
    base, tuned = (with_probe(model, head) for model in models.values())
    found = swap_weights(base, tuned, halves[1], CLEAN, parts=["blocks.1.mlp", "head"], cumulative=None)
    giver = found.references["clean", "giver"].logit_difference
    (whole,) = [o for (_, swap), o in found.outcomes.items() if swap.part == "blocks.1.mlp"]
    assert torch.equal(whole.logit_difference, giver)
    assert patch_models(base, tuned, halves[1], "clean", kinds=["mlp"]).correct.shape[1] == 12


def test_each_embedding_is_shown_pixels_as_its_own_processor_normalises_them(planted):
    base, tuned, images = planted
    tuned.image_processor = transformers.ViTImageProcessorPil(
        size={"height": 32, "width": 32}, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4]
    )
    found = swap_weights(base, tuned, images, CLEAN)
    expected = evaluate(tuned, images)
    giver = found.references["clean", "giver"]
    assert giver.correct.tolist() == (expected.rank == 0).tolist()
    every = next(swap for _, swap in found.outcomes if swap.kind == "first" and swap.k == 6)
    torch.testing.assert_close(found.outcomes["clean", every].logit_difference, giver.logit_difference)
    without = next(swap for _, swap in found.outcomes if swap.kind == "last" and swap.k == 5)
    assert not torch.allclose(found.outcomes["clean", without].logit_difference, giver.logit_difference, atol=1e-3)
    with pytest.raises(ValueError, match=r"to interpolate the embedding needs .*image_mean"):
        interpolate_weights(base, tuned, images, CLEAN)
    line = interpolate_weights(base, tuned, images, CLEAN, parts=["blocks.1"], alphas=[0.5])
    assert line.outcomes["clean", "giver"].correct.tolist() == (expected.rank == 0).tolist()


def test_models_that_are_no_kin_are_refused_where_it_matters(tiny_model, batch):
    other = copy.deepcopy(tiny_model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape))
    direction = Direction("blocks.1.hook_resid_post", "all", torch.ones(1, 32), "mean_difference")
    for what, call in {
        "swapping weights": lambda: swap_weights(tiny_model, other, batch, CLEAN),
        "finding the smallest set": lambda: smallest_set(tiny_model, other, batch, "clean"),
        "interpolating weights": lambda: interpolate_weights(tiny_model, other, batch, CLEAN),
        "comparing weights": lambda: weight_change(tiny_model, other),
        "taking activations": lambda: patch_models(tiny_model, other, batch, "clean"),
        "the cosine between": lambda: residual_cosine(tiny_model, other, batch),
        "the difference of": lambda: difference_lens(tiny_model, other, batch, batch),
        "finding the shortest run": lambda: shortest_run(tiny_model, other, batch),
        "steering": lambda: steer(tiny_model, other, batch, ["gaussian_noise_2"], [direction]),
    }.items():
        with pytest.raises(ValueError, match=f"^{what}.* needs models of which one was trained from the other.*median"):
            call()
    assert evaluate(other, batch).accuracy >= 0
    assert patch_models(other, other, batch, "gaussian_noise_2", giver_corruption="clean", kinds=["mlp"]).correct.any()


def test_heads_of_other_classes_are_refused_with_the_way_out(tiny_model, bare, tuned, images):
    with pytest.raises(ValueError, match=r"n_classes is 5 and 3 \(mechvit.models.graft_head gives both one head\)"):
        swap_weights(tiny_model, tuned, images, CLEAN)
    with pytest.raises(ValueError, match=r"classes \(id2label; mechvit.models.graft_head"):
        patch_models(tiny_model, tuned, images, "clean")
    with pytest.raises(ValueError, match=r"the receiver, a ViTModel, has no classification head; .*graft_head"):
        patch_models(bare, tuned, images, "clean")
