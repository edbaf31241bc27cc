"""The shortest run of blocks: planted ones are found and confirmed on other images, scattered ones are nowhere."""

from __future__ import annotations

import copy
import importlib

import pytest
import torch
from shifted_models import shifted

from mechvit.analysis import shortest_run
from mechvit.analysis.held_out_split import split_images
from mechvit.analysis.weights.model_parts import model_parts, weights_of, weights_replaced
from mechvit.data import ImageBatch, corrupt, normalize

NOISE = "gaussian_noise_2"


def moved(model, blocks, scale=0.4):
    """A copy of which some blocks are another's."""
    tuned, generator = copy.deepcopy(model), torch.Generator().manual_seed(8)
    with torch.no_grad():
        for block in blocks:
            for parameter in tuned.blocks[block].parameters():
                parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return tuned


def without_labels(batch):
    return ImageBatch(batch.images, torch.full_like(batch.labels, -1), batch.image_ids)


@pytest.mark.parametrize("blocks", [(0,), (1,), (2,), (0, 1), (1, 2)])
def test_planted_runs_are_found_without_labels(tiny_model, batch, blocks):
    found = shortest_run(tiny_model, moved(tiny_model, blocks), without_labels(batch), NOISE, share=0.999, resamples=50)
    assert found.place == (blocks[0], blocks[-1])
    assert found.reason == ""
    summary = found.summary()
    assert sorted(summary["images"]) == ["held_out"] * 2 + ["selection"] * 2
    assert set(summary["receiver"]) == {"base", "tuned"}
    assert (summary[["recovered", "recovered_low", "recovered_high"]] == 1).all(axis=None)
    assert repr(found) == f"ShortestRun(in blocks {blocks[0]} to {blocks[-1]} of 3)"


def test_shares_are_those_of_mixed_models(tiny_model, batch):
    """1 - KL(giver | mixed) / KL(giver | receiver) on the selection, and the choice of the better smaller share."""
    tuned = shifted(copy.deepcopy(tiny_model), 0.1)
    found = shortest_run(tiny_model, tuned, batch, NOISE, share=0.2, resamples=20, seed=5)
    part, _ = split_images(batch, 0.5, seed=5)
    pixels = normalize(corrupt(part.images, NOISE, part.image_ids, seed=5), tiny_model.image_processor)
    table = found.to_frame(pair="mine").query("images == 'selection'").set_index(["receiver", "part"])

    def divergence(first, second):
        return (first.exp() * (first - second)).sum(-1).mean()

    for name, receiver, giver in (("base", tiny_model, tuned), ("tuned", tuned, tiny_model)):
        with torch.no_grad():
            own, theirs = (model(pixels).double().log_softmax(-1) for model in (receiver, giver))
        for layer in range(3):
            parts = [p for p in model_parts(receiver) if p.startswith(f"blocks.{layer}.")]
            with torch.no_grad(), weights_replaced(receiver, weights_of(giver, parts)):
                mixed = receiver(pixels).double().log_softmax(-1)
            wanted = 1 - divergence(theirs, mixed) / divergence(theirs, own)
            assert table.loc[(name, f"blocks.{layer}"), "recovered"] == pytest.approx(float(wanted), abs=1e-4)
    single = table[table["first"] == table["last"]]
    assert {"embed", "ln_final", "head"} <= set(single.index.get_level_values("part"))
    smaller = table[table["first"] >= 0].groupby(["first", "last"])["recovered"].min()
    if found.chosen is not None:
        length = found.chosen[1] - found.chosen[0] + 1
        same = smaller[[last - first + 1 == length for first, last in smaller.index]]
        assert found.chosen == same.idxmax()
        assert all(share < 0.2 for (first, last), share in smaller.items() if last - first + 1 < length)


def test_scattered_differences_are_in_no_single_place(tiny_model, batch):
    """The first and the last block, and the head, differ: no run of two blocks recovers all."""
    tuned = moved(tiny_model, (0, 2))
    found = shortest_run(tiny_model, tuned, batch, NOISE, share=0.99, resamples=20)
    assert found.place is None
    assert found.reason == "no_run"
    assert set(zip(found.table["first"], found.table["last"], strict=True)) == {
        (-1, -1),
        *((0, 0), (1, 1), (2, 2), (0, 1), (1, 2)),
    }
    assert found.summary().empty
    assert repr(found) == "ShortestRun(in no single place of 3: no_run)"
    head = copy.deepcopy(tiny_model)
    with torch.no_grad():
        head.head.weight.mul_(-1)
    table = shortest_run(tiny_model, head, batch, NOISE, resamples=20)
    assert table.place is None
    ends = table.table[table.table["part"] == "head"]
    assert (ends["recovered"] == 1).all()


def test_what_was_chosen_is_judged_on_other_images(tiny_model, batch, monkeypatch):
    """Where the images that chose have an easy difference and the others another, the run is not confirmed."""
    module = importlib.import_module("mechvit.analysis.weights.shortest_run")
    tuned = moved(tiny_model, (1,))
    shares = iter([1.0, 1.0, 0.5, 1.0])
    real = module._effects

    def fewer(*arguments):
        return real(*arguments).assign(recovered=next(shares))

    monkeypatch.setattr(module, "_effects", fewer)
    found = shortest_run(tiny_model, tuned, batch, NOISE, resamples=20)
    assert found.chosen is not None
    assert found.place is None
    assert found.reason == "not_confirmed"


def test_equal_models_have_no_place(tiny_model, batch):
    found = shortest_run(tiny_model, copy.deepcopy(tiny_model), without_labels(batch), resamples=20)
    assert found.place is None
    assert found.reason == "same_answers"
    assert found.table["recovered"].isna().all()


def test_passes_are_those_that_run(tiny_model, batch):
    tuned, ran = moved(tiny_model, (0, 2)), []
    for model in (tiny_model, tuned):
        for block in model.blocks:
            block.register_forward_pre_hook(lambda module, args: ran.append(len(args[0])))
    few = batch.take(slice(0, 4))
    found = shortest_run(tiny_model, tuned, few, NOISE, share=1.0, resamples=5)
    assert found.reason == "no_run"
    assert sum(ran) / 3 / 2 == pytest.approx(found.passes)  # three blocks, and two images to choose on


def test_bad_requests_are_refused(tiny_model, batch):
    for wrong in ({"share": 0.0}, {"share": 1.5}, {"longest": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            shortest_run(tiny_model, tiny_model, batch, **wrong)
    with pytest.raises(ValueError, match=r"their dtype is torch\.float32 and torch\.float64"):
        shortest_run(tiny_model, copy.deepcopy(tiny_model).double(), batch)
