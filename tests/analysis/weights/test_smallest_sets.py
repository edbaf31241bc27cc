"""The search for the smallest set: planted parts, greedy against exhaustive, and disjoint images."""

from __future__ import annotations

import copy
from itertools import combinations

import numpy as np
import pytest
import torch
from shifted_models import shifted

from mechvit.analysis import NoGap, SmallestSetConfig, smallest_set
from mechvit.analysis.held_out_split import chosen_rows, split_images
from mechvit.analysis.interventions.runner import run_interventions
from mechvit.analysis.weights.model_parts import part_groups
from mechvit.analysis.weights.swapping import mixed_logits
from mechvit.data import ImageBatch, corrupt, normalize

NOISE, SHARE = "gaussian_noise_2", 0.6


PLANTED = {"parts": "blocks.1.mlp", "branches": "blocks.1.ln2+mlp", "blocks": "blocks.1"}


@pytest.mark.parametrize("unit", PLANTED)
@pytest.mark.parametrize("quantity", ["accuracy", "logit_difference"])
def test_the_planted_part_is_found(planted, unit, quantity):
    base, tuned, images = planted
    wanted = PLANTED[unit]
    found = smallest_set(
        base,
        tuned,
        images,
        NOISE,
        config=SmallestSetConfig(unit=unit, quantity=quantity, resamples=200, level=0.5),
    )
    assert found.groups == (wanted,)
    table = found.to_frame().set_index("images")
    assert table.loc["held_out", "added"] == wanted
    assert table.loc["held_out", ["recovered", "recovered_low", "recovered_high"]].tolist() == [1, 1, 1]


def test_the_planted_part_is_found_without_labels(planted):
    base, tuned, images = planted
    bare = ImageBatch(images.images, torch.full_like(images.labels, -1), images.image_ids)
    config = SmallestSetConfig(unit="blocks", quantity="divergence", resamples=100)
    found = smallest_set(base, tuned, bare, NOISE, config=config)
    assert found.groups == ("blocks.1",)
    assert (found.to_frame()["recovered"] == 1).all()
    with pytest.raises(ValueError, match="needs images with labels, and these have none: take quantity='divergence'"):
        smallest_set(base, tuned, bare, NOISE, config=SmallestSetConfig(unit="blocks", resamples=20))
    with pytest.raises(NoGap, match="must differ in divergence"):
        smallest_set(base, copy.deepcopy(base), bare, NOISE, config=config)


@pytest.fixture
def two_parts(tiny_model, batch):
    """A tuned model that differs in the attention of block 0 and the MLP of block 2; its own predictions are right."""
    tuned = copy.deepcopy(tiny_model)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for module in (tuned.blocks[0].attn, tuned.blocks[2].mlp):
            for parameter in module.parameters():
                parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator))
        noisy = normalize(corrupt(batch.images, NOISE, batch.image_ids, seed=0), tuned.image_processor)
        labels = tuned(noisy).argmax(-1)
    return tiny_model, tuned, ImageBatch(batch.images, labels, batch.image_ids)


@pytest.mark.parametrize("method", ["greedy", "exhaustive"])
def test_both_searches_find_two_parts(two_parts, method):
    base, tuned, images = two_parts
    found = smallest_set(
        base, tuned, images, NOISE, config=SmallestSetConfig(share=1, unit="blocks", method=method, resamples=200)
    )
    assert set(found.groups) == {"blocks.0", "blocks.2"}
    assert [len(step) for step in found.path] == [1, 2]
    table = found.to_frame()
    assert list(table["step"]) == [1, 2, 1, 2]
    assert table["recovered"].tolist()[1::2] == [1, 1]


@pytest.mark.long
def test_searches_match_all_sets(tiny_model, batch):
    """Every set's recovered logit difference, by hand: exhaustive takes the best of each size, greedy grows."""
    tuned = shifted(copy.deepcopy(tiny_model))
    noisy = normalize(corrupt(batch.images, NOISE, batch.image_ids, seed=0), tuned.image_processor)
    with torch.no_grad():
        labels = tuned(noisy).argmax(-1)
    images = ImageBatch(batch.images, labels, batch.image_ids)
    groups = part_groups(tiny_model, "blocks")
    sets = [names for size in range(len(groups) + 1) for names in combinations(groups, size)]
    mixes = {names: frozenset(p for name in names for p in groups[name]) for names in sets}
    selection, held_out = split_images(images, 0.5, seed=0)

    def shares(part):
        found = run_interventions(
            tiny_model,
            part,
            [NOISE],
            lambda pixels: (
                {"receiver": tiny_model(pixels), "giver": tuned(pixels)}
                | mixed_logits(tiny_model, tuned, pixels, mixes)
            ),
        )
        means = {key: out.logit_difference.double().mean().item() for (_, key), out in found.items()}
        start, end = means["receiver"], means[tuple(groups)]
        return {names: (means[names] - start) / (end - start) for names in sets}

    here, there = shares(selection), shares(held_out)
    for method in ("greedy", "exhaustive"):
        config = SmallestSetConfig(share=SHARE, unit="blocks", method=method, resamples=100)
        found = smallest_set(tiny_model, tuned, images, NOISE, config=config, batch_size=5)
        wanted, kept = [], ()
        while not wanted or (here[wanted[-1]] < SHARE and len(kept) < len(groups)):
            size = len(wanted) + 1
            tried = [n for n in sets if len(n) == size and (method == "exhaustive" or set(kept) < set(n))]
            kept = max(tried, key=here.__getitem__)
            wanted.append(kept)
        assert [set(step) for step in found.path] == [set(step) for step in wanted]
        table = found.to_frame().set_index(["images", "step"])
        for step, names in enumerate(wanted, start=1):
            assert table.loc[("selection", step), "recovered"] == pytest.approx(here[names], abs=1e-4)
            assert table.loc[("held_out", step), "recovered"] == pytest.approx(there[names], abs=1e-4)
            row = table.loc[("held_out", step)]
            assert row["recovered_low"] <= row["recovered"] <= row["recovered_high"]


def test_halves_are_disjoint_and_all():
    for n, fraction in ((2, 0.5), (7, 0.3), (100, 0.5)):
        rows = chosen_rows(n, fraction, seed=4)
        assert rows.sum() == round(n * fraction)
        assert not np.array_equal(rows, chosen_rows(n, fraction, seed=5)) or n < 10
        assert np.array_equal(rows, chosen_rows(n, fraction, seed=4))
    with pytest.raises(ValueError, match="gives 0 and 1"):
        chosen_rows(1, 0.2)


def test_halves_of_data_sets_and_batches_are_the_same(tiny_images, batch):
    ids = [set(part["image_id"]) for part in split_images(tiny_images, 0.4, seed=1)]
    assert ids[0] | ids[1] == set(tiny_images["image_id"])
    assert not ids[0] & ids[1]
    same = [{int(i) - 100 for i in part.image_ids} for part in split_images(batch, 0.4, seed=1)]
    assert same == ids
    assert len(ids[0]) == 10


def test_what_cannot_be_searched_is_refused(tiny_model, batch):
    tuned = shifted(copy.deepcopy(tiny_model))
    with pytest.raises(ValueError, match=r"share must be in .0, 1.; got 1\.2"):
        SmallestSetConfig(share=1.2)
    with pytest.raises(ValueError, match="at most 10 groups; this model has 15 parts: use method='greedy' or"):
        smallest_set(tiny_model, tuned, batch, NOISE, config=SmallestSetConfig(unit="parts", method="exhaustive"))
    with pytest.raises(ValueError, match="quantity must be among accuracy, logit_difference, divergence; got 'loss'"):
        SmallestSetConfig(quantity="loss")
    config = SmallestSetConfig(quantity="accuracy", resamples=50)
    with pytest.raises(NoGap, match="receiver and giver must differ in accuracy"):
        smallest_set(tiny_model, copy.deepcopy(tiny_model), batch, NOISE, config=config)
