"""Words of a comparison with null models, and of one that lacks them."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mechvit.visualization.figures.table_checks import pick

from .captions import number

if TYPE_CHECKING:
    from mechvit.visualization.report.run_results import RunResults

AS_CLEAN = "as tuning on clean images does"
PLAIN = "For a plain task fine-tune the clean tuning is the treatment: only seeds are a null"
"""Reason why a pair without one head has no clean-tuned nulls."""


def beyond(row: Any) -> bool | None:
    """Return whether a row's value lies beyond the limits of its nulls; None without limits."""
    low = getattr(row, "null_low", math.nan)
    return None if math.isnan(low) else not low <= row.value <= row.null_high


def verdict(run: RunResults, base: str, tuned: str) -> str:
    """State whether a model changed, by the divergence of its answers under each condition, or differs.

    Without limits the word is differs.
    """
    if not run.has("behaviour_summary"):
        return f"{tuned} differs from {base}."
    own = pick(run.table("behaviour_summary"), tuned=tuned, by="all", quantity="kl")
    known = [far for row in own.itertuples() if (far := beyond(row)) is not None]
    if not known:
        return f"{tuned} differs from {base}."
    if not any(known):
        return f"{tuned} differs from {base}, {AS_CLEAN}."
    where = "" if len(known) == 1 else f" under {sum(known)} of {len(known)} conditions and heads"
    return f"{tuned} changed from {base}: its KL divergence is beyond the limits of clean-tuned models{where}."


def limits_words(row: Any) -> str:
    """Return where a value lies beside the limits of its nulls, in brackets; empty without limits."""
    far = beyond(row)
    if far is None:
        return ""
    ends = f"one more clean-tuned model: {number(row.null_low)} to {number(row.null_high)}"
    return f" (changed; {ends})" if far else f" (differs, {AS_CLEAN}; {ends})"


def compared_nulls(about: Mapping[str, Any]) -> list[str]:
    """Return sentences on the nulls of a comparison, with the question that they answer."""
    nulls = about.get("nulls")
    if not nulls:
        return []
    likes = dict.fromkeys(row["like"] for row in nulls["models"] if row["like"])
    steps = sorted({row["steps"] for row in nulls["models"] if row["steps"]})
    made = f", by the recipe of {', '.join(likes)}" if likes else ""
    taken = f", {' or '.join(f'{count:,}' for count in steps)} steps each" if steps else ""
    return [
        f"Nulls: {nulls['count']} {nulls['title']} models ({nulls['made']}){made}{taken}. {nulls['question']} "
        "“Changed” is said only of what lies beyond the limits within which one more of them would fall 95 times in "
        "100 (null_low to null_high in the tables; grey in figures). Of 100 rows where nothing changed, about 5 lie "
        "beyond; z_null is read with null_df degrees of freedom."
    ]


def null_models_of(about: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, str] | None:
    """Return base, like, images and kind of the first tuned model's nulls, for a shell; None where there are none."""
    by_name = {row["name"]: row for row in about["models"]}
    tuned = about["tuned"][0]
    if not about["labels_of"].get(tuned) or not by_name[tuned]["n_classes"] or config["pictures"]:
        return None
    words = {"base": by_name[about["base"]]["checkpoint"], "like": by_name[tuned]["checkpoint"]}
    words |= {"images": config["images"], "kind": "clean" if about["heads"][tuned] == ["own"] else "seeds"}
    return {name: shlex.quote(word) for name, word in words.items()}
