"""Score every method on changes that were planted: which method finds what, and how often it calls what is nothing.

    mechvit benchmark --quick --out runs/benchmark
    mechvit benchmark --out runs/benchmark-whole

Small ViTs are trained on the embedded photographs and tuned on clean images; in some of these one known change is
planted, among decoys of equal norm. OUT/table.md has each method's AUROC of the place with intervals over plants,
before and after dividing by null pairs, and how often it calls a change; OUT/benchmark.json and OUT/tables have all
numbers. Each method's reading was chosen on other plants and is frozen. An interrupted run continues when the command
is given again.
"""

from __future__ import annotations

from dataclasses import dataclass

from mechvit.benchmark.config import PLANS, BenchmarkConfig
from mechvit.settings_checks import SettingError, check_named
from mechvit.terminal import say


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the benchmark."""

    out: str
    """Folder of the run."""
    quick: bool = False
    """Few plants in models of 4 blocks, in minutes; otherwise all strengths in models of 6 blocks, for hours."""
    develop: bool = False
    """Choose each method's reading on the development plants, and write the choice into OUT."""
    verify: bool = False
    """Read every finished output again."""
    fresh: bool = False
    """Make everything again."""

    def __post_init__(self) -> None:
        check_named(self, "out")
        if self.quick and self.develop:
            raise SettingError("quick", "must be left out where readings are chosen: there is one plan for that")


def main(options: Options) -> None:
    """Run the benchmark, and print its table and where it is."""
    from mechvit.benchmark import run_benchmark

    plan = PLANS["development" if options.develop else "quick" if options.quick else "whole"]
    config = BenchmarkConfig(
        out=options.out, plan=plan, develop=options.develop, verify=options.verify, fresh=options.fresh
    )
    folder = run_benchmark(config, say)
    say((folder / "table.md").read_text(encoding="utf-8"))
    say(str(folder))
