"""The entries that the daily tests of structure take meet every option that the whole zoo meets."""

from __future__ import annotations

import functools
from dataclasses import fields

import pytest
from family_runs import CLASSIFIERS
from hf_zoo import ZOO
from zoo_options import DAILY, NO_OPTIONS, SIZES, daily, daily_but, exact, options_met

from mechvit.models import HookedViTConfig
from mechvit.models.families.supported import FAMILIES


@functools.cache
def options_of(names: tuple[str, ...]) -> set[tuple[str, object]]:
    return set().union(*map(options_met, names))


@pytest.mark.long
@pytest.mark.parametrize("names", [tuple(ZOO), tuple(CLASSIFIERS)], ids=["all", "classifiers"])
def test_the_daily_entries_meet_every_option(names):
    """A test of classifiers takes the classifiers among them, which meet what all classifiers do."""
    missing = options_of(names) - options_of(tuple(name for name in DAILY if name in names))
    assert missing == set(), "add an entry with these to zoo_options.DAILY"


def test_every_family_is_met():
    assert {value for option, value in options_of(DAILY) if option == "family"} == set(FAMILIES)


def test_the_daily_entries_are_few_and_in_the_zoo():
    assert len(set(DAILY)) == len(DAILY) <= 18
    assert set(DAILY) <= set(ZOO)


def test_every_field_of_the_configuration_is_an_option_or_named_as_none():
    known = {field.name for field in fields(HookedViTConfig)}
    assert set(SIZES) | set(NO_OPTIONS) <= known
    assert not set(SIZES) & set(NO_OPTIONS)
    met = {option for option, _ in options_of(("vit encoder",))}
    assert met == known - set(NO_OPTIONS) | {"weight", "point"}


def test_options_of_an_entry_are_those_of_its_checkpoint():
    """Written out by hand from Hugging Face's configurations, so that an option read off wrongly shows."""
    expected = {
        "registers classifier, swiglu": {("gated_mlp", True), ("n_registers", True), ("layer_scale", True)},
        "dinov3 encoder, few biases": {
            ("o_bias", False),
            ("mlp_bias", False),
            ("q_bias", False),
            ("positions", "rotary"),
        },
        "clip bare": {("ln_pre", True), ("pooler", "projection"), ("patch_bias", False), ("final_norm", "none")},
        "deit with teacher": {("pooling", "cls+distillation"), ("distillation_token", True), ("n_classes", True)},
    }
    for name, options in expected.items():
        assert options <= options_met(name)


def test_a_test_of_exactness_takes_every_entry_once():
    found = [(each.values, [mark.name for mark in each.marks]) for each in daily_but("a", ["b", "c"])]
    assert [values for values, _ in found] == [(name, value) for value in "abc" for name in ZOO]
    for (name, value), marks in found:
        assert marks == ([] if name in DAILY else ["long"] if value == "a" else ["slow"])
    marked = [each for each in exact() if not isinstance(each, str)]
    assert [each.values[0] for each in marked] == [name for name in ZOO if name not in DAILY]
    assert all([mark.name for mark in each.marks] == ["long"] for each in marked)


def test_the_rest_of_the_zoo_is_slow():
    marked = [parameter for parameter in daily() if not isinstance(parameter, str)]
    assert [name for name in daily() if isinstance(name, str)] == [name for name in ZOO if name in DAILY]
    assert [parameter.values[0] for parameter in marked] == [name for name in ZOO if name not in DAILY]
    assert all([mark.name for mark in parameter.marks] == ["slow"] for parameter in marked)
