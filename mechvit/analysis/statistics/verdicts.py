"""Three-valued decisions from intervals: shown, excluded, or undecided."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from mechvit.arguments import checked

from .bootstrap import Interval

Verdict = Literal["replicates", "does not replicate", "inconclusive", "yes", "partly", "no", "unclear"]
"""Verdicts; the first three are for the paper's claims, the others for its open questions."""


@checked
def all_above(effects: Sequence[Interval], smallest: float) -> Verdict:
    """Decide whether every effect is positive.

    "replicates" when every interval lies above 0; "does not replicate" when some interval lies wholly below `smallest`,
    the smallest effect worth the name (so that a well-measured zero is an answer); else "inconclusive".

    Raises:
        ValueError: no effect, or a negative `smallest`.

    Source: intersection-union test of several effects, Berger, Technometrics 24 (1982).
    """
    _check(effects, smallest)
    if all(effect.low > 0 for effect in effects):
        return "replicates"
    if any(effect.high < smallest for effect in effects):
        return "does not replicate"
    return "inconclusive"


@checked
def all_within(effects: Sequence[Interval], margin: float) -> Verdict:
    """Decide whether every effect is negligible (an equivalence test).

    "replicates" when every interval lies within -margin..margin; "does not replicate" when some interval lies wholly
    outside; else "inconclusive". An effect that is merely not significant is therefore not called absent.

    Raises:
        ValueError: no effect, or a negative margin.

    Source: equivalence by an interval within a margin, Schuirmann, Journal of Pharmacokinetics and Biopharmaceutics 15
    (1987).
    """
    _check(effects, margin)
    if all(-margin < effect.low and effect.high < margin for effect in effects):
        return "replicates"
    if any(effect.low > margin or effect.high < -margin for effect in effects):
        return "does not replicate"
    return "inconclusive"


def _check(effects: Sequence[Interval], margin: float) -> None:
    if not effects:
        raise ValueError("a verdict needs at least one interval")
    if margin < 0:
        raise ValueError(f"a margin must not be negative; got {margin}")
