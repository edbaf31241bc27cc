"""Swapped weights against copies of the model, and what they find in models of which one part differs."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest
import scipy.special
import torch
from family_runs import build
from shifted_models import shifted

from mechvit.analysis import swap_both_ways, swap_weights
from mechvit.analysis.interventions.recovery import foils, score_outcomes
from mechvit.analysis.weights.model_parts import groups_named, model_parts, part_groups
from mechvit.analysis.weights.swapping import Swap, mixed_logits
from mechvit.data import ImageBatch, corrupt, normalize
from mechvit.models import graft_head
from mechvit.models.layers.block import Block

CORRUPTIONS = ("clean", "gaussian_noise_2")


def copied(receiver, giver, parts):
    """The reference: a copy of the receiver with the state dict of some parts from the giver."""
    mixed, theirs, named = receiver.state_dict(), giver.state_dict(), model_parts(receiver)
    model = copy.deepcopy(receiver)
    model.load_state_dict(mixed | {name: theirs[name] for part in parts for name in named[part]})
    return model


FAMILIES = {
    "vit classifier": 0.0,
    "beit classifier, all positions": 0.0,
    "clip classifier": 0.0,
    "siglip zero-shot": 1e-6,  # a copy's own logits differ in their last bit: its pooler's weights lie elsewhere
}
"""Each family and by how much a copy of the model may differ from it."""


@pytest.mark.parametrize("name", FAMILIES)
def test_mixes_match_copies(name):
    receiver, giver = build(name, torch.float32), shifted(build(name, torch.float32))
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    groups = part_groups(receiver, "parts") | part_groups(receiver, "blocks")
    mixes = {group: frozenset(parts) for group, parts in groups.items()}
    order = list(model_parts(receiver))
    mixes |= {("first", k): frozenset(order[:k]) for k in range(0, len(order) + 1, 3)}
    mixes |= {("last", k): frozenset(order[len(order) - k :]) for k in range(0, len(order) + 1, 4)}
    mixes["all"] = frozenset(order)
    mixes["two"] = frozenset({"blocks.0.mlp", "blocks.2.ln1"})
    mixes["all but one"] = frozenset(order) - {"blocks.1.attn"}
    before = {n: p.clone() for n, p in receiver.named_parameters()}
    with torch.inference_mode():
        found = mixed_logits(receiver, giver, pixels, mixes)
        assert list(found) == list(mixes)
        for key, parts in mixes.items():
            wanted = copied(receiver, giver, parts)(pixels)
            torch.testing.assert_close(found[key], wanted, rtol=0, atol=FAMILIES[name])
        assert torch.equal(found["all"], giver(pixels))
        assert torch.equal(found["first", 0], receiver(pixels))
    assert all(torch.equal(parameter, before[n]) for n, parameter in receiver.named_parameters())
    assert len({tuple(logits.flatten().tolist()) for logits in found.values()}) > len(groups)


def test_swaps_match_copies(tiny_model, batch):
    giver = shifted(copy.deepcopy(tiny_model))
    names = ["blocks.1.attn", "blocks.2", "head", "blocks.0.ln2+mlp"]
    found = swap_weights(tiny_model, giver, batch, CORRUPTIONS, parts=names, cumulative=None, batch_size=10, seed=3)
    assert [key for key in found.outcomes if key[0] == "clean"] == [("clean", Swap("single", n, 1)) for n in names]
    for corruption in CORRUPTIONS:
        pixels = normalize(corrupt(batch.images, corruption, batch.image_ids, seed=3), tiny_model.image_processor)
        with torch.no_grad():
            foil = foils(batch.labels, tiny_model(pixels), giver(pixels))
            conditions = {("receiver",): tiny_model, ("giver",): giver}
            conditions |= {
                ("single", n, 1): copied(tiny_model, giver, g) for n, g in groups_named(giver, names).items()
            }
            for key, model in conditions.items():
                wanted = score_outcomes(model(pixels), batch.labels, foil, batch.image_ids)
                got = found.references[corruption, key[0]] if len(key) == 1 else found.outcomes[corruption, Swap(*key)]
                assert torch.equal(got.image_id, wanted.image_id)
                assert torch.equal(got.correct, wanted.correct)
                torch.testing.assert_close(got.logit_difference, wanted.logit_difference, rtol=0, atol=1e-5)


BOTH_WAYS = {
    "all": ({}, {}),
    "single blocks": ({"parts": ("blocks.0", "blocks.2", "head"), "cumulative": None},) * 2,
    "other parts": ({"parts": ("embed", "blocks.1.mlp")}, {"parts": ("blocks.1.ln1+attn",), "cumulative": None}),
}


def equal_outcomes(found: dict, wanted: dict) -> bool:
    return list(found) == list(wanted) and all(
        torch.equal(values, getattr(wanted[key], name))
        for key, own in found.items()
        for name, values in vars(own).items()
    )


@pytest.mark.parametrize("case", BOTH_WAYS)
@pytest.mark.parametrize("grafted", [False, True])
def test_both_directions_at_once_equal_each_bit_for_bit(tiny_model, batch, case, grafted):
    tuned = shifted(copy.deepcopy(tiny_model))
    base = graft_head(tiny_model, tuned) if grafted else tiny_model
    into_base, into_tuned = BOTH_WAYS[case]
    found = swap_both_ways(
        base, tuned, batch, CORRUPTIONS, into_base=into_base, into_tuned=into_tuned, batch_size=10, seed=3
    )
    settings = {"batch_size": 10, "seed": 3}
    wanted = (
        swap_weights(base, tuned, batch, CORRUPTIONS, **into_base, **settings),
        swap_weights(tuned, base, batch, CORRUPTIONS, **into_tuned, **settings),
    )
    for own, alone in zip(found, wanted, strict=True):
        assert equal_outcomes(own.outcomes, alone.outcomes)
        assert equal_outcomes(own.references, alone.references)
        assert own.shared == alone.shared


def test_both_directions_share_their_passes(tiny_model, batch, monkeypatch):
    """Single blocks of a model of three: two streams of 3 blocks, and each swap from its block on, 3 + 2 + 1."""
    tuned, run = shifted(copy.deepcopy(tiny_model)), []
    forward = Block.forward
    monkeypatch.setattr(Block, "forward", lambda block, *args: run.append(block) or forward(block, *args))
    settings = {"parts": ("blocks.0", "blocks.1", "blocks.2"), "cumulative": None}
    swap_both_ways(tiny_model, tuned, batch, ["clean"], into_base=settings, into_tuned=settings)
    assert len(run) == 2 * 3 + 2 * (3 + 2 + 1)
    run.clear()
    swap_weights(tiny_model, tuned, batch, ["clean"], **settings)
    swap_weights(tuned, tiny_model, batch, ["clean"], **settings)
    assert len(run) == 4 * 3 + 2 * (3 + 2 + 1)


def test_hooks_act_on_the_model_that_they_are_attached_to_in_both_directions(tiny_model, batch):
    tuned = shifted(copy.deepcopy(tiny_model))
    tuned.add_hook("blocks.1.hook_mlp_out", lambda value, hook: 0 * value)
    found = swap_both_ways(tiny_model, tuned, batch, ["clean"])
    alone = swap_weights(tiny_model, tuned, batch, ["clean"]), swap_weights(tuned, tiny_model, batch, ["clean"])
    for own, wanted in zip(found, alone, strict=True):
        assert equal_outcomes(own.outcomes, wanted.outcomes)


def test_the_planted_part_is_found(planted):
    base, tuned, images = planted
    found = swap_weights(base, tuned, images, CORRUPTIONS, batch_size=7)
    table = found.summary(resamples=200)
    noisy = table[(table["corruption"] == "gaussian_noise_2") & (table["quantity"] == "accuracy")]
    single = noisy[noisy["kind"] == "single"].set_index("part")
    assert set(single.index[single["recovered"] == 1]) == {"blocks.1", "blocks.1.mlp"}
    assert (single["recovered"].drop(["blocks.1", "blocks.1.mlp"]) == 0).all()
    assert len(single) == 3 * 5 + 3
    first = noisy[noisy["kind"] == "first"].sort_values("k")
    assert list(first["part"]) == ["", "embed", "blocks.0", "blocks.1", "blocks.2", "ln_final", "head"]
    assert list(first["recovered"]) == [0, 0, 0, 1, 1, 1, 1]
    last = noisy[noisy["kind"] == "last"].sort_values("k")
    assert list(last["part"]) == ["", "head", "ln_final", "blocks.2", "blocks.1", "blocks.0", "embed"]
    assert list(last["recovered"]) == [0, 0, 0, 0, 1, 1, 1]
    frame = found.to_frame()
    assert list(frame) == ["corruption", "kind", "part", "k", "image_id", "correct", "logit_difference", "divergence"]
    assert len(frame) == len(images) * len(CORRUPTIONS) * (18 + 14)
    assert len(found.reference_frame()) == len(images) * len(CORRUPTIONS) * 2
    assert single.loc["blocks.1", "value"] == 1
    change = single.loc["blocks.1", "change"]
    base_correct = found.references["gaussian_noise_2", "receiver"].correct.double().mean()
    assert change == pytest.approx(1 - float(base_correct))


def test_the_reverse_takes_the_gain_away(planted):
    base, tuned, images = planted
    found = swap_weights(tuned, base, images, ["gaussian_noise_2"], parts=["blocks.1.mlp", "blocks.0"], cumulative=None)
    single = found.summary(resamples=200).query("quantity == 'accuracy'").set_index("part")
    assert single.loc["blocks.1.mlp", "recovered"] == 1
    assert single.loc["blocks.1.mlp", "value"] == float(
        found.references["gaussian_noise_2", "giver"].correct.double().mean()
    )
    assert single.loc["blocks.0", ["value", "recovered"]].tolist() == [1, 0]


@pytest.mark.long
def test_batches_do_not_change_swaps(planted):
    base, tuned, images = planted
    tables = [swap_weights(base, tuned, images, CORRUPTIONS, batch_size=size).to_frame() for size in (5, 24)]
    order = ["corruption", "kind", "part", "k", "image_id"]
    one, two = (table.sort_values(order).reset_index(drop=True) for table in tables)
    pd.testing.assert_frame_equal(one, two, atol=1e-4)


def test_models_are_restored_after_an_error(tiny_model, batch):
    giver = shifted(copy.deepcopy(tiny_model))
    before = [{n: p.clone() for n, p in model.named_parameters()} for model in (tiny_model, giver)]
    bad = torch.full_like(giver.blocks[2].mlp.fc1.weight, torch.nan)
    broken = copy.deepcopy(giver)
    broken.blocks[2].mlp.fc1.weight.data = bad
    with pytest.raises(ValueError, match="logits must be finite"):
        swap_weights(tiny_model, broken, batch, ["clean"])
    calls = []

    def fail(x, hook):
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError("a user's hook")

    with tiny_model.hooks([("blocks.2.mlp.hook_post", fail)]), pytest.raises(RuntimeError, match="a user's hook"):
        swap_weights(tiny_model, giver, batch, ["clean"])
    for model, own in zip((tiny_model, giver), before, strict=True):
        assert all(torch.equal(parameter, own[n]) for n, parameter in model.named_parameters())


def test_hooks_of_the_receiver_act_on_every_swap(tiny_model, batch):
    giver = shifted(copy.deepcopy(tiny_model))
    with tiny_model.hooks([("hook_head_input", lambda x, hook: torch.zeros_like(x))]):
        found = swap_weights(tiny_model, giver, batch, ["clean"], parts=["blocks.0", "head"], cumulative=None)
    spread = {key[1].part: out.logit_difference.unique() for key, out in found.outcomes.items()}
    assert len(spread["blocks.0"]) <= 5 * 4  # the head's biases alone, by label and foil
    assert len(spread["head"]) <= 5 * 4


def without_labels(images: ImageBatch) -> ImageBatch:
    return ImageBatch(images.images, torch.full_like(images.labels, -1), images.image_ids)


def test_divergence_is_that_of_copies(tiny_model, batch):
    giver = shifted(copy.deepcopy(tiny_model))
    names = ["blocks.1.attn", "head"]
    found = swap_weights(tiny_model, giver, batch, ["clean"], parts=names, cumulative=None, batch_size=10)
    pixels = normalize(batch.images, tiny_model.image_processor)
    with torch.no_grad():
        models = {n: copied(tiny_model, giver, g) for n, g in groups_named(giver, names).items()}
        answers = {n: scipy.special.softmax(m(pixels).double().numpy(), 1) for n, m in models.items()}
        p, own = (scipy.special.softmax(m(pixels).double().numpy(), 1) for m in (giver, tiny_model))
    means = {"receiver": scipy.special.rel_entr(p, own).sum(1)}
    assert (found.references["clean", "giver"].divergence == 0).all()
    np.testing.assert_allclose(found.references["clean", "receiver"].divergence, means["receiver"], rtol=1e-4)
    rows = found.summary(resamples=100).query("quantity == 'divergence'").set_index("part")
    for name in names:
        wanted = scipy.special.rel_entr(p, answers[name]).sum(1)
        np.testing.assert_allclose(found.outcomes["clean", Swap("single", name, 1)].divergence, wanted, rtol=1e-4)
        share = 1 - wanted.mean() / means["receiver"].mean()
        assert rows.loc[name, "recovered"] == pytest.approx(share, rel=1e-4)
        assert rows.loc[name, "recovered_reason"] == ""


def test_causes_are_found_without_labels(planted):
    """The planted part recovers all of the divergence, exactly; what needs none is equal."""
    base, tuned, images = planted
    found = swap_weights(base, tuned, without_labels(images), ["gaussian_noise_2"], batch_size=7)
    table = found.summary(resamples=200)
    assert set(table["quantity"]) == {"divergence"}
    single = table[table["kind"] == "single"].set_index("part")["recovered"]
    assert set(single.index[single == 1]) == {"blocks.1", "blocks.1.mlp"}
    assert (single.drop(["blocks.1", "blocks.1.mlp"]) == 0).all()
    frame = found.to_frame()
    assert frame[["correct", "logit_difference"]].isna().all(axis=None)
    known = swap_weights(base, tuned, images, ["gaussian_noise_2"], batch_size=7)
    pd.testing.assert_series_equal(frame["divergence"], known.to_frame()["divergence"])
    assert set(known.summary(resamples=20)["quantity"]) == {"accuracy", "logit_difference", "divergence"}


def test_images_without_labels_change_no_number_of_the_others(planted):
    base, tuned, images = planted
    mixed = ImageBatch(images.images, torch.where(torch.arange(24) % 3 > 0, images.labels, -1), images.image_ids)
    labelled = images.take(np.flatnonzero(np.arange(24) % 3))
    both, alone = (
        swap_weights(base, tuned, part, ["gaussian_noise_2"], parts=["blocks.1", "head"], cumulative=None)
        for part in (mixed, labelled)
    )
    both, alone = (found.summary(resamples=50).query("quantity != 'divergence'") for found in (both, alone))
    pd.testing.assert_frame_equal(both.reset_index(drop=True), alone.reset_index(drop=True), rtol=1e-5)


def test_equal_models_have_nothing_to_recover(tiny_model, batch):
    found = swap_weights(tiny_model, copy.deepcopy(tiny_model), without_labels(batch), ["clean"])
    assert (found.to_frame()["divergence"] == 0).all()
    table = found.summary(resamples=20)
    assert table["recovered"].isna().all()
    assert set(table["recovered_reason"]) == {"same_answers"}


def test_bad_requests_are_refused(tiny_model, batch):
    giver = shifted(copy.deepcopy(tiny_model))
    with pytest.raises(ValueError, match=r"did you mean blocks\.0\.attn"):
        swap_weights(tiny_model, giver, batch, ["clean"], parts=["blocks.0.atn"])
    with pytest.raises(ValueError, match="name at least one corruption"):
        swap_weights(tiny_model, giver, batch, [])
    wrong = ImageBatch(batch.images, batch.labels + 4, batch.image_ids)
    with pytest.raises(ValueError, match="labels must be classes"):
        swap_weights(tiny_model, giver, wrong, ["clean"])
    with pytest.raises(ValueError, match="unit must be one of"):
        swap_weights(tiny_model, giver, batch, ["clean"], cumulative="layers")
