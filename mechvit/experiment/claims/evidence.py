"""Evidence from a run's tables: intervals of effects, and three-valued verdicts by stated rules.

A claim of an effect replicates if every interval lies above 0, and fails if one lies wholly below the smallest relevant
effect. A claim of no effect replicates if every interval lies within a margin, and fails if one lies wholly outside.
Everything else is inconclusive. All intervals are paired percentile bootstraps over images; the deciding part is the
smallest effect, or the largest deviation.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from mechvit.analysis.statistics.bootstrap import Interval, interval
from mechvit.analysis.statistics.verdicts import Verdict, all_above, all_within
from mechvit.analysis.summaries.bootstrap_draws import (
    Draws,
    attention_draws,
    first_correct_draws,
    lens_draws,
    performance_draws,
)
from mechvit.data.conditions import parse_condition
from mechvit.data.corruption_spec import Condition
from mechvit.settings_checks import LEVEL_RANGE, NOT_NEGATIVE, RESAMPLES_RANGE, SEED, SHARE, check

if TYPE_CHECKING:
    import pandas as pd

TABLES = ("performance", "lens", "first_correct", "attention", "sae_distance")
"""Names of the tables on which the claims are judged."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Thresholds of all verdicts."""

    smallest_gain: float = 1.0
    """Smallest gain, or difference of gains, that counts, in percentage points."""
    unchanged: float = 3.0
    """Margin within which performance counts as unchanged, in percentage points; under half the least gain reported,
    7.6."""
    ahead: float = 0.01
    """Lead in the probability of the right class from which a model counts as ahead, 0 to 1."""
    smallest_shift: float = 0.05
    """Smallest shift of the first correct layer that counts, in layers."""
    smallest_entropy: float = 0.01
    """Smallest difference of attention entropy that counts, in nats."""
    identical: float = 0.1
    """Kolmogorov-Smirnov distance below which two distributions count as nearly identical, 0 to 1."""
    level: float = 0.95
    """Confidence level of the intervals."""
    resamples: int = 2000
    """Number of bootstrap resamples."""
    seed: int = 0
    """Seed of the bootstrap."""

    def __post_init__(self) -> None:
        check(self, NOT_NEGATIVE, "smallest_gain", "unchanged", "smallest_shift", "smallest_entropy")
        check(self, SHARE, "ahead", "identical")
        check(self, LEVEL_RANGE, "level")
        check(self, RESAMPLES_RANGE, "resamples")
        check(self, SEED, "seed")

    @property
    def bootstrap(self) -> dict[str, Any]:
        """The arguments resamples, level and seed of every interval."""
        return {"resamples": self.resamples, "level": self.level, "seed": self.seed}


@dataclass(frozen=True)
class Measurement:
    """One number measured for a claim, with its interval; None for what could not be measured."""

    label: str
    value: float | None = None
    low: float | None = None
    high: float | None = None


ClaimKind = Literal["effect", "no effect", "other"]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One row of the claims table; `dataclasses.asdict` returns its JSON form."""

    id: str
    claim: str
    source: str
    """Place in the paper."""
    what: str
    """The measured quantity, in words."""
    unit: str
    """Unit of the deciding part; the label of a part with another unit names it."""
    kind: ClaimKind
    """Kind of rule: every part above 0 (`effect`), within a margin around it (`no effect`), or any other (`other`)."""
    threshold: float | None
    """Smallest effect that counts, or the margin, in the claim's unit; None for a rule of kind `other`."""
    rule: str
    """The rule in words; empty if nothing was measured."""
    parts: list[Measurement]
    """Measurements of this run; a claim that is not measured has one part without a number, labelled with the
    reason."""
    decides: int | None
    """Index of the deciding part; None if nothing was measured."""
    verdict: Verdict

    @property
    def deciding(self) -> Measurement:
        """The deciding part; one without a number if nothing was measured."""
        return self.parts[self.decides or 0]


class ClaimWords(NamedTuple):
    id: str
    claim: str
    source: str
    what: str
    unit: str


class Evidence:
    """Tables of a run and the bootstrap draws computed from them, each once."""

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
        tuned = sorted(parse_condition(name) for name in names if name != "base")
        self.families: dict[str, list[Condition]] = {}
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
        """Return draws of a metric's gain over the base."""
        return get(self.performance, model, corruption, metric) - get(self.performance, "base", corruption, metric)

    def by_layer(self, draws: Draws, model: str, corruption: str) -> np.ndarray:
        """Return draws by layer, [draws, layers]."""
        layers = sorted(layer for m, c, layer in draws if (m, c) == (model, corruption))
        return np.stack([get(draws, model, corruption, layer) for layer in layers or [0]], axis=1)

    def effect(self, words: ClaimWords, parts: Mapping[str, np.ndarray], smallest: float) -> Claim:
        """Judge a claim that every part is positive."""
        found = {name: interval(draws, self.rules.level) for name, draws in parts.items()}
        rule = (
            f"Replicates if every {self.rules.level:.0%} interval lies above 0; does not replicate if one lies wholly "
            f"below {smallest:g} ({words.unit}); otherwise inconclusive."
        )
        weakest = min(found, key=lambda name: (not np.isnan(found[name].value), found[name].value))
        verdict = all_above(list(found.values()), smallest)
        return judged(words, found, weakest, rule, verdict, kind="effect", threshold=smallest)

    def no_effect(
        self, words: ClaimWords, found: Mapping[str, Interval], margin: float, on: Collection[str] | None = None
    ) -> Claim:
        """Judge a claim that every part, or every part named in `on`, is negligible."""
        rule = (
            f"Replicates if every {self.rules.level:.0%} interval lies within ±{margin:g} ({words.unit}); does not "
            "replicate if one lies wholly outside; otherwise inconclusive."
        )
        rests = {name: found[name] for name in on or found}
        largest = max(rests, key=lambda name: abs(rests[name].value))
        verdict = all_within(list(rests.values()), margin)
        return judged(words, found, largest, rule, verdict, kind="no effect", threshold=margin)


def judged(
    words: ClaimWords,
    found: Mapping[str, Interval],
    deciding: str,
    rule: str,
    verdict: Verdict,
    *,
    kind: ClaimKind = "other",
    threshold: float | None = None,
) -> Claim:
    """Return the row of a claim from each part's interval by label, and the label of the deciding part."""
    parts = [Measurement(name, *(None if np.isnan(x) else float(x) for x in part)) for name, part in found.items()]
    return Claim(
        **words._asdict(),
        kind=kind,
        threshold=threshold,
        rule=rule,
        parts=parts,
        decides=list(found).index(deciding),
        verdict=verdict,
    )


def get(draws: Draws, model: str, corruption: str, what: Any) -> np.ndarray:
    if (model, corruption, what) not in draws:
        raise ValueError(f"the tables lack the model {model!r} under {corruption!r} ({what}); evaluate it there first")
    return draws[model, corruption, what]


def unmeasured(words: ClaimWords, why: str) -> Claim:
    """Return the row of a claim that was not measured, with the reason."""
    parts = [Measurement(f"not measured: {why}")]
    return Claim(
        **words._asdict(), kind="other", threshold=None, rule="", parts=parts, decides=None, verdict="inconclusive"
    )
