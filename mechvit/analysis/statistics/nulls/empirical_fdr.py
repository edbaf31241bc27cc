"""False discovery rates of many rows (latents), by statistics of null models in place of a theoretical distribution."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from mechvit.analysis.statistics.multiplicity import benjamini_hochberg
from mechvit.arguments import checked


@checked
def empirical_fdr(
    statistic: Float[np.ndarray, " rows"], null_statistics: Float[np.ndarray, "n rows"]
) -> Float[np.ndarray, " rows"]:
    """Compute q-values: the share of rows as large as this one that would be there if the model were one of the nulls.

    q of a value s is the smallest, over thresholds t <= s, of rows (1 + b) / (1 + n rows) / (number of rows >= t), with
    b the number of null statistics >= t: Benjamini and Hochberg's procedure on pooled p-values, which the 1 keeps above
    0. All rows count as null for the rate, so that it is an upper bound. The null statistics of all rows are pooled:
    give statistics on one scale (|difference| / its error). A single row beyond all others has q of about 1 / n.

    Args:
        statistic: of the tuned model, one a row; larger is further from no change.
        null_statistics: the same of n null models.

    Raises:
        ValueError: no null, another number of rows, or statistics that are not finite.

    Source: Storey and Tibshirani, PNAS 100 (2003); the 1: Phipson and Smyth, Statistical Applications in Genetics and
    Molecular Biology 9 (2010).
    """
    if len(null_statistics) == 0 or null_statistics.shape[1] != len(statistic) or len(statistic) == 0:
        raise ValueError(
            f"every null has a statistic of each row, and there is one null or more; got an array of "
            f"{null_statistics.shape} for {len(statistic)} rows"
        )
    if not (np.isfinite(statistic).all() and np.isfinite(null_statistics).all()):
        raise ValueError("the statistics of the model and of its nulls must be finite")
    pooled = np.sort(null_statistics, axis=None)
    beyond = len(pooled) - np.searchsorted(pooled, statistic, side="left")
    return benjamini_hochberg((1 + beyond) / (1 + len(pooled)))
