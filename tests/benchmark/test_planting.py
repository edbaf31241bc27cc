"""Planted changes are where, of what kind and of what strength they say, and nothing else computes anything new."""

from __future__ import annotations

import copy
import dataclasses
import json
import math

import pytest
import torch
from hf_zoo import ZOO
from shifted_models import shifted

from mechvit import HookedViT
from mechvit.analysis import kinship, weight_change
from mechvit.benchmark import Planted, mean_divergence, plant
from mechvit.data.pixels import normalize

UNIT = 0.02
CHANGES = ("mlp_rank_one", "head_queries_permuted", "ln_gains", "attn_constant", "class_projected_out")
NOTHING = ("qk_rotation", "head_permutation", "neuron_permutation")


@pytest.fixture
def drift(tiny_model):
    return shifted(tiny_model, 0.02)


def changed(before: HookedViT, after: HookedViT) -> dict[str, float]:
    """Squared Frobenius norm of each tensor's change, those that are equal left out."""
    own = after.own_state_dict()
    norms = {name: float((own[name] - t).double().square().sum()) for name, t in before.own_state_dict().items()}
    return {name: norm for name, norm in norms.items() if norm}


def logits_of(model: HookedViT, batch) -> torch.Tensor:
    with torch.no_grad():
        return model(normalize(batch.images, model.image_processor)).double()


def without_decoys(drift: HookedViT, found: Planted) -> HookedViT:
    """The drift model with the planted part alone."""
    alone = copy.deepcopy(drift)
    with torch.no_grad():
        for name, values in found.model.own_state_dict().items():
            if name.startswith(found.truth.part + "."):
                alone.get_parameter(name).copy_(values)
    return alone


@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_is_in_its_part_and_has_its_strength(drift, batch, kind):
    found = plant(drift, kind, 1, 1.0, 3, images=batch, unit=UNIT, decoys=False)
    truth = found.truth
    names = changed(drift, found.model)
    assert names
    assert all(name.startswith(truth.part + ".") for name in names)
    assert math.sqrt(sum(names.values())) == pytest.approx(truth.norm, rel=1e-4)
    before, after = logits_of(drift, batch).log_softmax(-1), logits_of(found.model, batch).log_softmax(-1)
    own = float((before.exp() * (before - after)).sum(-1).mean())
    assert truth.divergence == pytest.approx(own, rel=1e-4)
    assert truth.reached == pytest.approx(own / UNIT, rel=1e-4)
    assert truth.is_reached == (abs(truth.reached - 1) <= 0.1)
    assert truth.is_reached or truth.scale == 1
    assert json.loads(json.dumps(truth.to_dict()))["kind"] == kind


@pytest.mark.parametrize("strength", [0.5, 1, 2, 4])
def test_an_edit_without_bound_reaches_every_strength(drift, batch, strength):
    truth = plant(drift, "mlp_rank_one", 0, strength, 0, images=batch, unit=UNIT, decoys=False).truth
    assert truth.reached == pytest.approx(strength, rel=0.051)
    assert truth.is_reached


def test_what_saturates_is_planted_at_its_strongest(drift, batch):
    found = plant(drift, "head_queries_permuted", 1, 1.0, 1, images=batch, unit=50.0, decoys=False)
    assert found.truth.scale == 1
    assert found.truth.reached < 0.9
    assert not found.truth.is_reached
    rows = slice(found.truth.head * drift.cfg.d_head, (found.truth.head + 1) * drift.cfg.d_head)
    own, other = (model.blocks[1].attn.q.weight[rows] for model in (drift, found.model))
    assert sorted(map(tuple, own.tolist())) == sorted(map(tuple, other.tolist()))
    assert not any(a.equal(b) for a, b in zip(own, other, strict=True))


def test_a_rank_one_edit_has_effective_rank_one_and_its_direction(drift, batch):
    found = plant(drift, "mlp_rank_one", 2, 2.0, 5, images=batch, unit=UNIT, decoys=False)
    (own,) = (w for w in weight_change(drift, found.model).weights if w.change_norm)
    assert own.weight == "blocks.2.mlp.fc2.weight"
    assert own.effective_rank == pytest.approx(1, abs=1e-3)
    change = (found.model.blocks[2].mlp.fc2.weight - drift.blocks[2].mlp.fc2.weight).detach().double()
    left = torch.linalg.svd(change).U[:, 0]
    assert abs(float(left @ found.truth.direction)) == pytest.approx(1, abs=1e-5)


def test_a_constant_leaves_cka_where_it_is_written_and_moves_it_after(drift, batch):
    model = drift.double()
    found = plant(model, "attn_constant", 1, 4.0, 0, images=batch, unit=UNIT, decoys=False)
    streams = {}
    for name, each in (("drift", model), ("planted", found.model)):
        with torch.no_grad():
            _, cache = each.run_with_cache(normalize(batch.images, each.image_processor).double())
        streams[name] = cache
    mid = [streams[name]["blocks.1.hook_resid_mid"] for name in ("drift", "planted")]
    constant = (mid[1] - mid[0]).flatten(0, 1)
    assert torch.allclose(constant, constant[:1].expand_as(constant), atol=1e-12)
    assert torch.allclose(constant[0] / constant[0].norm(), found.truth.direction, atol=1e-9)

    def cka(point: str) -> float:
        first, second = (streams[name][point].flatten(0, 1) for name in ("drift", "planted"))
        first, second = first - first.mean(0), second - second.mean(0)
        cross = (first.T @ second).norm() ** 2
        return float(cross / ((first.T @ first).norm() * (second.T @ second).norm()))

    assert cka("blocks.1.hook_resid_mid") == pytest.approx(1, abs=1e-12)
    assert cka("blocks.1.hook_resid_post") < 1 - 1e-6


def test_a_projection_leaves_nothing_along_its_direction(drift, batch):
    found = plant(drift, "class_projected_out", 1, 4.0, 2, images=batch, unit=50.0, decoys=False)
    assert found.truth.scale == 1
    point = f"blocks.1.hook_{found.truth.part.split('.')[-1]}_out"
    pixels = normalize(batch.images, drift.image_processor)
    with torch.no_grad():
        before, after = (model.run_with_cache(pixels)[1][point].double() for model in (drift, found.model))
    assert float((before @ found.truth.direction).abs().mean()) > 1e-2
    assert float((after @ found.truth.direction).abs().max()) < 1e-4


@pytest.mark.parametrize("kind", ["mlp_rank_one", "attn_constant", "qk_rotation"])
@pytest.mark.parametrize("strength", [0.5, 4])
def test_decoys_have_the_norm_of_the_edit_and_change_no_answer(drift, batch, kind, strength):
    model = drift.double()
    strength = 0 if kind == "qk_rotation" else strength
    found = plant(model, kind, 1, strength, 3, images=batch, unit=UNIT)
    alone = without_decoys(model, found)
    assert torch.allclose(logits_of(found.model, batch), logits_of(alone, batch), atol=1e-8)
    branches = ("ln1+attn", "ln2+mlp")
    by_branch = {f"blocks.{layer}.{branch}": 0.0 for layer in range(3) for branch in branches}
    for name, square in changed(model, found.model).items():
        _, layer, part, *_ = name.split(".")
        by_branch[f"blocks.{layer}.{branches[part in ('ln2', 'mlp')]}"] += square
    for branch, square in by_branch.items():
        assert math.sqrt(square) == pytest.approx(found.truth.norm, rel=1e-6), branch
    assert {decoy.branch for decoy in found.truth.decoys} == set(by_branch) - {found.truth.branch}
    assert all(decoy.norm == pytest.approx(found.truth.norm, rel=1e-6) for decoy in found.truth.decoys)


def test_a_planted_model_is_kin_of_its_drift(drift, batch):
    assert kinship(drift, plant(drift, "mlp_rank_one", 1, 4.0, 3, images=batch, unit=UNIT).model).is_kin


SUITED = {
    "vit classifier, no qkv bias": NOTHING,
    "beit classifier, all positions": (NOTHING[0], NOTHING[2]),
    "data2vec classifier, relative bias": NOTHING,
    "dinov2 classifier, swiglu": NOTHING,
    "clip classifier": NOTHING,
    "siglip2 classifier": NOTHING,
}


@pytest.mark.parametrize(("entry", "kind"), [(entry, kind) for entry, kinds in SUITED.items() for kind in kinds])
def test_no_ops_change_no_answer_in_any_family(entry, kind, batch):
    model = HookedViT.from_hf(ZOO[entry](torch.float64))
    found = plant(model, kind, 1, 0, 4, images=batch, unit=UNIT, decoys=False)
    names = changed(model, found.model)
    assert names
    assert all(name.startswith("blocks.1.") for name in names)
    images = batch.images.double()
    with torch.no_grad():
        assert torch.allclose(model(images), found.model(images), atol=1e-10)
    assert not found.truth.changes_function


@pytest.mark.parametrize("entry", ["beit classifier, all positions", "dinov2 classifier, swiglu", "clip classifier"])
def test_changes_and_decoys_suit_other_families(entry, batch):
    model = HookedViT.from_hf(ZOO[entry](torch.float64))
    for kind in CHANGES if entry.startswith("dinov2") else CHANGES[:4]:  # the others take all images for one class
        found = plant(model, kind, 1, 1.0, 4, images=batch, unit=UNIT)
        alone = without_decoys(model, found)
        with torch.no_grad():
            images = batch.images.double()
            assert torch.allclose(found.model(images), alone(images), atol=1e-7), kind
            assert not torch.allclose(model(images), alone(images), atol=1e-3), kind


def test_seeds_reproduce_and_differ(drift, batch):
    def state(seed: int, kind: str = "mlp_rank_one", layer: int = 1) -> torch.Tensor:
        model = plant(drift, kind, layer, 1.0, seed, images=batch, unit=UNIT).model
        return torch.cat([t.flatten() for t in model.own_state_dict().values()])

    before = torch.cat([t.flatten() for t in drift.own_state_dict().values()])
    assert state(1).equal(state(1))
    assert not state(1).equal(state(2))
    assert not state(1).equal(state(1, layer=2))
    assert before.equal(torch.cat([t.flatten() for t in drift.own_state_dict().values()]))


def test_what_does_not_suit_is_refused(drift, batch):
    def planting(kind: str, strength: float = 1.0, layer: int = 1, **changes):
        return lambda model: plant(model, kind, layer, strength, 0, **{"images": batch, "unit": UNIT} | changes)

    rotary = next(name for name, entry in ZOO.items() if entry.family == "dinov3_vit")
    hooked = HookedViT.from_hf(ZOO["vit classifier"]())
    hooked.blocks[0].hook_resid_pre.add_hook(lambda values, hook: values)
    folded = HookedViT.from_hf(ZOO["vit classifier"]()).process_weights_(fold_ln=True)
    shared = HookedViT.from_hf(ZOO["beit classifier, all positions"]())
    cases = [
        (planting("rank"), drift, "kind must be one of mlp_rank_one, .*; got 'rank'"),
        (planting("ln_gains", layer=3), drift, "layer must be a block of the model, 0 to 2; got 3"),
        (planting("ln_gains", 0), drift, "strength of ln_gains must be above 0; got 0"),
        (planting("qk_rotation", 1), drift, "strength of qk_rotation must be 0, since it changes no function; got 1"),
        (planting("ln_gains", unit=0.0), drift, "unit must be finite and above 0; got 0"),
        (planting("ln_gains"), folded, "these are processed"),
        (planting("ln_gains"), hooked, "without hooks"),
        (planting("head_permutation", 0), shared, "no position bias is shared"),
        (planting("ln_gains"), HookedViT.from_hf(ZOO[rotary]()), "classification head"),
        (planting("class_projected_out"), HookedViT.from_hf(ZOO["clip classifier"]()), "none is so: give more images"),
    ]
    for call, model, line in cases:
        with pytest.raises(ValueError, match=line):
            call(model)


def test_rotary_models_are_not_turned(batch):
    from mechvit.benchmark.decoys import attention_decoy
    from mechvit.benchmark.no_ops import NO_OPS

    model = HookedViT.from_hf(ZOO["dinov3 encoder, key bias, gated"](torch.float64))
    with pytest.raises(ValueError, match="rotary positions"):
        NO_OPS["qk_rotation"](model, 0, torch.Generator(), lambda: iter(()))
    if model.cfg.v_bias:
        assert attention_decoy(model, 0, 0.5, torch.Generator())[0] == "unseen_direction"


def test_a_decoy_that_changes_something_is_refused(drift, batch, monkeypatch):
    from mechvit.benchmark import planting
    from mechvit.benchmark.edits import EDITS

    def not_a_decoy(model, layer, norm, generator):
        return "qk_rotation", EDITS["ln_gains"](model, layer, generator, None).at(0.5)

    monkeypatch.setattr(planting, "mlp_decoy", not_a_decoy)
    with pytest.raises(ValueError, match="must change no answer"):
        plant(drift, "attn_constant", 1, 1.0, 0, images=batch, unit=UNIT)


def test_the_unit_is_the_mean_divergence(tiny_model, drift, batch):
    other = shifted(HookedViT.from_hf(tiny_model.to_hf(), tiny_model.image_processor), 0.05)
    first, second = (logits_of(model, batch).log_softmax(-1) for model in (drift, other))
    own = float((first.exp() * (first - second)).sum(-1).mean())
    assert mean_divergence(drift, other, batch, batch_size=5) == pytest.approx(own, rel=1e-6)
    assert mean_divergence(drift, drift, batch) == 0
    assert dataclasses.is_dataclass(plant(drift, "ln_gains", 0, 1.0, 0, images=batch, unit=own).truth)
