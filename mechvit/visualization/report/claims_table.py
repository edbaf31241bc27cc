"""Claims of a run as rows for the page, and the paragraph that opens the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from mechvit.visualization.number_format import listing
from mechvit.visualization.style import families, in_sentence

from .run_results import RunResults

if TYPE_CHECKING:
    import pandas as pd

VERDICT_WORDS = {
    "replicates": (
        "yes",
        "Every interval lies where the claim puts it: above zero for an effect, within the margin for no effect.",
    ),
    "does not replicate": (
        "no",
        "Some interval excludes the claim: wholly below the smallest effect that counts, or wholly outside the margin.",
    ),
    "inconclusive": (
        "maybe",
        "The intervals neither show nor exclude the claim, or it was not measured. More images could decide it.",
    ),
}
"""Style class and meaning of each verdict."""
ANSWER_STYLES = {"yes": "yes", "partly": "maybe", "no": "no", "unclear": "maybe"}
"""Style class of each answer."""
MOST_PARTS = 3
"""Number of measurements above which all but the deciding one are folded away."""


class PartText(NamedTuple):
    """One measurement of a claim as text: its label, its number, and whether it decides the verdict."""

    label: str
    number: str
    """The value with its interval; empty if nothing was measured."""
    decides: bool


@dataclass(frozen=True, kw_only=True)
class ClaimRow:
    """One claim, ready for the page."""

    id: str
    claim: str
    source: str
    what: str
    unit: str
    """Empty if nothing was measured."""
    parts: list[PartText]
    folded: list[PartText]
    rule: str
    verdict: str
    style: str


def claim_rows(claims: Sequence[dict[str, Any]]) -> list[ClaimRow]:
    """Return a row for every claim, or open question, of a run's `claims.json`."""
    return [_row(claim) for claim in claims]


def _row(claim: dict[str, Any]) -> ClaimRow:
    decides, absent = claim["decides"], "" if claim["decides"] is None else "–"
    parts = [
        PartText(part["label"], number(part["value"], part["low"], part["high"]) or absent, place == decides)
        for place, part in enumerate(claim["parts"])
    ]
    folded = len(parts) > MOST_PARTS
    return ClaimRow(
        **{name: claim[name] for name in ("id", "claim", "what", "rule", "verdict")},
        source=claim["source"][:1].upper() + claim["source"][1:],
        unit="" if decides is None else claim["unit"],
        parts=[parts[decides or 0]] if folded else parts,
        folded=parts if folded else [],
        style=ANSWER_STYLES.get(claim["verdict"]) or VERDICT_WORDS[claim["verdict"]][0],
    )


def claim_effects(claims: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return one row per measurement of every claim: the table that `figures.claims_forest` draws.

    Returns:
        id, claim, source, part (label of the measurement), value, low, high (NaN if nothing was measured), unit,
        decides, kind (`effect`: claimed positive, `no effect`: claimed near zero, or `other`), threshold (the smallest
        effect that counts, or the margin) and verdict.
    """
    import pandas as pd

    rows = [
        {
            **{name: claim[name] for name in ("id", "claim", "source")},
            "part": part["label"],
            **{name: part[name] for name in ("value", "low", "high")},
            "unit": claim["unit"],
            "decides": place == claim["decides"],
            **{name: claim[name] for name in ("kind", "threshold", "verdict")},
        }
        for claim in claims
        for place, part in enumerate(claim["parts"])
    ]
    frame = pd.DataFrame(rows)
    return frame.astype(dict.fromkeys(("value", "low", "high", "threshold"), float)) if rows else frame


def number(value: float | None, low: float | None, high: float | None) -> str:
    """Format `14.9 [12.8, 17.1]` to three digits with a true minus; empty without a value."""
    if value is None:
        return ""
    text = f"{value:.3g}" if low is None or high is None else f"{value:.3g} [{low:.3g}, {high:.3g}]"
    return text.replace("-", "−")


def tally(claims: Sequence[dict[str, Any]]) -> list[tuple[str, str, str, int]]:
    """Return (verdict, style class, meaning, number of claims) for each verdict."""
    return [
        (verdict, style, meaning, sum(claim["verdict"] == verdict for claim in claims))
        for verdict, (style, meaning) in VERDICT_WORDS.items()
    ]


def summary(run: RunResults) -> str:
    """State the models, the images and the counts of the verdicts."""
    frame = run.table("performance_summary")
    tuned = [key for key in frame["model"].unique() if key != "base"]
    kinds = listing([in_sentence(family) for family in families(tuned)])
    images = ""
    if run.has("performance"):
        images = f" on {run.table('performance', ['image_id'])['image_id'].nunique():,} held-out images"
    yes, no, maybe = (count for _, _, _, count in tally(run.claims))
    total = len(run.claims)
    return (
        f"A base model and {_plural(len(tuned), 'copy', 'copies')} of it, each fine-tuned on one severity of {kinds}, "
        f"are compared{images}, clean and corrupted. Of the paper’s {_plural(total, 'claim', 'claims')} judged here, "
        f"{_plural(yes, 'replicates', 'replicate')}, {_plural(no, 'does', 'do')} not, and "
        f"{_plural(maybe, 'is', 'are')} inconclusive. Verdicts are computed from the intervals by the rule "
        "given with each claim."
    )


def _plural(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
