"""Three-valued decisions from intervals: what the data show, what they exclude, and what they cannot tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from mechvit.arguments import checked

from .bootstrap import Interval

Verdict = Literal["replicates", "does not replicate", "inconclusive", "yes", "partly", "no", "unclear"]
"""The first three are of the paper's claims, the others of its open questions."""


@checked
def all_above(effects: Sequence[Interval], smallest: float) -> Verdict:
    """Is every effect positive?

    "replicates" when every interval lies above 0; "does not replicate" when some interval lies wholly below
    `smallest`, the smallest effect worth the name (so that a well-measured zero is an answer); else "inconclusive".

    Raises:
        ValueError: no effect, or a negative `smallest`.

    Source: a claim of several effects holds where each one's interval lies beyond the bound, Berger, Technometrics
    24 (1982).
    """
    _check(effects, smallest)
    if all(effect.low > 0 for effect in effects):
        return "replicates"
    if any(effect.high < smallest for effect in effects):
        return "does not replicate"
    return "inconclusive"


@checked
def all_within(effects: Sequence[Interval], margin: float) -> Verdict:
    """Is every effect negligible (an equivalence test)?

    "replicates" when every interval lies within -margin..margin; "does not replicate" when some interval lies wholly
    outside; else "inconclusive". An effect that is merely not significant is therefore not called absent.

    Raises:
        ValueError: no effect, or a negative margin.

    Source: equivalence by an interval within a margin, Schuirmann, Journal of Pharmacokinetics and Biopharmaceutics
    15 (1987).
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
