"""Differences that rounding alone makes, below which a comparison's report calls nothing a difference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from mechvit.visualization.figures.table_checks import pick

if TYPE_CHECKING:
    from mechvit.visualization.report.run_results import RunResults


def kl_floor(run: RunResults, tuned: str, condition: str, head: str) -> float | None:
    """Return the KL divergence that roundings of both models make together, in nats, by the upper ends of its
    intervals; None where no rounding is between the models.
    """
    own = pick(_rows(run, tuned), quantity="kl", condition=condition, head=head)
    return float(own["high"].fillna(own["value"]).sum()) if len(own) else None


def weight_floor(run: RunResults, tuned: str) -> float:
    """Return the largest change of a tensor, in relation to its size, that storing in a coarser dtype makes."""
    own = pick(_rows(run, tuned), quantity="weights", source="stored")
    return float(own["value"].max()) if len(own) else 0.0


def is_rounding(run: RunResults, tuned: str, condition: str, head: str | None = None) -> bool:
    """Return whether the two models' answers differ by no more than rounding alone makes.

    Args:
        run, tuned, condition: the rows in question.
        head: that of the rows; None takes the first, through which parts are exchanged.
    """
    if not run.has("rounding") or not run.has("behaviour_summary"):
        return False
    table = pick(run.table("behaviour_summary"), tuned=tuned, condition=condition, by="all", quantity="kl")
    for row in table.itertuples():
        if head in (None, row.head):
            floor = kl_floor(run, tuned, condition, str(row.head))
            return floor is not None and row.value <= floor
    return False


def rounded_alike(run: RunResults, tuned: str) -> bool:
    """Return whether no answer of a model differs by more than rounding, under any condition and through any head."""
    if not run.has("rounding") or not run.has("behaviour_summary"):
        return False
    own = pick(run.table("behaviour_summary"), tuned=tuned, by="all", quantity="kl")
    return len(own) > 0 and all(is_rounding(run, tuned, row.condition, row.head) for row in own.itertuples())


def beyond_rounding(
    reading: Callable[[pd.DataFrame], list[str]], run: RunResults, about: dict[str, Any], tuned: str | None = None
) -> Callable[[pd.DataFrame], list[str]]:
    """Return a figure's reading that passes over models which differ by no more than rounding.

    Args:
        reading: the reading, of a table with a column `model`.
        run, about: the comparison.
        tuned: the model that the table is about, if it has no such column.
    """
    others = [name for name in about["tuned"] if not rounded_alike(run, name)]

    def read(table: pd.DataFrame) -> list[str]:
        left = table[table["model"].isin(others) if tuned is None else [tuned in others] * len(table)]
        return reading(left) if len(left) else ["Nothing here is known to be more than rounding alone makes."]

    return reading if len(others) == len(about["tuned"]) else read


def rounding_sentences(run: RunResults, about: Mapping[str, Any], tuned: str) -> list[str]:
    """State what rounding alone changes; where both models are stored alike, what storing has lost."""
    rows, said = _rows(run, tuned), []
    for (source, dtype), part in rows.groupby(["source", "dtype"], sort=False):
        how = "Computing" if source == "computed" else "Storing weights"
        for name, own in part.groupby("model", sort=False):
            cosines = own[own["quantity"].str.startswith("cosine")]
            lowest = cosines.loc[cosines["value"].idxmin()]
            answers_of = pick(own, quantity="kl")
            kl = answers_of["high"].fillna(answers_of["value"]).max()
            answers = "" if pd.isna(kl) else f" KL up to {kl:.2g} nats,".replace("-", "−")
            said.append(
                f"{how} in {dtype} alone makes of {tuned if name == 'tuned' else about['base']}, on "
                f"{int(cosines['n'].iloc[0])} images,{answers} a cosine of {lowest['value']:.6f} at its lowest (layer "
                f"{lowest['layer']}), and at most {pick(own, quantity='weights')['value'].iloc[0]:.2g} of a tensor’s "
                "size: nothing smaller is called a difference here."
            )
    return said


def stored_alike(about: Mapping[str, Any], tuned: str) -> str | None:
    """State what is lost where both models are stored in one dtype below float32; None elsewhere."""
    found = {row["name"]: row["precision"] for row in about["models"]}
    dtype = found[tuned]
    if dtype != found[about["base"]] or dtype not in STEPS or about["dtype"] in STEPS:
        return None
    return (
        f"Every weight of both is a {dtype} number, in which changes below {STEPS[dtype]} of a weight are lost; "
        "differences smaller than that cannot be seen here."
    )


STEPS = {"bfloat16": "1/512", "float16": "1/4096"}
"""Largest relative error of rounding to a dtype: half the distance of two neighbours."""


def _rows(run: RunResults, tuned: str) -> pd.DataFrame:
    if not run.has("rounding"):
        columns = "source dtype model head condition quantity layer n value high"
        return pd.DataFrame(columns=columns.split())
    return pick(run.table("rounding"), tuned=tuned)
