"""Ranges of settings: what lies in them, and what the refusal says."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechvit import settings_checks as checks
from mechvit.settings_checks import Range, SettingError, check, check_choice, check_named, check_number, check_some

RANGES = {
    "COUNT": "at least 1",
    "COUNT_OR_ZERO": "at least 0",
    "SEED": "in [0, 4294967295]",
    "RESAMPLES_RANGE": "in [1, 1000000]",
    "THREADS": "in [1, 1024]",
    "POSITIVE": "finite and above 0",
    "NOT_NEGATIVE": "finite and at least 0",
    "SHARE": "in [0, 1]",
    "SHARE_BELOW_ONE": "in [0, 1)",
    "SHARE_ABOVE_ZERO": "in (0, 1]",
    "LEVEL_RANGE": "in (0, 1)",
}


@pytest.mark.parametrize(("name", "text"), RANGES.items())
def test_a_range_says_what_must_be_and_holds_only_that(name, text):
    allowed = getattr(checks, name)
    assert str(allowed) == text
    for wrong in (math.nan, math.inf, -math.inf, -1, None, "1", True, 1j, allowed.least - 1):
        assert wrong not in allowed
    inside = 1 if allowed.whole else 0.5
    assert inside in allowed
    assert np.float32(0.5) in allowed or allowed.whole
    assert (np.int64(1) in allowed) == (1 in allowed)
    assert (allowed.least in allowed) != allowed.open_below
    if allowed.most < math.inf:
        assert (allowed.most in allowed) != allowed.open_above
        assert allowed.most + 1 not in allowed


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_a_closed_range_is_its_two_comparisons(value, least, span):
    assert (value in Range(least, least + span, whole=False)) == (least <= value <= least + span)


@dataclass
class Settings:
    count: object = 1
    rates: object = (0.1, 0.2)
    name: object = "a"
    words: object = ("x", "y")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0, "count must be at least 1; got 0"),
        (1.5, "count must be a whole number; got 1.5"),
        (math.nan, "count must be at least 1; got nan"),
        (True, "count must be at least 1; got True"),
        ("3", "count must be at least 1; got '3'"),
        (None, "count must be at least 1; got None"),
    ],
)
def test_a_refusal_names_setting_range_and_value(value, message):
    with pytest.raises(SettingError) as error:
        check(Settings(count=value), checks.COUNT, "count")
    assert str(error.value) == message
    assert error.value.name == "count"


def test_each_member_of_a_tuple_is_looked_at():
    check(Settings(), checks.POSITIVE, "rates")
    with pytest.raises(SettingError, match=r"rates must be finite and above 0; got -2"):
        check(Settings(rates=(0.1, -2.0)), checks.POSITIVE, "rates")
    check(Settings(count=None), checks.COUNT, "count", or_none=True)
    check_number("k", 10**30, checks.COUNT)


@pytest.mark.parametrize("name", ["", "  ", "a\0b", ("a", "")])
def test_names_are_not_empty_and_hold_no_nul(name):
    check_named(Settings(name=None), "name")
    with pytest.raises(SettingError, match=r"name must not (be empty|hold a NUL)"):
        check_named(Settings(name=name), "name")


def test_lists_name_something_and_each_once():
    check_some(Settings(), "words")
    for nothing in ((), None):
        check_some(Settings(words=nothing), "words", or_none=True)
    with pytest.raises(SettingError, match="words must name at least one"):
        check_some(Settings(words=()), "words")
    with pytest.raises(SettingError, match="words must name each once; got x, x"):
        check_some(Settings(words=("x", "x")), "words")


def test_choices_are_listed():
    check_choice(Settings(), words=("x", "y"), name=("a",))
    with pytest.raises(SettingError, match="words must be among x, z; got 'y'"):
        check_choice(Settings(), words=("x", "z"))


@pytest.mark.processes
def test_the_light_modules_import_nothing_heavy():
    code = (
        "import sys, mechvit.settings_checks, mechvit.terminal, mechvit.experiment.inputs; "
        "heavy = {'torch', 'transformers', 'numpy', 'pandas', 'tqdm', 'datasets'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
