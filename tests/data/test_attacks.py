"""Attacks: the ball, [0, 1], and the closed form on a linear model of two classes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mechvit.data import parse_condition
from mechvit.data.attacks import attack_images
from mechvit.data.conditions import Attack, bound
from mechvit.data.corruption_spec import CLEAN, Corruption

ROUNDING = 2**-23
"""One rounding of a pixel in [0, 1]: the ball's bounds are themselves sums that are rounded."""


def linear(weight):
    """Logits 0 and the weighted sum of the pixels, less that of a grey image."""

    def logits(images):
        score = ((images - 0.5) * weight).flatten(1).sum(1)
        return torch.stack([torch.zeros_like(score), score], 1)

    return logits


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    level=st.integers(1, 255),
    family=st.sampled_from(["pgd", "fgsm"]),
    scale=st.sampled_from([1e-3, 1.0, 30.0]),
)
def test_no_attack_leaves_the_ball_or_the_range(seed, level, family, scale):
    generator = torch.Generator().manual_seed(seed)
    images = (torch.rand(3, 3, 6, 6, generator=generator) * 1.4 - 0.2).clamp(0, 1)
    weight = scale * torch.randn(3, 6, 6, generator=generator)

    def logits(x):
        return torch.stack([(weight * x).flatten(1).sum(1).sin(), (weight * x * x).flatten(1).sum(1)], 1)

    found = attack_images(logits, images, torch.tensor([0, 1, -1]), torch.arange(3), Attack(family, level), seed=seed)
    assert float((found - images).abs().max()) <= level / 255 + ROUNDING
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**31), level=st.integers(1, 64), family=st.sampled_from(["pgd", "fgsm"]))
def test_on_a_linear_model_of_two_classes_an_attack_is_its_closed_form(seed, level, family):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(4, 3, 5, 5, generator=generator)
    weight = 0.1 * torch.randn(3, 5, 5, generator=generator)
    labels = torch.tensor([0, 1, 1, 0])
    found = attack_images(linear(weight), images, labels, torch.arange(4), Attack(family, level), seed=seed)
    away = torch.where(labels == 0, 1, -1)[:, None, None, None] * weight.sign()
    torch.testing.assert_close(found, (images + level / 255 * away).clamp(0, 1), rtol=0, atol=ROUNDING)


def test_without_a_label_the_prediction_is_the_target():
    weight = torch.ones(3, 4, 4)
    images = torch.cat([torch.full((1, 3, 4, 4), 0.2), torch.full((1, 3, 4, 4), 0.8)])
    unknown = attack_images(linear(weight), images, torch.tensor([-1, 7]), torch.arange(2), Attack("fgsm", 8))
    known = attack_images(linear(weight), images, torch.tensor([0, 1]), torch.arange(2), Attack("fgsm", 8))
    assert torch.equal(unknown, known)
    other = attack_images(linear(weight), images, torch.tensor([1, 0]), torch.arange(2), Attack("fgsm", 8))
    assert not torch.equal(other, known)
    own = Attack("fgsm", 8).against("any", uses_labels=False)
    assert torch.equal(attack_images(linear(weight), images, torch.tensor([1, 0]), torch.arange(2), own), known)


def test_the_start_is_the_seeds_and_the_images_alone():
    images, flat = torch.full((4, 3, 5, 5), 0.5), lambda x: 0 * x.flatten(1)[:, :2]  # no gradient: the start stays
    ids, labels, attack = torch.tensor([5, 6, 7, 8]), torch.zeros(4, dtype=torch.int64), Attack("pgd", 16)
    whole = attack_images(flat, images, labels, ids, attack, seed=3)
    one = attack_images(flat, images[2:3], labels[2:3], ids[2:3], attack, seed=3)
    assert torch.equal(whole[2:3], one)
    assert len(whole.unique(dim=0)) == 4
    assert not torch.equal(attack_images(flat, images, labels, ids, attack, seed=4), whole)
    assert 0.9 * 16 / 255 < float((whole - images).abs().max()) <= 16 / 255 + ROUNDING


def test_gradients_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match=r"fgsm_4 needs gradients that are finite; .* image ids \[9\]"):
        attack_images(
            lambda x: torch.stack([x.flatten(1).sum(1).sub(12).sqrt(), x.flatten(1).sum(1)], 1),
            torch.full((1, 3, 2, 2), 1.0),
            torch.tensor([0]),
            torch.tensor([9]),
            Attack("fgsm", 4),
        )


@pytest.mark.parametrize("text", ["pgd_4", "fgsm_255", "pgd_8@self", "fgsm_1@base", "pgd_4@tuned"])
def test_keys_read_back(text):
    assert parse_condition(text).key == text
    assert parse_condition(text) == parse_condition(parse_condition(text).key)
    assert parse_condition(text).group == "attack"


def test_titles_say_what_is_attacked():
    assert parse_condition("pgd_4@base").title == "PGD 4/255 on the base"
    assert parse_condition("fgsm_2").title == "FGSM 2/255"


@pytest.mark.parametrize("text", ["pgd", "pgd_0", "pgd_256", "pgd_4@other", "fgsm@self"])
def test_what_is_no_attack_is_refused_in_one_line(text):
    with pytest.raises(ValueError, match=r"an attack is pgd or fgsm with a radius of 1 to 255 .* as in pgd_4@base"):
        parse_condition(text)


def test_conditions_of_several_kinds_are_sorted(tmp_path):
    mixed = [parse_condition(text) for text in ("pgd_4@base", f"paired:{tmp_path}", "fog_3", "clean", "fgsm_4")]
    kinds = [type(condition).__name__ for condition in sorted(mixed)]
    assert kinds == ["Corruption", "Corruption", "PairedImages", "Attack", "Attack"]
    assert sorted(mixed)[0] == CLEAN
    assert max(mixed) == parse_condition("pgd_4@base")
    assert Corruption("fog", 2) < Corruption("fog", 3) <= Corruption("fog", 3)


def test_an_attack_knows_its_model_by_name_or_place():
    two, named = {"a": "A", "b": "B"}, {"x": "X", "tuned": "T", "base": "B"}
    for text, models, model in [
        ("pgd_4@base", two, "A"),
        ("pgd_4@tuned", two, "B"),
        ("pgd_4@base", named, "B"),
        ("pgd_4@tuned", named, "T"),
        ("pgd_4", {"only": "O"}, "O"),
    ]:
        found = bound(text, models)
        assert isinstance(found, Attack)
        assert found.model == model
        assert found.key == text
    pair = bound("pgd_4", two, plain_is_base=True)
    assert isinstance(pair, Attack)
    assert (pair.key, pair.model) == ("pgd_4", "A")
    kept = bound(Attack("pgd", 4, "base", uses_labels=False), two)
    assert isinstance(kept, Attack)
    assert (kept.model, kept.uses_labels) == ("A", False)
    assert bound("pgd_4@self", two) == Attack("pgd", 4, "self")
    for text, models, said in [
        ("pgd_4", two, r"pgd_4 must say which of 2 models it attacks: pgd_4@self .*, pgd_4@base \(a\) or pgd_4@tuned"),
        ("pgd_4@tuned", {"a": "A", "b": "B", "c": "C"}, "attacks the tuned of two models, and 3 are given"),
        ("pgd_4@base", {"a": "A"}, "attacks the base of two models, and one is given, a: give pgd_4"),
    ]:
        with pytest.raises(ValueError, match=said):
            bound(text, models)
