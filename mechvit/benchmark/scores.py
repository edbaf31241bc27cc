"""Scores of readings: whether the place of a planted change stands out, and whether the change is called at all.

Places are ranked: the AUROC of one plant is the share of other places that score below the planted one, ties counting
half; 0.5 is chance. A reading is divided by the null as z = (value - mean of null pairs) / (s sqrt(1 + 1/n)), place by
place, with s moderated over the places. A change is called where the largest z of all places is above a threshold that
null pairs alone set: each null pair is read beside the others of its base, and the threshold is the value that 5% of
null pairs pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

from mechvit.analysis.statistics.bootstrap import LEVEL
from mechvit.analysis.statistics.nulls.prediction_limits import prediction_limits
from mechvit.analysis.statistics.tidy_tables import check_columns
from mechvit.arguments import checked

if TYPE_CHECKING:
    import pandas as pd

FALSE_ALARMS = 0.05
"""Share of null pairs for which a change is called."""
BASE = ("shape", "base_seed")
"""Columns that name a base, whose null pairs its plants are divided by."""
READING = ("method", "reading")
PLACE = ("layer", "branch", "head")
TRUTH = ("kind", "strength", "changes_function", "true_layer", "true_branch", "true_head")
"""Columns of a pair; a null pair's kind is `null`."""
NULL = "null"


def auroc(values: Float[np.ndarray, " places"], positive: Bool[np.ndarray, " places"]) -> float:
    """Compute the probability that a positive place scores above another, ties counting half.

    Raises:
        ValueError: no positive place, or nothing else; values that are not numbers.
    """
    from scipy.stats import rankdata

    count, others = int(positive.sum()), int((~positive).sum())
    if not count or not others:
        raise ValueError(f"ranks need positive places and others; got {count} and {others}")
    if np.isnan(values).any():
        raise ValueError("scores of places must be numbers; some are NaN")
    ranks = rankdata(values)
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * others))


def divided(nulls: Float[np.ndarray, "n places"], values: Float[np.ndarray, " places"]) -> Float[np.ndarray, " places"]:
    """Return (value - mean) / (s sqrt(1 + 1/n)) of null pairs; 0 or an infinity where these do not vary."""
    z = prediction_limits(nulls, values).z
    apart = values - nulls.mean(0)
    apart[np.abs(apart) <= 1e-12 * np.abs(nulls).max(0)] = 0
    unknown = np.where(apart == 0, 0.0, np.copysign(np.inf, apart))
    return np.where(np.isnan(z), unknown, z)


@checked
def divide_by_nulls(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of readings with `z`, beside the null pairs of the same base; a null pair's beside the others.

    Args:
        table: the columns of `BASE`, `pair`, `TRUTH`, `READING`, `PLACE` and `value`.

    Raises:
        ValueError: a missing column, or fewer than three null pairs of a base.
    """
    import pandas as pd

    check_columns(table, *BASE, "pair", *TRUTH, *READING, *PLACE, "value")
    frames = []
    for _, part in table.groupby([*BASE, *READING], sort=False):
        wide = part.pivot(index="pair", columns=list(PLACE), values="value")
        is_null = np.isin(wide.index, part.loc[part["kind"] == NULL, "pair"].unique())
        if is_null.sum() < 3:
            raise ValueError(f"a null pair is read beside two others or more; a base has {int(is_null.sum())}")
        values = wide.to_numpy(dtype=np.float64)
        z = np.empty_like(values)
        for i, row in enumerate(values):
            others = is_null & (np.arange(len(values)) != i)
            z[i] = divided(values[others], row)
        rows, columns = (
            wide.index.get_indexer(part["pair"]),
            wide.columns.get_indexer(pd.MultiIndex.from_frame(part[list(PLACE)])),
        )
        frames.append(part.assign(z=z[rows, columns]))
    return pd.concat(frames, ignore_index=True)


@checked
def place_scores(table: pd.DataFrame) -> pd.DataFrame:
    """Compute, for each plant that changes the function and each reading, the AUROC of its place, plain and divided.

    A reading of heads is scored on plants in one head, among all heads of the model; one of branches on all plants.

    Args:
        table: result of `divide_by_nulls`.

    Returns:
        the columns of `BASE`, `pair`, `TRUTH` and `READING`, `place` (branch or head), auroc, auroc_divided.
    """
    import pandas as pd

    check_columns(table, *BASE, "pair", *TRUTH, *READING, *PLACE, "value", "z")
    rows = []
    plants = table[table["changes_function"].astype(bool)]
    for (method, reading, *_), part in plants.groupby([*READING, *BASE, "pair"], sort=False):
        first = part.iloc[0]
        heads = bool((part["head"] >= 0).any())
        here = (part["layer"] == part["true_layer"]) & (part["branch"] == part["true_branch"])
        if heads:
            if first["true_head"] < 0:
                continue
            here &= part["head"] == part["true_head"]
        scores = [auroc(part[name].to_numpy(dtype=np.float64), here.to_numpy()) for name in ("value", "z")]
        about = [first[name] for name in (*BASE, "pair", *TRUTH)]
        rows.append((*about, method, reading, "head" if heads else "branch", *scores))
    names = [*BASE, "pair", *TRUTH, *READING, "place", "auroc", "auroc_divided"]
    return pd.DataFrame(rows, columns=names)


def threshold(nulls: Float[np.ndarray, " n"], share: float = FALSE_ALARMS) -> float:
    """Return the value that one more null passes with at most this probability: infinite where there are too few.

    It is the order statistic ceil((n + 1)(1 - share)) of exchangeable nulls.
    """
    place = math.ceil((len(nulls) + 1) * (1 - share) - 1e-9)
    return float(np.sort(nulls)[place - 1]) if place <= len(nulls) else math.inf


@checked
def detection(table: pd.DataFrame) -> pd.DataFrame:
    """Compute whether each plant is called a change: its largest z over places is above all but 5% of null pairs.

    Args:
        table: result of `divide_by_nulls`.

    Returns:
        the columns of `BASE`, `pair`, `TRUTH` and `READING`, largest (z), threshold, called; null pairs left out.
    """
    import pandas as pd

    check_columns(table, *BASE, "pair", *TRUTH, *READING, "z")
    largest = table.groupby([*READING, *BASE, "pair", *TRUTH], sort=False, dropna=False)["z"].max()
    found = largest.to_frame("largest").reset_index()
    frames = []
    for _, part in found.groupby(list(READING), sort=False):
        bound = threshold(part.loc[part["kind"] == NULL, "largest"].to_numpy())
        own = part[part["kind"] != NULL]
        frames.append(own.assign(threshold=bound, called=own["largest"] > bound))
    return pd.concat(frames, ignore_index=True)


def mean_and_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float, float, int]:
    """Return a mean over plants, the ends of its t interval, and their number; ends are NaN for a single one."""
    from scipy.stats import t

    given = np.asarray(values, dtype=np.float64)
    n, mean = len(given), float(given.mean()) if len(given) else math.nan
    if n < 2:
        return mean, math.nan, math.nan, n
    half = float(t.ppf((1 + level) / 2, n - 1) * given.std(ddof=1) / math.sqrt(n))
    return mean, mean - half, mean + half, n
