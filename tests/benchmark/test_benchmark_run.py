"""The benchmark on a tiny scale: what it leaves, that it resumes, and that the frozen choice is held."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from mechvit.benchmark import (
    METHODS,
    PLANS,
    BenchmarkConfig,
    BenchmarkPlan,
    choose_readings,
    frozen_readings,
    run_benchmark,
)
from mechvit.benchmark.choice import sealed
from mechvit.benchmark.config import COSTLY, EVERYWHERE

TINY = BenchmarkPlan(
    shapes=("ijepa",),
    base_seeds=(0,),
    d_model=16,
    n_layers=2,
    n_heads=2,
    d_mlp=32,
    train=190,
    tune=95,
    test=38,
    base_epochs=2,
    tune_epochs=1,
    nulls=3,
    changes=("mlp_rank_one",),
    layers=(1,),
    strengths=(4.0,),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "benchmark"
    said: list[str] = []
    return run_benchmark(BenchmarkConfig(out=str(out), plan=TINY), said.append), said


def test_every_method_has_its_scores(run):
    folder, _ = run
    summary = pd.read_parquet(folder / "tables" / "summary.parquet")
    assert set(summary["method"]) == set(METHODS)
    whole = summary[(summary["by"] == "all") & (summary["place"] == "branch")]
    auroc = whole[whole["quantity"] == "auroc"]
    assert auroc["value"].between(0, 1).all()
    assert (auroc["n"] == 1).all()
    truth = pd.read_parquet(folder / "tables" / "truth.parquet")
    assert list(truth["kind"]) == ["mlp_rank_one", "qk_rotation"]
    assert truth["reached"].iloc[0] == pytest.approx(4, rel=0.1)
    written = json.loads((folder / "benchmark.json").read_text())
    assert written["readings"] == frozen_readings()
    assert len(written["summary"]) == len(summary)
    lines = (folder / "table.md").read_text().splitlines()
    assert all(any(line.startswith(f"| {method} (") for line in lines) for method in METHODS)


def test_a_second_call_makes_nothing_again(run):
    folder, first = run
    said: list[str] = []
    run_benchmark(BenchmarkConfig(out=str(folder), plan=TINY), said.append)
    stages = ("base/ijepa_0", "clean/ijepa_0", "read/ijepa_0", "scores")
    assert [line.split(":")[0] for line in said if "done before" in line] == list(stages)
    assert not any("done before" in line for line in first)


def test_the_frozen_choice_is_what_its_hash_says(tmp_path):
    chosen = frozen_readings()
    assert set(chosen) == set(METHODS) == {*EVERYWHERE, *COSTLY}
    path = tmp_path / "frozen.json"
    path.write_text(json.dumps(sealed(chosen, {}) | {"developed_on": {"nulls": 3}}))
    with pytest.raises(ValueError, match="must be as it was frozen"):
        frozen_readings(path)


def test_test_plants_share_nothing_with_those_of_development():
    development = PLANS["development"]
    for name in ("quick", "whole"):
        plan = PLANS[name]
        for field in ("base_seeds", "changes", "layers"):
            assert not set(getattr(plan, field)) & set(getattr(development, field)), field
        count = len(development.shapes) * len(development.base_seeds)
        assert plan.first_seed >= count * len(development.changes) * len(development.strengths)


def test_the_best_reading_is_chosen():
    rows = [
        ("lens", "branch", "a", 0.6, 0.9),
        ("lens", "branch", "b", 0.9, 0.8),
        ("lens", "branch", "c", 0.7, 0.9),
        ("lens", "head", "d", 0.5, 0.5),
        ("CKA", "branch", "e", 0.5, 0.2),
    ]
    scores = pd.DataFrame(rows, columns=["method", "place", "reading", "auroc", "auroc_divided"])
    assert choose_readings(scores) == {"CKA": {"branch": "e"}, "lens": {"branch": "c", "head": "d"}}


def test_too_few_nulls_are_refused_in_a_plan():
    with pytest.raises(ValueError, match="nulls must be at least 3"):
        BenchmarkPlan(nulls=2)
