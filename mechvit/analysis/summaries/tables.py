"""Summary tables of per-image tables: means with paired bootstrap intervals (the paper's sections 4.1 to 4.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mechvit.analysis.statistics.bootstrap import LEVEL, RESAMPLES, interval
from mechvit.analysis.statistics.tidy_tables import check_columns
from mechvit.arguments import checked

from .bootstrap_draws import PRESENT, TOP_K, Draws, attention_draws, first_correct_draws, lens_draws, performance_draws

if TYPE_CHECKING:
    import pandas as pd

METRICS: tuple[str, ...] = (*TOP_K, "ece", PRESENT)
"""Metrics of a performance summary."""
ATTENTION_QUANTITIES: tuple[str, ...] = ("entropy_difference", "cosine", "squared_difference")
"""Quantities of an attention summary."""


@checked
def performance_summary(
    performance: pd.DataFrame,
    *,
    base: str | None = "base",
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> pd.DataFrame:
    """Compute each model's accuracy, top5, top10 and ece under each corruption, and its gain over the base model.

    `accuracy` is over all the model's classes; `accuracy_present_classes` is the same where the prediction is the best
    of the classes that some image of the data set has. They are equal where images have every class.

    Args:
        performance: per image, as `study` returns it.
        base: the name of the model from which gains are computed (model minus base, paired over images); None leaves
            them NaN.
        resamples, level, seed: settings of the percentile bootstrap.

    Returns:
        model, corruption, metric, value, low, high, gain, gain_low, gain_high; all fractions. Top-k is NaN, not
        applicable, where k is not below the number of classes.

    Raises:
        ValueError: a base that the table lacks, or images that some model lacks.
    """
    import pandas as pd

    _check_base(performance, base)
    draws = performance_draws(performance, resamples=resamples, seed=seed)
    rows = []
    for (model, corruption, metric), values in draws.items():
        if metric in METRICS:
            reference = draws.get((base, corruption, metric))
            gain = np.full(3, np.nan) if reference is None else interval(values - reference, level)
            rows.append((model, corruption, metric, *interval(values, level), *gain))
    names = "model corruption metric value low high gain gain_low gain_high"
    return pd.DataFrame(rows, columns=names.split())


@checked
def lens_summary(
    lens: pd.DataFrame, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> pd.DataFrame:
    """Compute the true class's mean probability by layer: model, corruption, layer, probability, low, high."""
    draws = lens_draws(lens, resamples=resamples, seed=seed)
    return _by_layer(draws, level, "probability")


@checked
def first_correct(lens: pd.DataFrame) -> pd.DataFrame:
    """Return the smallest layer whose prediction is the label: model, corruption, image_id, layer.

    Images that a model gets right at no layer have no row.
    """
    check_columns(lens, "model", "corruption", "image_id", "layer", "rank")
    correct = lens.loc[lens["rank"] == 0, ["model", "corruption", "image_id", "layer"]]
    return correct.groupby(["model", "corruption", "image_id"], sort=False, as_index=False)["layer"].min()


@checked
def first_correct_summary(
    first: pd.DataFrame, *, base: str | None = "base", resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> pd.DataFrame:
    """Compute each model's mean first correct layer under each corruption, and its difference from the base model's.

    Args:
        first: per image, as `first_correct` returns it.
        base: the name of the model from which differences are computed; None leaves them NaN.
        resamples, level, seed: settings of the percentile bootstrap.

    Returns:
        model, corruption, n (images right at some layer), mean, low, high, difference, difference_low, difference_high
        (model minus base over the n_paired images that both get right at some layer: negative is earlier), n_paired; in
        layers.

    Raises:
        ValueError: a base that the table lacks.
    """
    import pandas as pd

    _check_base(first, base)
    draws = first_correct_draws(first, base=base, resamples=resamples, seed=seed)
    rows = []
    for (model, corruption, what), values in draws.items():
        if what != "mean":
            continue
        difference = draws.get((model, corruption, "difference"))
        paired = (np.nan, np.nan, np.nan) if difference is None else interval(difference, level)
        n_paired = draws.get((model, corruption, "n_paired"), np.array([0]))[0]
        rows.append(
            (model, corruption, int(draws[model, corruption, "n"][0]), *interval(values, level), *paired, int(n_paired))
        )
    names = "model corruption n mean low high difference difference_low difference_high n_paired"
    return pd.DataFrame(rows, columns=names.split())


@checked
def attention_summary(
    attention: pd.DataFrame, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> pd.DataFrame:
    """Compute means by layer of entropy_difference (nats, H(corrupted) - H(clean)), cosine and squared_difference.

    Returns:
        model, corruption, layer, quantity, value, low, high.
    """
    import pandas as pd

    parts = []
    for quantity in ATTENTION_QUANTITIES:
        draws = attention_draws(attention, quantity, resamples=resamples, seed=seed)
        part = _by_layer(draws, level, "value")
        part.insert(3, "quantity", quantity)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _by_layer(draws: Draws, level: float, name: str) -> pd.DataFrame:
    import pandas as pd

    rows = [(*key, *interval(values, level)) for key, values in draws.items()]
    return pd.DataFrame(rows, columns=["model", "corruption", "layer", name, "low", "high"])


def _check_base(frame: pd.DataFrame, base: str | None) -> None:
    check_columns(frame, "model")
    models = list(frame["model"].unique())
    if base is not None and base not in models:
        known = f"one of the table's models, {', '.join(map(str, models))}, or None"
        raise ValueError(f"base must be {known if models else 'None: the table has no rows'}; got {base!r}")
