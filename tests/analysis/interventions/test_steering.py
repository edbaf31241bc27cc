"""Directions against means written out, steering against added vectors, and a planted direction that recovers all."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from shifted_models import shifted

from mechvit.analysis import steer, steering_direction, steering_directions
from mechvit.analysis.held_out_split import chosen_rows
from mechvit.analysis.interventions.recovery import foils
from mechvit.analysis.interventions.steering import Steer
from mechvit.analysis.interventions.steering_directions import Direction
from mechvit.data import ImageBatch, corrupt, normalize

NOISE = "gaussian_noise_4"
PLACES = {"all": slice(None), "cls": slice(0, 1), "patches": slice(1, None)}


def pixels_of(model, batch, key, seed=0):
    return normalize(corrupt(batch.images, key, batch.image_ids, seed=seed), model.image_processor)


@pytest.mark.parametrize("tokens", PLACES)
@pytest.mark.parametrize("per_position", [False, True])
def test_directions_are_mean_differences(tiny_model, batch, tokens, per_position):
    names = ["blocks.2.hook_resid_post", "blocks.0.hook_attn_out"]
    found = steering_directions(
        tiny_model, batch, NOISE, hook_names=names, tokens=tokens, per_position=per_position, batch_size=7, seed=2
    )
    with torch.no_grad():
        clean, noisy = (tiny_model.run_with_cache(pixels_of(tiny_model, batch, k, 2))[1] for k in ("clean", NOISE))
    assert [d.hook_name for d in found] == names
    for direction in found:
        difference = (clean[direction.hook_name] - noisy[direction.hook_name])[:, PLACES[tokens]].double().mean(0)
        wanted = difference if per_position else difference.mean(0, keepdim=True)
        torch.testing.assert_close(direction.vector, wanted.float(), rtol=1e-4, atol=1e-5)
        assert direction.norm == pytest.approx(float(wanted.norm(dim=-1).mean()), rel=1e-4)
    one = steering_direction(
        tiny_model, batch, NOISE, hook_name=names[0], tokens=tokens, per_position=per_position, seed=2
    )
    torch.testing.assert_close(one.vector, found[0].vector)


@pytest.mark.parametrize("key", ["clean", NOISE])
def test_directions_towards_another_model_are_differences_of_their_means(tiny_model, batch, key):
    """Both models see the same images; a vector that block 1 writes is found after it, and nothing before it."""
    vector = torch.randn(32, generator=torch.Generator().manual_seed(3))
    tuned = copy.deepcopy(tiny_model)
    with torch.no_grad():
        tuned.blocks[1].mlp.fc2.bias.add_(vector)
    found = steering_directions(tiny_model, batch, key, towards=tuned, batch_size=7, seed=2)
    assert {direction.source for direction in found} == {"between_models"}
    assert torch.equal(found[0].vector, torch.zeros(1, 32))
    torch.testing.assert_close(found[1].vector[0], vector, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        caches = [model.run_with_cache(pixels_of(tiny_model, batch, key, 2))[1] for model in (tuned, tiny_model)]
    last = [cache["blocks.2.hook_resid_post"].double().mean((0, 1)) for cache in caches]
    torch.testing.assert_close(found[2].vector[0].double(), last[0] - last[1], rtol=1e-4, atol=1e-5)


def test_towards_a_stranger_there_is_no_direction(tiny_model, batch):
    stranger = copy.deepcopy(tiny_model)
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in stranger.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    with pytest.raises(ValueError, match="difference from the other needs models of which one was trained"):
        steering_directions(tiny_model, batch, "clean", towards=stranger)


def test_every_block_is_the_default(tiny_model, batch):
    found = steering_directions(tiny_model, batch, NOISE)
    assert [(d.hook_name, d.layer, d.tokens, d.source) for d in found] == [
        (f"blocks.{layer}.hook_resid_post", layer, "all", "mean_difference") for layer in range(3)
    ]


def test_random_directions_have_the_same_lengths():
    vector = torch.randn(6, 50, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 7)[:, None]
    direction = Direction("blocks.0.hook_resid_post", "all", vector, "mean_difference")
    one, two = direction.random(1), direction.random(2)
    torch.testing.assert_close(one.vector.norm(dim=1), vector.norm(dim=1))
    assert torch.equal(one.vector, direction.random(1).vector)
    for a, b in ((one, two), (one, direction)):
        assert torch.cosine_similarity(a.vector, b.vector).abs().max() < 0.6
    assert one.hook_name == direction.hook_name


def test_steering_matches_added_vectors(tiny_model, batch):
    giver = shifted(copy.deepcopy(tiny_model))
    generator = torch.Generator().manual_seed(1)
    directions = [
        Direction("blocks.1.hook_resid_post", "patches", torch.randn(16, 32, generator=generator), "mine"),
        Direction("blocks.2.hook_resid_mid", "cls", torch.randn(1, 32, generator=generator), "mine"),
        Direction("blocks.0.hook_mlp_out", "all", torch.randn(1, 32, generator=generator), "mine"),
    ]
    found = steer(tiny_model, giver, batch, [NOISE], directions, scales=(0, 0.5, -2), controls=1, batch_size=9)
    for corruption in ("clean", NOISE):
        pixels = pixels_of(tiny_model, batch, corruption)
        with torch.no_grad():
            plain = tiny_model(pixels)
            foil = foils(batch.labels, plain, giver(pixels))
            every = torch.arange(len(batch))
            for direction in directions:
                for scale in (0.0, 0.5, -2.0):

                    def add(x, hook, direction=direction, scale=scale):
                        x[:, PLACES[direction.tokens]] += scale * direction.vector
                        return x

                    logits = tiny_model.run_with_hooks(pixels, fwd_hooks=[(direction.hook_name, add)])
                    way = Steer("mine", direction.hook_name, direction.tokens, 0, scale)
                    got = found.outcomes[corruption, way]
                    wanted = logits[every, batch.labels] - logits[every, foil]
                    torch.testing.assert_close(got.logit_difference, wanted, rtol=0, atol=1e-5)
                    assert torch.equal(got.correct, logits.argmax(-1) == batch.labels)
                    other = found.outcomes[corruption, way._replace(control=1)].logit_difference
                    assert (scale == 0) == bool(torch.allclose(other, wanted, atol=1e-5))
            wanted = giver(pixels)[every, batch.labels] - giver(pixels)[every, foil]
            torch.testing.assert_close(found.references[corruption, "giver"].logit_difference, wanted)
    assert len(found.outcomes) == 2 * 3 * 2 * 3


@pytest.fixture
def planted_direction(tiny_model, batch):
    """A base model, a tuned one that writes one more vector into the residual stream after block 1, images labelled as
    the tuned model sees them under noise, and the vector."""
    generator = torch.Generator().manual_seed(5)
    vector = 12 * torch.randn(1, 32, generator=generator)
    tuned = copy.deepcopy(tiny_model)
    with torch.no_grad():
        tuned.blocks[1].mlp.fc2.bias.add_(vector[0])
        labels = tuned(pixels_of(tuned, batch, NOISE)).argmax(-1)
    return tiny_model, tuned, ImageBatch(batch.images, labels, batch.image_ids), vector


@pytest.mark.long
def test_a_planted_direction_recovers_the_gain(planted_direction):
    base, tuned, images, vector = planted_direction
    planted = Direction("blocks.1.hook_resid_post", "all", vector / 2, "planted")
    elsewhere = Direction("blocks.0.hook_attn_out", "cls", 0.01 * vector, "planted")
    found = steer(base, tuned, images, [NOISE], [elsewhere, planted], scales=(0.5, 1, 2, 4), controls=2)
    table = found.summary(resamples=200)
    exact = table.query("hook_name == @planted.hook_name and control == 0 and scale == 2 and corruption == @NOISE")
    exact = exact.set_index("quantity")
    assert exact.loc["accuracy", ["recovered", "recovered_low", "recovered_high"]].tolist() == [1, 1, 1]
    giver = found.references[NOISE, "giver"]
    held_out = torch.tensor([int(i) not in found.selection for i in giver.image_id])
    mean = giver.logit_difference[held_out].mean().item()
    assert exact.loc["logit_difference", "value"] == pytest.approx(mean, abs=1e-4)
    best = found.chosen(resamples=200).query("control == 0 and quantity == 'accuracy'")
    assert best[["hook_name", "scale"]].to_numpy().tolist() == [["blocks.1.hook_resid_post", 2.0]]
    assert best["value"].item() == 1
    assert best["recovered"].item() == 1
    clean = table.query("hook_name == @planted.hook_name and control == 0 and scale == 2 and corruption == 'clean'")
    wanted = clean[clean["quantity"] == "accuracy"]["change"].item()
    assert best["clean_change"].item() == wanted
    chance = found.chosen(resamples=200).query("control > 0 and quantity == 'accuracy'")
    assert chance["control"].tolist() == [1, 2]  # each with its own hook point and scale
    assert (chance["recovered"] < 0.9).all()
    held = found.to_frame().query("not selection and corruption == @NOISE")
    picked = [
        held.query("control == @row.control and hook_name == @row.hook_name and scale == @row.scale")
        .set_index("image_id")["correct"]
        .astype(float)
        for row in [*best.itertuples(), *chance.itertuples()]
    ]
    beyond = (picked[0] - (picked[1] + picked[2]) / 2).to_numpy()
    assert best["beyond"].item() == pytest.approx(beyond.mean())
    assert chance["beyond"].isna().all()
    draws = [np.random.default_rng(i).choice(beyond, len(beyond)).mean() for i in range(4000)]
    ends = best[["beyond_low", "beyond_high"]].to_numpy()[0]
    np.testing.assert_allclose(ends, np.quantile(draws, [0.025, 0.975]), atol=0.08)


def test_scales_are_chosen_on_the_selection_alone(planted_direction):
    base, tuned, images, vector = planted_direction
    direction = Direction("blocks.1.hook_resid_post", "all", vector, "planted")
    found = steer(base, tuned, images, [NOISE], [direction], scales=(0.02, 0.1, 0.3, 1), controls=0, seed=6)
    rows = chosen_rows(len(images), 0.5, seed=6)
    assert found.selection == frozenset(images.image_ids[torch.from_numpy(rows)].tolist())
    frame = found.to_frame()
    assert set(frame[frame["selection"]]["image_id"]) == set(found.selection)
    for selection in (True, False):
        part = frame[(frame["selection"] == selection) & (frame["corruption"] == NOISE)]
        means = part.groupby("scale")["correct"].mean()
        table = found.summary(selection=selection, resamples=50)
        table = table[(table["corruption"] == NOISE) & (table["quantity"] == "accuracy")].set_index("scale")
        np.testing.assert_allclose(table["value"].loc[means.index], means)
    here = frame[frame["selection"]]
    noisy = here[here["corruption"] == NOISE].groupby("scale")[["correct", "logit_difference"]].mean()
    wanted = noisy.sort_values(["correct", "logit_difference"]).index[-1]
    assert found.chosen(resamples=50)["scale"].unique().tolist() == [wanted]
    base_clean = found.references["clean", "receiver"]
    own = torch.isin(base_clean.image_id, torch.tensor(sorted(found.selection)))
    start = base_clean.correct[own].double().mean().item()
    costs = start - here[here["corruption"] == "clean"].groupby("scale")["correct"].mean()
    assert costs.nunique() > 1
    cheapest = costs.min()
    chosen = found.chosen(most_cost=cheapest, resamples=50)["scale"].unique().tolist()
    wanted = noisy.loc[costs[costs <= cheapest].index].sort_values(["correct", "logit_difference"]).index[-1]
    assert chosen == [wanted]


def test_steering_is_measured_without_labels(planted_direction):
    base, tuned, images, vector = planted_direction
    bare = ImageBatch(images.images, torch.full_like(images.labels, -1), images.image_ids)
    direction = Direction("blocks.1.hook_resid_post", "all", vector, "planted")
    found = steer(base, tuned, bare, [NOISE], [direction], scales=(0.1, 1), controls=1)
    summary = found.summary(resamples=50)
    assert set(summary["quantity"]) == {"divergence"}
    noisy = summary[(summary["corruption"] == NOISE) & (summary["scale"] == 1)].set_index("control")["value"]
    assert noisy[0] < noisy[1]
    with pytest.raises(ValueError, match="the images have no labels"):
        found.chosen(resamples=20)


def test_hooks_are_gone_afterwards(tiny_model, batch):
    direction = Direction("blocks.1.hook_resid_post", "all", torch.full((1, 32), torch.nan), "broken")
    with pytest.raises(ValueError, match="logits must be finite"):
        steer(tiny_model, tiny_model, batch, [NOISE], [direction])
    with torch.no_grad():
        assert tiny_model(pixels_of(tiny_model, batch, "clean")).isfinite().all()


def test_what_does_not_fit_is_refused(tiny_model, batch):
    right = Direction("blocks.1.hook_resid_post", "all", torch.ones(1, 32), "mine")

    def attempt(direction=right, **settings):
        directions = direction if isinstance(direction, list) else [direction]
        return steer(tiny_model, tiny_model, batch, [NOISE], directions, **settings)

    with pytest.raises(ValueError, match="must be one of a block's"):
        attempt(Direction("hook_embed", "all", torch.ones(1, 32), "mine"))
    with pytest.raises(ValueError, match=r"got 'blocks\.3\.hook_resid_post'"):
        attempt(Direction("blocks.3.hook_resid_post", "all", torch.ones(1, 32), "mine"))
    with pytest.raises(ValueError, match=r"must be \[1, 32\] or \[16, 32\] for tokens 'patches'"):
        attempt(Direction("blocks.1.hook_resid_post", "patches", torch.ones(17, 32), "mine"))
    with pytest.raises(ValueError, match='tokens must be "all", "patches" or "cls"'):
        attempt(Direction("blocks.1.hook_resid_post", "first", torch.ones(1, 32), "mine"))
    with pytest.raises(ValueError, match="occurs more than once"):
        attempt([right, right])
    for wrong in ({"direction": []}, {"scales": ()}):
        with pytest.raises(ValueError, match="give at least one direction and one scale"):
            attempt(**wrong)
    with pytest.raises(ValueError, match="controls must be at least 0; got -1"):
        attempt(controls=-1)
    with pytest.raises(ValueError, match="scales must be finite; got nan"):
        attempt(scales=(1.0, float("nan")))
    with pytest.raises(ValueError, match="name at least one hook point"):
        steering_directions(tiny_model, batch, NOISE, hook_names=[])


@pytest.mark.parametrize("corruptions", [["clean"], [NOISE]])
def test_without_labels_the_closest_to_the_giver_is_chosen(planted_direction, corruptions):
    """The difference of the models is the planted vector: at scale 1 after block 1 the base is the tuned model."""
    base, tuned, images, _ = planted_direction
    unlabelled = ImageBatch(images.images, torch.full_like(images.labels, -1), images.image_ids)
    (key,) = corruptions
    directions = steering_directions(base, unlabelled, key, towards=tuned)[1:]
    found = steer(base, tuned, unlabelled, corruptions, directions, scales=(0.5, 1, 2), controls=2)
    table = found.chosen(by="divergence", resamples=100)
    assert set(table["quantity"]) == {"divergence"}
    assert set(table["corruption"]) == {key}
    best = table.query("control == 0").iloc[0]
    assert (best["source"], best["hook_name"], best["scale"]) == ("between_models", "blocks.1.hook_resid_post", 1)
    assert best["recovered"] == pytest.approx(1, abs=1e-6)
    assert best["beyond"] < 0  # nats closer to the tuned model than random directions are
    assert (table.query("control > 0")["recovered"] < 0.95).all()
    with pytest.raises(ValueError, match="chosen by accuracy and logit difference, and the images have no labels"):
        found.chosen(resamples=10)
    with pytest.raises(ValueError, match="the images have no labels"):
        found.chosen(by="divergence", most_cost=0.02, resamples=10)
