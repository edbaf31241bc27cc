"""A benchmark's result: JSON and back, its table, its verdicts."""

from __future__ import annotations

import dataclasses
import json

import pytest
import report
import torch
from report import FILES, Beginning, Measure, Result, figure, markdown, write
from timing import Timing, spread

from mechvit.files import MARKER

TIMING = Timing(seconds={"ours": tuple(1 + i / 100 for i in range(9)), "theirs": (1.0,) * 9})


def measure(limit: float | None, n: int = 9) -> Measure:
    """Ratios 1.00, 1.01, ...: with n = 9 the median is 1.04 and its interval 1.01 .. 1.07."""
    ratios = [1 + i / 100 for i in range(n)]
    return Measure(
        part="caching", contender="ours", over="theirs", seconds=spread(ratios), value=spread(ratios), limit=limit
    )


@pytest.fixture
def result() -> Result:
    return Result(
        title="A cost",
        settings={"device": "cpu", "parts": ["caching"], "quick": True},
        measures=(measure(1.5), measure(None, n=3)),
        timings={"caching": TIMING},
        agreement={"caching": {"ours": 2e-7}},
        hardware={"processor": "planted", "gpu": "none"},
        versions={"torch": "2.0", "transformers": "5.0"},
        started="2026-01-02T03:04:05+00:00",
        load=(0.5, 1.25),
    )


def test_json_round_trip(result):
    assert Result.from_json(result.to_json()) == result
    assert json.loads(result.to_json())["timings"]["caching"]["seconds"]["ours"][3] == 1.03
    with pytest.raises(TypeError, match="colour"):
        Result.from_json(json.dumps(json.loads(result.to_json()) | {"colour": "red"}))


@pytest.mark.parametrize(
    ("limit", "n", "verdict"),
    [
        (None, 9, ""),
        (1.1, 9, "met"),
        (0.99, 9, "missed"),
        (1.05, 9, "met (unsure)"),
        (1.02, 9, "missed (unsure)"),
        (1.1, 3, "met (unsure)"),
    ],
)
def test_verdict(limit, n, verdict):
    assert measure(limit, n).verdict == verdict


@pytest.mark.parametrize(
    ("at_least", "n", "verdict"),
    [
        (0.9, 9, "met"),
        (1.1, 9, "missed"),
        (1.02, 9, "met (unsure)"),
        (1.05, 9, "missed (unsure)"),
        (0.9, 3, "met (unsure)"),
    ],
)
def test_verdict_on_what_should_be_large(at_least, n, verdict, result):
    row = dataclasses.replace(measure(None, n), at_least=at_least)
    assert row.verdict == verdict
    whole = dataclasses.replace(result, measures=(row,))
    assert f"| >= {at_least:g} x | {verdict} |" in markdown(whole)
    assert Result.from_json(whole.to_json()) == whole


def test_a_beginning_names_the_gpu_that_is_measured(monkeypatch):
    names = {None: "first", "cuda:1": "second"}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", names.get)
    assert Beginning.now("cuda:1").hardware["gpu"] == "second"
    assert Beginning.now("cpu").hardware["gpu"] == Beginning.now().hardware["gpu"] == "first"


def test_optional_packages_are_named_where_they_are_installed(monkeypatch):
    monkeypatch.setattr(report, "OPTIONAL", ("plotly", "no-such-package"))
    versions = Beginning.now().versions
    assert "plotly" in versions
    assert "no-such-package" not in versions


def test_files_hold_the_medians(result, tmp_path):
    folder = write(result, tmp_path / "out")
    assert sorted(path.name for path in folder.iterdir()) == sorted([MARKER, *FILES])
    assert (
        "| caching | ours | 1040.00 | theirs | 1.040 x | 1.020 .. 1.060 | 1.010 .. 1.070 | <= 1.5 x | met |"
    ) in markdown(result).splitlines()
    assert "too few rounds |  |  |" in (folder / "table.md").read_text()
    medians, limits = figure(result).data
    assert medians.x == (1.01, 1.04)
    assert limits.x == (1.5,)
    with pytest.raises(ValueError, match="exists"):
        write(result, tmp_path / "out")
    assert write(result, tmp_path / "out", overwrite=True) == folder
