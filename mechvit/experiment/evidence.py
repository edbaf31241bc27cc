"""A run's tables as evidence: intervals of any effect, and three-valued verdicts by stated rules.

A claim of an effect replicates when every interval lies above 0, and fails when one lies
wholly below the smallest effect worth the name. A claim of no effect replicates when every interval lies within a
margin, and fails when one lies wholly outside. Everything else is inconclusive. All intervals are paired percentile
bootstraps over images; `value` is the part that decides: the smallest effect, or the largest deviation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mechvit.analysis.bootstrap import Interval, interval
from mechvit.analysis.draws import Draws, attention_draws, first_correct_draws, lens_draws, performance_draws
from mechvit.analysis.verdicts import Verdict, all_above, all_within
from mechvit.data.spec import Corruption
from mechvit.settings_checks import LEVEL, NOT_NEGATIVE, RESAMPLES, SEED, SHARE, check

if TYPE_CHECKING:
    import pandas as pd

TABLES = ("performance", "lens", "first_correct", "attention", "sae_distance")
"""The tables that the claims are judged on."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The thresholds of all verdicts."""

    smallest_gain: float = 1.0
    """Smallest gain, or difference of gains, worth the name: percentage points."""
    unchanged: float = 3.0
    """Margin within which performance is unchanged: percentage points. Under half the paper's smallest gain, 7.6."""
    ahead: float = 0.01
    """How far a model's probability of the right class must lead to count as ahead, 0 to 1."""
    smallest_shift: float = 0.05
    """Smallest shift of the first correct layer worth the name: layers."""
    smallest_entropy: float = 0.01
    """Smallest difference of attention entropy worth the name: nats."""
    identical: float = 0.1
    """Kolmogorov-Smirnov distance under which two distributions are nearly identical, 0 to 1."""
    level: float = 0.95
    """Level of the intervals."""
    resamples: int = 2000
    """Resamples of the bootstrap."""
    seed: int = 0
    """Seed of the bootstrap."""

    def __post_init__(self) -> None:
        check(self, NOT_NEGATIVE, "smallest_gain", "unchanged", "smallest_shift", "smallest_entropy")
        check(self, SHARE, "ahead", "identical")
        check(self, LEVEL, "level")
        check(self, RESAMPLES, "resamples")
        check(self, SEED, "seed")

    @property
    def bootstrap(self) -> dict[str, Any]:
        """resamples, level and seed of every interval."""
        return {"resamples": self.resamples, "level": self.level, "seed": self.seed}


@dataclass(frozen=True)
class Claim:
    """One row of the claims table; `dataclasses.asdict` gives its JSON form."""

    id: str
    claim: str
    source: str
    """Where the paper says it."""
    measured: str
    """What this run measured, in numbers."""
    value: float | None
    low: float | None
    high: float | None
    unit: str
    rule: str
    verdict: Verdict


class Words(NamedTuple):
    id: str
    claim: str
    source: str
    what: str
    unit: str


class Evidence:
    """A run's tables and the draws made of them, each once."""

    def __init__(self, tables: Mapping[str, pd.DataFrame], rules: Rules) -> None:
        if missing := [name for name in TABLES if name not in tables]:
            raise ValueError(
                f"the claims need the tables {', '.join(TABLES)}; {', '.join(missing)} are missing "
                f"(there are {', '.join(tables) or 'none'}): finish the stages that write them first"
            )
        self.tables, self.rules = tables, rules
        self.options: dict[str, Any] = {"resamples": rules.resamples, "seed": rules.seed}
        names = list(dict.fromkeys(tables["performance"]["model"]))
        if "base" not in names or len(names) < 2:
            raise ValueError(
                f"the claims compare 'base' with tuned models; the performance table has {', '.join(names)}"
            )
        tuned = sorted(Corruption.parse(name) for name in names if name != "base")
        self.families: dict[str, list[Corruption]] = {}
        for corruption in tuned:
            self.families.setdefault(corruption.family, []).append(corruption)

    @cached_property
    def performance(self) -> Draws:
        return performance_draws(self.tables["performance"], **self.options)

    @cached_property
    def lens(self) -> Draws:
        return lens_draws(self.tables["lens"], **self.options)

    @cached_property
    def first(self) -> Draws:
        return first_correct_draws(self.tables["first_correct"], **self.options)

    @cached_property
    def entropy(self) -> Draws:
        return attention_draws(self.tables["attention"], "entropy_difference", **self.options)

    def gain(self, model: str, corruption: str, metric: str) -> np.ndarray:
        """Draws of a metric's gain over base."""
        return get(self.performance, model, corruption, metric) - get(self.performance, "base", corruption, metric)

    def by_layer(self, draws: Draws, model: str, corruption: str) -> np.ndarray:
        """[draws, layers]."""
        layers = sorted(layer for m, c, layer in draws if (m, c) == (model, corruption))
        return np.stack([get(draws, model, corruption, layer) for layer in layers or [0]], axis=1)

    def effect(self, words: Words, parts: Mapping[str, np.ndarray], smallest: float) -> Claim:
        """Judge a claim that every part is positive."""
        found = {name: interval(draws, self.rules.level) for name, draws in parts.items()}
        rule = (
            f"{words.what}. Replicates when every {self.rules.level:.0%} interval lies above 0; does not when one "
            f"lies wholly below {smallest:g} {words.unit}; otherwise inconclusive."
        )
        weakest = min(found.values(), key=lambda part: (not np.isnan(part.value), part.value))
        return self.row(words, found, weakest, rule, all_above(list(found.values()), smallest))

    def no_effect(self, words: Words, found: Mapping[str, Interval], margin: float) -> Claim:
        """Judge a claim that every part is negligible."""
        rule = (
            f"{words.what}. Replicates when every {self.rules.level:.0%} interval lies within ±{margin:g} "
            f"{words.unit}; does not when one lies wholly outside; otherwise inconclusive."
        )
        largest = max(found.values(), key=lambda part: abs(part.value))
        return self.row(words, found, largest, rule, all_within(list(found.values()), margin))

    def row(
        self, words: Words, found: Mapping[str, Interval], deciding: Interval, rule: str, verdict: Verdict
    ) -> Claim:
        measured = f"{words.unit}: " + "; ".join(f"{name} {part}" for name, part in found.items())
        value, low, high = (None if np.isnan(x) else round(x, 6) for x in deciding)
        return Claim(*words[:3], measured, value, low, high, words.unit, rule, verdict)


def get(draws: Draws, model: str, corruption: str, what: Any) -> np.ndarray:
    if (model, corruption, what) not in draws:
        raise ValueError(f"the tables lack the model {model!r} under {corruption!r} ({what}); evaluate it there first")
    return draws[model, corruption, what]


def unmeasured(words: Words, why: str) -> Claim:
    return Claim(*words[:3], f"not measured: {why}", None, None, None, words.unit, words.what, "inconclusive")
