"""The questions that the paper leaves open (section 5), each with this run's measurements and an answer by a rule.

The questions are how training transfers between filters of one family, which differences between the base and a tuned
model cause the gain, and whether these can be isolated and controlled. The answers concern the strongest model of each
family, with the same intervals as the claims.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from mechvit.analysis.statistics.bootstrap import Interval
from mechvit.analysis.statistics.verdicts import Verdict
from mechvit.data.conditions import parse_condition

from .evidence import Claim, ClaimWords, Rules, judged

if TYPE_CHECKING:
    import pandas as pd

SOURCE = "section 5, future work"
ABLATED = 16
"""Largest number of ablated latents that the answer on latents uses; fixed before anything was measured."""
Tables = Mapping[str, "pd.DataFrame"]


def questions(tables: Tables, rules: Rules) -> list[Claim]:
    """Answer those questions whose tables are present.

    Args:
        tables: `related` (see `mechvit.analysis.transfer`), `gain_smallest_set`, `gain_patching`,
            `gain_steering_chosen`, `gain_ablation` and `gain_head_correlations`, the latter with the column `tuned_on`;
            questions whose table is missing are left out.
        rules: thresholds.
    """
    asked = (
        ("related", _transfer),
        ("gain_smallest_set", _isolated),
        ("gain_steering_chosen", _controlled),
        ("gain_ablation", _latents),
        ("gain_head_correlations", _heads),
    )
    return [row for name, ask in asked if name in tables for row in ask(tables, rules)]


def _answer(
    words: ClaimWords,
    parts: Mapping[str, Interval],
    rule: str,
    verdict: Verdict,
    more: Mapping[str, Interval] | None = None,
) -> Claim:
    """Return one row; the smallest of `parts` decides, and `more` lists further measurements."""
    return judged(words, {**parts, **(more or {})}, min(parts, key=lambda name: parts[name].value), rule, verdict)


def _interval(row: pd.Series, name: str, scale: float = 1.0) -> Interval:
    """Return a quantity and its interval from the columns name, name_low and name_high (low and high for `value`)."""
    ends = ("low", "high") if name == "value" else (f"{name}_low", f"{name}_high")
    return Interval(*(scale * float(row[column]) for column in (name, *ends)))


def _alone(value: float) -> Interval:
    """Return a number without an interval."""
    return Interval(float(value), np.nan, np.nan)


def _above(parts: Mapping[str, Interval], bound: float, smallest: float) -> Verdict:
    """Return yes if every interval lies above `bound`, partly if some do, no if all lie below `smallest`, or
    unclear."""
    above = [part.low > bound for part in parts.values()]
    if all(above):
        return "yes"
    if any(above):
        return "partly"
    return "no" if all(part.high < smallest for part in parts.values()) else "unclear"


def _transfer(tables: Tables, rules: Rules) -> Iterator[Claim]:
    table = tables["related"]
    for key in (name for name in dict.fromkeys(table["trained_on"]) if name != "base"):
        corruption = parse_condition(key)
        own = table[(table["trained_on"] == key) & (table["relation"] == "group")]
        if own.empty:
            continue
        across = table[(table["trained_on"] == key) & (table["relation"] == "across")]
        words = ClaimWords(
            f"open_transfer_{corruption.family}",
            f"Does training on {corruption.title} help on other filters of its family ({corruption.group})?",
            SOURCE,
            f"Gain in accuracy over the base on each other {corruption.group} filter",
            "percentage points",
        )
        parts = {parse_condition(row["tested_on"]).title: _interval(row, "gain", 100) for _, row in own.iterrows()}
        rule = (
            f"Yes if every {rules.level:.0%} interval lies above 0; partly if some do; no if every one lies below "
            f"{rules.smallest_gain:g} ({words.unit}); otherwise unclear."
        )
        more = {
            f"outside its family, {parse_condition(row['tested_on']).title}": _interval(row, "gain", 100)
            for _, row in across.iterrows()
        }
        yield _answer(words, parts, rule, _above(parts, 0, rules.smallest_gain), more)


def _isolated(tables: Tables, rules: Rules) -> Iterator[Claim]:
    for key, found in tables["gain_smallest_set"].groupby("tuned_on", sort=False):
        corruption = parse_condition(str(key))
        last = found[(found["images"] == "held_out") & (found["step"] == found["step"].max())].iloc[0]
        chosen, total = str(last["groups"]).split(), int(last["of"])
        words = ClaimWords(
            f"open_isolate_{corruption.family}",
            f"Can the gain on {corruption.title} be traced to a few parts of the tuned model's weights?",
            SOURCE,
            "Share of the gain in logit difference that the base recovers with the smallest set of parts (attention "
            "and MLP branches, embedding, final norm, head) that recovers 90% on the images it was chosen on; measured "
            "on held-out images",
            "share of the gain",
        )
        part = _interval(last, "recovered")
        rule = (
            f"Yes if the set holds at most half of the {total} parts, and the {rules.level:.0%} interval lies above "
            "0.5 and reaches 0.9; partly if it lies above 0.5 but below 0.9; no if the set holds more than half of the "
            "parts; otherwise unclear."
        )
        verdict: Verdict = "unclear"
        if 2 * len(chosen) > total and not np.isnan(part.value):
            verdict = "no"
        elif part.low > 0.5:
            verdict = "yes" if part.high >= 0.9 else "partly"
        count = {f"parts in the set, of {total}: {', '.join(chosen)}": _alone(len(chosen))}
        more = count | _best_component(tables, str(key))
        yield _answer(words, {"recovered": part}, rule, verdict, more)


def _best_component(tables: Tables, key: str) -> dict[str, Interval]:
    """Return the attention output, MLP output or head whose activation alone recovers most."""
    if "gain_patching" not in tables:
        return {}
    table = tables["gain_patching"]
    own = (table["tuned_on"] == key) & (table["direction"] == "tuned into base")
    table = table[own & (table["quantity"] == "logit_difference") & table["kind"].isin(["attn", "mlp", "head"])]
    if table["recovered"].isna().all():
        return {}
    best = table.loc[table["recovered"].idxmax()]
    head = f", head {int(best['head'])}" if best["kind"] == "head" else ""
    kind = {"attn": "attention", "mlp": "MLP", "head": "attention"}[best["kind"]]
    where = f"{kind} of block {int(best['layer'])}{head}"
    return {f"best single activation when patched, {where}": _interval(best, "recovered")}


def _controlled(tables: Tables, rules: Rules) -> Iterator[Claim]:
    table = tables["gain_steering_chosen"]
    table = table[table["quantity"] == "accuracy"]
    for key, both in table.groupby("tuned_on", sort=False):
        found, random = both[both["control"] == 0], both[both["control"] > 0]
        corruption = parse_condition(str(key))
        words = ClaimWords(
            f"open_control_{corruption.family}",
            f"Can the gain on {corruption.title} be obtained without tuning, by adding a direction to the base's "
            "residual stream?",
            SOURCE,
            "Share of the tuned model's gain in accuracy that the steered base recovers on held-out images. Directions "
            "are the mean clean minus the mean corrupted residual, and the SAE latents that change most; block and "
            "scale are chosen on other images",
            "share of the gain",
        )
        names = {"mean_difference": "mean difference", "sae": "SAE latents"}
        rows = {names.get(row["source"], str(row["source"])): row for _, row in found.iterrows()}
        parts = {name: _interval(row, "recovered") for name, row in rows.items() if not np.isnan(row["recovered"])}
        if not parts:
            continue
        rule = (
            f"A direction works if its {rules.level:.0%} interval lies above 0.5 and its accuracy minus that of random "
            "directions of the same length has an interval above 0; it fails if the first lies below 0.5 or the second "
            "not above 0. Yes if all work; partly if some do; no if all fail; otherwise unclear."
        )
        beyond = {name: _interval(rows[name], "beyond", 100) for name in parts}
        more = {f"points more than random directions, {name}": part for name, part in beyond.items()}
        more |= {
            f"mean of random directions, {names.get(str(source), source)}": _alone(share)
            for source, share in random.groupby("source", sort=False)["recovered"].mean().items()
        }
        more |= {
            f"points of change on clean images, {name}": _interval(row, "clean_change", 100)
            for name, row in rows.items()
        }
        does = [parts[name].low > 0.5 and beyond[name].low > 0 for name in parts]
        fails = [parts[name].high < 0.5 or beyond[name].high <= 0 for name in parts]
        verdict: Verdict = "yes" if all(does) else "partly" if any(does) else "no" if all(fails) else "unclear"
        yield _answer(words, parts, rule, verdict, more)


def _latents(tables: Tables, rules: Rules) -> Iterator[Claim]:
    table = tables["gain_ablation"]
    table = table[(table["quantity"] == "accuracy") & (table["kind"] == "sensitive") & (table["model"] == "base")]
    for key, found in table.groupby("tuned_on", sort=False):
        corruption = parse_condition(str(key))
        rows = found[(found["corruption"] == key) & (found["n"] <= ABLATED)]
        if rows.empty:
            continue
        row = rows.loc[rows["n"].idxmax()]
        words = ClaimWords(
            f"open_latents_{corruption.family}",
            f"Does {corruption.title} harm the base through the SAE latents that it changes most?",
            SOURCE,
            f"Accuracy under the corruption with {int(row['n'])} of these latents ablated, minus that of the untouched "
            "base, and minus that with as many equally frequent others ablated",
            "percentage points",
        )
        parts = {
            "minus the untouched base": _interval(row, "change", 100),
            "minus equally frequent others": _interval(row, "beyond", 100),
        }
        rule = (
            f"Yes if both {rules.level:.0%} intervals lie above 0: the base does better without these latents, and "
            f"better than without others; no if the first lies below {rules.smallest_gain:g} ({words.unit}); otherwise "
            "unclear."
        )
        helps = all(part.low > 0 for part in parts.values())
        hurts = parts["minus the untouched base"].high < rules.smallest_gain
        yield _answer(words, parts, rule, "yes" if helps else "no" if hurts else "unclear")


def _heads(tables: Tables, rules: Rules) -> Iterator[Claim]:
    table = tables["gain_head_correlations"]
    table = table[(table["model"] == "size of change") & (table["number"] == "entropy_difference")]
    for _, row in table.iterrows():
        corruption = parse_condition(row["tuned_on"])
        part = _interval(row, "value")
        if np.isnan(part.value):
            continue
        words = ClaimWords(
            f"open_heads_{corruption.family}",
            f"Do the heads whose attention entropy on {corruption.title} is changed most by tuning carry the gain?",
            SOURCE,
            f"Spearman's correlation, over {int(row['heads'])} heads, between the size of the change in entropy "
            "difference (tuned minus base) and the effect of patching the head into the base",
            "correlation",
        )
        verdict: Verdict = "unclear"
        if row["p"] < 1 - rules.level:
            verdict = "yes" if part.low > 0 else "no" if part.high < 0 else "unclear"
        rule = (
            f"Yes if the {rules.level:.0%} interval over images lies above 0, no if it lies below 0, and both only if "
            f"a permutation test over heads gives p below {1 - rules.level:.2g}; otherwise unclear."
        )
        yield _answer(words, {"correlation": part}, rule, verdict, {"p over heads": _alone(row["p"])})
