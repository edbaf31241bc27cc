"""The checks of annotations are on, and speak of shapes, dtypes and types; see `shape_checks`."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
import shape_checks
import torch
from beartype.roar import BeartypeCallHintViolation
from shape_checks import checked, paused

from mechvit.analysis.representations.hsic import widened


def violation(act):
    """The message of a violation; an error that `pytest.raises` expects is not looked for."""
    try:
        act()
    except BeartypeCallHintViolation as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("origin", "said"),
    [
        (torch.zeros(2, 1, 4), None),
        (torch.zeros(2, 1, 1), "dimension d is 1"),
        (torch.zeros(2, 3, 4), "size 3 does not equal 1"),
        (torch.zeros(4), "1 dimension"),
        (torch.zeros(2, 1, 4, dtype=torch.int64), "int64"),
    ],
    ids=["right", "another width", "another size", "another rank", "another dtype"],
)
def test_a_shape_or_dtype_that_the_code_would_broadcast_is_found(origin, said):
    found = violation(lambda: widened(torch.ones(2, 3, 4), origin))
    assert (found is None) if said is None else (said in found), found


def test_types_alone_are_checked_where_that_is_asked_for(monkeypatch):
    """Arguments, results and a dataclass's fields are checked; an int is a float."""

    def made():
        @checked
        def wrong() -> int:
            return json.loads('"1"')

        @checked
        @dataclass
        class Named:
            width: float

        return wrong, Named

    for asked in (False, True):
        monkeypatch.setattr(shape_checks, "EVERY_TYPE", asked)
        wrong, named = made()
        assert ("str" in str(violation(wrong))) == asked
        assert (violation(lambda named=named: named("1")) is not None) == asked
        assert violation(lambda named=named: named(1)) is None


def test_nothing_is_checked_where_an_error_is_expected_or_checks_are_paused():
    x, origin = torch.ones(2, 3, 4), torch.zeros(2, 1, 1)
    with paused():
        assert violation(lambda: widened(x, origin)) is None

    def fails() -> None:
        assert violation(lambda: widened(x, origin)) is None
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert violation(lambda: widened(x, origin)) is not None
