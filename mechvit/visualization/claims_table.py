"""The claims of a run as rows for the page, and the paragraph that opens the report."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .readings import listing
from .run_files import Run
from .style import families, title_of

if TYPE_CHECKING:
    import pandas as pd

VERDICTS = {
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
        "The intervals neither show nor exclude it, or it was not measured: more images, or another run, would tell.",
    ),
}
"""Each verdict's style class and meaning."""
ANSWER_STYLES = {"yes": "yes", "partly": "maybe", "no": "no", "unclear": "maybe"}
"""Each answer's style class."""
NUMBER = re.compile(r"^(?P<label>.*?)\s*(?P<number>-?\d\S* \[[^\]]*\])$")
RULES = {
    "effect": re.compile(r"lies above 0; does not when one lies wholly below ([\d.e-]+)"),
    "no effect": re.compile(r"lies within ±([\d.e-]+)"),
}
"""How the rule of each kind of claim reads, with its threshold."""
SHOWN = 3
"""More measurements than this are folded away, except the deciding one."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One measurement of a claim: what it is of, the number with its interval, and whether it decides the verdict."""

    label: str
    number: str
    decides: bool


@dataclass(frozen=True, kw_only=True)
class ClaimRow:
    """One claim, ready for the page."""

    id: str
    claim: str
    source: str
    what: str
    """What was measured, in words; may be empty."""
    unit: str
    """Empty where nothing was measured."""
    parts: list[Part]
    folded: list[Part]
    rule: str
    verdict: str
    style: str


def claim_rows(claims: Sequence[dict[str, Any]]) -> list[ClaimRow]:
    """Every claim, or open question, of a run's `claims.json`.

    A rule whose second sentence begins with `Replicates` or `Yes` opens with what was measured; `measured` is a list
    of parts set apart by semicolons, each ending in `value [low, high]`.
    """
    return [_row(claim) for claim in claims]


def _row(claim: dict[str, Any]) -> ClaimRow:
    opening = "Yes" if claim["verdict"] in ANSWER_STYLES else "Replicates"
    what, found, rest = str(claim["rule"]).partition(f". {opening} ")
    parts = _parts(claim)
    deciding = [part for part in parts if part.decides]
    folded = len(parts) > SHOWN
    return ClaimRow(
        id=str(claim["id"]),
        claim=str(claim["claim"]),
        source=_capital(str(claim["source"])),
        what=f"{what}." if found else "",
        unit="" if claim["value"] is None else str(claim["unit"]),
        parts=(deciding[:1] or parts[:1]) if folded else parts,
        folded=parts if folded else [],
        rule=f"{opening} {rest}" if found else str(claim["rule"]),
        verdict=claim["verdict"],
        style=ANSWER_STYLES.get(claim["verdict"]) or VERDICTS[claim["verdict"]][0],
    )


def _parts(claim: dict[str, Any]) -> list[Part]:
    """The measurements; the value itself comes first when none of them shows it."""
    measured = str(claim["measured"]).removeprefix(f"{claim['unit']}: ")
    decisive = number(claim["value"], claim["low"], claim["high"])
    parts = []
    for text in measured.split("; "):
        match = NUMBER.match(text)
        label, found = (match["label"], match["number"].replace("-", "−")) if match else (text, "")
        parts.append(Part(label=label, number=found, decides=bool(found) and found == decisive))
    if decisive and not any(part.decides for part in parts):
        if len(parts) == 1 and not parts[0].number:
            return [Part(label=parts[0].label, number=decisive, decides=True)]
        parts.insert(0, Part(label="", number=decisive, decides=True))
    return parts


def claim_effects(claims: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Every measurement of every claim, one row each: the table that `figures.claims_forest` draws.

    Returns:
        id, claim, source, part (what it is of), value, low, high (the deciding part exactly, the others in the three
        digits of `measured`; NaN where nothing was measured), unit, decides, kind (`effect`: positive as claimed,
        `no effect`: near zero as claimed, or `other`), threshold (the smallest effect that counts, or the margin) and
        verdict.
    """
    import pandas as pd

    rows = []
    for claim in claims:
        kind, threshold = _kind(str(claim["rule"]))
        undecided = True
        for part in _parts(claim):
            decides = part.decides and undecided
            undecided = undecided and not decides
            exact = [claim["value"], claim["low"], claim["high"]]
            found = exact if decides and None not in exact else _numbers(part.number)
            about = {name: str(claim[name]) for name in ("id", "claim", "source")}
            measured = dict(zip(("value", "low", "high"), map(float, found), strict=True))
            judged = {"decides": decides, "kind": kind, "threshold": threshold, "verdict": str(claim["verdict"])}
            rows.append({**about, "part": part.label, **measured, "unit": str(claim["unit"]), **judged})
    return pd.DataFrame(rows)


def _kind(rule: str) -> tuple[str, float]:
    """What the claim is of, by its rule, and the rule's threshold."""
    for kind, pattern in RULES.items():
        if match := pattern.search(rule):
            return kind, float(match[1])
    return "other", math.nan


def _numbers(text: str) -> list[float]:
    """`14.9 [12.8, 17.1]` as three numbers; NaN without them."""
    found = re.findall(r"-?\d[\d.]*(?:e[+-]?\d+)?", text.replace("−", "-"))
    return [float(value) for value in found] if len(found) == 3 else [math.nan] * 3


def number(value: float | None, low: float | None, high: float | None) -> str:
    """`14.9 [12.8, 17.1]` to three digits with a true minus; empty without a value."""
    if value is None:
        return ""
    text = f"{value:.3g}" if low is None or high is None else f"{value:.3g} [{low:.3g}, {high:.3g}]"
    return text.replace("-", "−")


def tally(claims: Sequence[dict[str, Any]]) -> list[tuple[str, str, str, int]]:
    """Verdict, its style class, its meaning, and how many claims have it."""
    return [
        (verdict, style, meaning, sum(claim["verdict"] == verdict for claim in claims))
        for verdict, (style, meaning) in VERDICTS.items()
    ]


def summary(run: Run) -> str:
    """What was asked, of what, and how the claims came out."""
    frame = run.table("performance_summary")
    tuned = [key for key in frame["model"].unique() if key != "base"]
    names = [title_of(f"{family}_1").removesuffix(" 1") for family in families(tuned)]
    kinds = listing([name if name.startswith("Gaussian") else name.lower() for name in names])
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


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
