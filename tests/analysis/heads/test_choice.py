"""The choice of a head by its rules, and the four combinations of two encoders and two heads."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from mechvit import HookedViT
from mechvit.analysis import choose_head, evaluate, fit_probe, head_combinations, kinship
from mechvit.data import ImageBatch
from mechvit.models import graft_head, linear_head

THREE = {0: "red", 1: "green", 2: "blue"}


def moved(model: HookedViT, scale: float = 0.05) -> HookedViT:
    """A model tuned a little: every weight moved."""
    found, generator = copy.deepcopy(model), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return found


def bare(model: HookedViT) -> HookedViT:
    """The model as a bare encoder."""
    return HookedViT.from_hf(copy.deepcopy(model.to_hf().vit), model.image_processor)


def three(model: HookedViT) -> HookedViT:
    """The model with another three classes."""
    generator = torch.Generator().manual_seed(6)
    return linear_head(model, torch.randn(3, 32, generator=generator), torch.zeros(3), THREE)


def unrelated(model: HookedViT) -> HookedViT:
    found, generator = copy.deepcopy(model), torch.Generator().manual_seed(8)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return found


@pytest.mark.parametrize("labels", [True, False])
def test_equal_classes_take_their_own_heads(tiny_model, labels):
    for tuned in (moved(tiny_model), unrelated(tiny_model)):
        found = choose_head(tiny_model, tuned, labels=labels)
        assert found.heads == ("own",)
        assert found.for_interventions == "own"
        assert found.sentence == "Compared through each model's own head: the classes are the same."


def test_other_classes_take_the_tuned_head_beside_probes(tiny_model):
    tuned = three(moved(tiny_model))
    for base in (tiny_model, bare(tiny_model)):
        with_labels = choose_head(base, tuned, labels=True)
        assert with_labels.heads == ("tuned", "probe")
        assert with_labels.for_interventions == "tuned"
        without = choose_head(base, tuned, labels=False)
        assert without.heads == ("tuned",)
        assert "the images have no labels to fit a probe on" in without.reason
    assert "other classes (5 and 3)" in choose_head(tiny_model, tuned, labels=True).reason
    assert "a ViTModel is a bare encoder" in choose_head(bare(tiny_model), tuned, labels=True).reason


def test_bare_encoders_take_probes_or_nothing(tiny_model):
    base, tuned = bare(tiny_model), bare(moved(tiny_model))
    assert choose_head(base, tuned, labels=True).heads == ("probe",)
    nothing = choose_head(base, tuned, labels=False)
    assert nothing.heads == ()
    assert nothing.for_interventions is None
    assert nothing.sentence.startswith("Compared through no head: the base model has no classes")


def test_no_kin_take_no_grafted_head(tiny_model):
    tuned = three(unrelated(tiny_model))
    found = choose_head(tiny_model, tuned, labels=True)
    assert found.heads == ("probe",)
    assert "a grafted head needs kin" in found.reason
    assert choose_head(tiny_model, tuned, labels=False).heads == ()


def test_what_is_asked_for_is_taken_or_refused(tiny_model):
    tuned = three(moved(tiny_model))
    assert choose_head(tiny_model, tuned, labels=True, asked="none").heads == ()
    assert choose_head(tiny_model, tuned, labels=True, asked="probe").heads == ("probe",)
    assert choose_head(tiny_model, tuned, labels=False, asked="tuned").heads == ("tuned",)
    assert choose_head(tiny_model, moved(tiny_model), labels=True, asked="tuned").heads == ("tuned",)
    for asked, other, labels, why in (
        ("own", tuned, True, "other classes"),
        ("probe", tuned, False, "no labels"),
        ("tuned", bare(tiny_model), True, "no head to graft"),
        ("tuned", three(unrelated(tiny_model)), True, "needs kin"),
        ("best", tuned, True, "auto, own, tuned, probe, none"),
    ):
        with pytest.raises(ValueError, match=why):
            choose_head(tiny_model, other, labels=labels, asked=asked)


@pytest.fixture
def pair(tiny_model, batch) -> tuple[HookedViT, HookedViT, ImageBatch]:
    """Models of the same classes, and images that the tuned model gets right."""
    tuned = moved(tiny_model, 0.2)
    labels = evaluate(tuned, batch).prediction
    return tiny_model, tuned, dataclasses.replace(batch, labels=labels)


def test_the_four_combinations_are_those_of_grafted_models(pair):
    base, tuned, images = pair
    found = head_combinations(base, tuned, images, folds=2)
    assert found.left_out == {}
    models = {
        ("base", "base"): base,
        ("tuned", "base"): graft_head(tuned, base),
        ("base", "tuned"): graft_head(base, tuned),
        ("tuned", "tuned"): tuned,
    }
    table = found.summary(resamples=50).set_index(["encoder", "head", "metric"])["value"]
    for key, model in models.items():
        assert table[*key, "accuracy"] == pytest.approx(evaluate(model, images).accuracy)
        assert table[*key, "ece"] == pytest.approx(evaluate(model, images).ece())
    for name, model in (("base", base), ("tuned", tuned)):
        probe = fit_probe(model, images, folds=2, id2label=tuned.cfg.id2label)
        assert table[name, "probe", "accuracy"] == pytest.approx(probe.performance().accuracy)
    assert len(table) == 12
    assert repr(found).startswith("HeadCombinations(accuracy: base encoder with base ")
    assert list(found.to_frame(pair="a"))[:3] == ["pair", "encoder", "head"]
    assert table["tuned", "tuned", "accuracy"] == 1


def test_the_parts_of_a_gain_sum_to_it(pair):
    found = head_combinations(*pair, folds=2)
    value = found.gains(resamples=50).set_index(["what", "metric"])["value"]
    for metric in ("accuracy", "ece"):
        assert value["encoder", metric] + value["head", metric] == pytest.approx(value["whole", metric])
    table = found.summary(resamples=50).set_index(["encoder", "head", "metric"])["value"]
    gap = table["tuned", "tuned", "accuracy"] - table["base", "base", "accuracy"]
    assert value["whole", "accuracy"] == pytest.approx(gap)
    assert gap > 0


def test_a_new_head_alone_is_the_whole_gain(tiny_model, batch):
    """The encoders are equal: nothing is the encoder's, and after grafting the models are one."""
    tuned = copy.deepcopy(tiny_model)
    with torch.no_grad():
        tuned.head.weight.normal_()
    images = dataclasses.replace(batch, labels=evaluate(tuned, batch).prediction)
    value = head_combinations(tiny_model, tuned, images, folds=2).gains(resamples=50)
    value = value[value["metric"] == "accuracy"].set_index("what")
    for what in ("encoder", "encoder with base", "encoder with tuned", "encoder with probe"):
        assert (value.loc[what, ["value", "low", "high"]] == 0).all()
    assert value.loc["head", "value"] == value.loc["whole", "value"] > 0


def test_a_bare_base_has_the_tuned_head_and_a_probe(tiny_model, batch):
    tuned = moved(tiny_model)
    found = head_combinations(bare(tiny_model), tuned, batch, folds=2)
    combinations = set(zip(found.performance["encoder"], found.performance["head"], strict=True))
    assert combinations == {("base", "tuned"), ("tuned", "tuned"), ("base", "probe"), ("tuned", "probe")}
    assert set(found.left_out) == {"base"}
    assert set(found.gains(resamples=20)["what"]) == {"encoder with tuned", "encoder with probe"}
    apart = head_combinations(tiny_model, unrelated(tiny_model), batch, folds=2)
    assert len(apart.performance) == 4 * len(batch)
    assert "needs kin" in apart.left_out["tuned"]
    assert not kinship(tiny_model, unrelated(tiny_model)).is_kin
