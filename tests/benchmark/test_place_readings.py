"""Readings of every place: a planted MLP is found by those that must, and what changes no function is nothing."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from shifted_models import shifted

from mechvit.benchmark import METHODS, plant, read_places
from mechvit.benchmark.readings import BY_WEIGHTS, HEADS, increments

FINDS = {
    "activation patching": "output",
    "weight swapping": "both",
    "smallest set": "order",
    "weight change": "norm",
    "difference lens": "length, increments",
    "logit lens": "probability, increments",
}


@pytest.fixture(scope="module")
def base(tiny_hf, tiny_processor):
    from mechvit import HookedViT

    return HookedViT.from_hf(tiny_hf, tiny_processor)


@pytest.fixture(scope="module")
def found(base, batch):
    """Readings of a pair that differs in `blocks.1.mlp` alone."""
    tuned = copy.deepcopy(base)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in tuned.blocks[1].mlp.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return read_places(base, tuned, batch)


def test_every_place_has_a_score_by_every_method(found, base):
    cfg = base.cfg
    assert set(found["method"]) == set(METHODS)
    assert np.isfinite(found["value"]).all()
    for (_, reading), part in found.groupby(["method", "reading"]):
        heads = reading in HEADS
        assert len(part) == (cfg.n_layers * cfg.n_heads if heads else 2 * cfg.n_layers)
        assert set(part["head"]) == (set(range(cfg.n_heads)) if heads else {-1})


@pytest.mark.parametrize(("method", "reading"), FINDS.items())
def test_the_one_branch_that_differs_is_found(found, method, reading):
    part = found[(found["method"] == method) & (found["reading"] == reading)]
    best = part[part["value"] == part["value"].max()]
    assert set(best["layer"]) == {1}
    assert "mlp" in set(best["branch"])


def test_before_the_change_nothing_differs(found):
    """Attention of blocks 0 and 1, and the stream up to the change, are equal in both models."""
    entropy = found[(found["method"] == "attention entropy") & found["reading"].isin(["entropy", "distance"])]
    before = entropy[(entropy["branch"] == "attn") & (entropy["layer"] <= 1)]
    assert len(before) == 4
    assert (before["value"] == 0).all()
    stream = found[found["reading"].isin(["length", "probability"]) & (found["layer"] == 0)]
    assert (stream["value"] == 0).all()
    cka = found[(found["method"] == "CKA") & (found["reading"] == "mean")].groupby("layer")["value"].max()
    assert cka[0] == pytest.approx(0, abs=1e-6)
    assert cka[1] > 1e-4


@pytest.mark.parametrize("kind", ["qk_rotation", "neuron_permutation", "head_permutation"])
def test_functional_readings_of_branches_say_nothing_of_a_no_op(base, batch, kind):
    drift = shifted(copy.deepcopy(base).double(), 0.01)
    own = copy.deepcopy(base).double()
    same = plant(own, kind, 1, 0, 0, images=batch, unit=0.01).model
    methods = [name for name in METHODS if name not in BY_WEIGHTS | {"smallest set"}]
    nothing, something = (read_places(own, other, batch, methods) for other in (same, drift))
    functional = ~nothing["reading"].isin(HEADS)
    if kind == "head_permutation":  # heads are compared by their numbers
        functional &= ~nothing["reading"].str.startswith("distance")
    size = something[functional].groupby(["method", "reading"])["value"].apply(lambda v: v.abs().max())
    left = nothing[functional].groupby(["method", "reading"])["value"].apply(lambda v: v.abs().max())
    assert ((left <= 1e-4 * size) | (left < 1e-9)).all(), left / size
    assert read_places(own, same, batch, ["weight change"])["value"].max() > 0.1


def test_increments_add_up():
    stream = np.array([0.0, 1.0, 3.0, 2.0])
    assert increments(stream).tolist() == [[1, 1], [2, 2], [-1, -1]]


def test_an_unknown_method_is_refused(base, batch):
    with pytest.raises(ValueError, match=r"methods must be some of activation patching, .*; got tarot"):
        read_places(base, base, batch, ["tarot"])


def test_patching_takes_models_in_float64(base, batch):
    from mechvit.analysis import patch_models

    own = copy.deepcopy(base).double()
    tuned = shifted(copy.deepcopy(base).double(), 0.05)
    wide, narrow = patch_models(own, tuned, batch, "clean"), patch_models(base, tuned.float(), batch, "clean")
    assert wide.logit_difference.dtype == torch.float64
    assert torch.allclose(wide.logit_difference.float(), narrow.logit_difference, atol=1e-3)
