"""A run's files of another form than they were written in are refused by name before anything is drawn."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from fake_run import write_fake_run

from mechvit.visualization import read_run, render_report


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_fake_run(tmp_path_factory.mktemp("whole") / "run", images=20)


@pytest.fixture
def run(whole, tmp_path):
    """A copy of one run, to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("claims.json", "{}"),
        ("claims.json", "[[]]"),
        ("claims.json", "[" * 100_000),
        ("config.json", "[]"),
        ("provenance.json", "[]"),
        ("provenance.json", '{"stages": []}'),
        ("views/explorer.json", "[]"),
        ("views/lens.json", "3"),
        ("views/examples.json", "{}"),
        ("views/attention.json", "[]"),
        ("tables/performance_summary.parquet", "PAR1"),
    ],
)
def test_another_form_is_named(name, text, run):
    (run / name).write_text(text)
    with pytest.raises(ValueError, match=(run / name).name):
        render_report(run)
    assert not (run / "report.html").exists()


@pytest.mark.long
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("versions", []),
        ("hardware", "x"),
        ("seeds", None),
        ("stages", {}),
        ("stages", [1]),
        ("stages", [{"name": "a"}]),
    ],
)
def test_parts_of_the_provenance_are_looked_at(key, value, run):
    path = run / "provenance.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(ValueError, match=rf"provenance\.json: {key} must be"):
        read_run(run)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("parts", {}),
        ("parts", []),
        ("parts", ["tuned on 1 6.9 [4.8, 9.1]"]),
        ("parts", [{"label": "a", "value": 1}]),
        ("decides", 3),
        ("decides", -1),
        ("decides", "tuned on 1"),
    ],
)
def test_the_parts_of_a_claim_are_looked_at(key, value, run):
    path = run / "claims.json"
    first, *others = json.loads(path.read_text())
    path.write_text(json.dumps([first | {key: value}, *others]))
    with pytest.raises(ValueError, match=r"claims\.json, entry 0: parts must be a list of objects with label, value"):
        read_run(run)


def test_claims_of_an_earlier_version_are_not_guessed_at(run):
    earlier = {
        "id": "a",
        "claim": "b",
        "source": "c",
        "measured": "points: d 1 [0, 2]",
        "value": 1,
        "low": 0,
        "high": 2,
    }
    (run / "claims.json").write_text(json.dumps([earlier | {"unit": "points", "rule": "r", "verdict": "replicates"}]))
    with pytest.raises(ValueError, match=r"claims\.json is of an earlier version: run the command that made it again"):
        read_run(run)
