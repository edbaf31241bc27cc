"""Paragraphs under the report's figures, written from the tables that the figures draw."""

from __future__ import annotations

from itertools import pairwise

import pandas as pd

from mechvit.visualization.figures.performance import METRIC_TITLES
from mechvit.visualization.figures.saes import ARCHITECTURE_TITLES, architectures
from mechvit.visualization.figures.table_checks import pick
from mechvit.visualization.number_format import interval, listing, signed
from mechvit.visualization.style import families, family_of, in_order, level_of, strongest_of_each, title_of


def _row(frame: pd.DataFrame, **equal: object) -> pd.Series:
    """Return the single row with these values."""
    rows = pick(frame, **equal)
    if len(rows) != 1:
        raise ValueError(f"a table must hold exactly one row for {equal}; it holds {len(rows)}: write the table again")
    return rows.iloc[0]


def claims(effects: pd.DataFrame) -> list[str]:
    """State the number of measurements, and how many deciding intervals exclude zero or lie within the margin."""
    measured = effects.dropna(subset=["value", "low", "high"])
    deciding = measured[measured["decides"]]
    said = f"{len(measured)} measurements for {measured['id'].nunique()} claims."
    effect, none = (deciding[deciding["kind"] == kind] for kind in ("effect", "no effect"))
    if len(effect):
        above, below = int((effect["low"] > 0).sum()), int((effect["high"] < 0).sum())
        said += (
            f" {len(effect)} claim an effect: the interval of the weakest measurement lies above zero in {above} and "
            f"below zero in {below}."
        )
    if len(none):
        inside = int(((none["low"] >= -none["threshold"]) & (none["high"] <= none["threshold"])).sum())
        said += (
            f" {len(none)} claim no effect: the interval of the largest deviation lies within the margin in {inside}."
        )
    return [said]


def table_one(summary: pd.DataFrame) -> list[str]:
    """State accuracy and calibration of the base and of the model tuned on the tested corruption."""
    said = []
    for key in strongest_of_each(summary["model"]):
        base, tuned = (_row(summary, model=m, corruption=key, metric="accuracy") for m in ("base", key))
        ece = [_row(summary, model=m, corruption=key, metric="ece").value for m in ("base", key)]
        said.append(
            f"On {title_of(key)}, the base model classifies {base.value:.1%} of the images correctly and the model "
            f"tuned on it {tuned.value:.1%}, a change of {signed(tuned.gain * 100)} points "
            f"({interval(tuned.gain_low * 100, tuned.gain_high * 100)}). "
            f"The calibration error is {ece[0]:.3f} in the base and {ece[1]:.3f} in the tuned model."
        )
    return said


def gains(summary: pd.DataFrame) -> list[str]:
    """State whether the gain rises with training severity, and which metric gains most."""
    said = []
    for family in families(summary["model"]):
        models = [m for m in in_order(summary["model"]) if family_of(m) == family]
        top = [_row(summary, model=m, corruption=models[-1], metric="accuracy").gain * 100 for m in models]
        rising = all(a < b for a, b in pairwise(top))
        order = {
            m: _row(summary, model=models[-1], corruption=models[-1], metric=m).gain for m in list(METRIC_TITLES)[:3]
        }
        ranked = sorted((m for m in order if pd.notna(order[m])), key=lambda metric: order[metric], reverse=True)
        largest = ", then ".join(f"{METRIC_TITLES[m].lower()} ({signed(order[m] * 100)})" for m in ranked)
        said.append(
            f"On {title_of(models[-1])}, tuning at severity {listing([str(level_of(m)) for m in models])} changes "
            f"top-1 accuracy by {listing([signed(value) for value in top])} points; the gain "
            f"{'rises' if rising else 'does not rise'} with every step of severity. For the highest severity, it is "
            f"largest in {largest}."
        )
    return said


def transfer(summary: pd.DataFrame) -> list[str]:
    """State the changes on the same family, on the other family, and on clean images."""
    part = pick(summary, metric="accuracy")
    part = part[part["model"] != "base"]
    own = part["model"].map(family_of) == part["corruption"].map(family_of)
    clean = part["corruption"] == "clean"
    said = []
    for name, rows in (
        ("On the family that they were tuned on,", part[own]),
        ("On the other family,", part[~own & ~clean]),
        ("On clean images,", part[clean]),
    ):
        if rows.empty:
            continue
        up, down = int((rows["gain_low"] > 0).sum()), int((rows["gain_high"] < 0).sum())
        changes = rows["gain"] * 100
        said.append(
            f"{name} the tuned models' top-1 accuracy differs from the base's by "
            f"{interval(changes.min(), changes.max())} points (mean {signed(changes.mean())}; intervals above zero: "
            f"{up} of {len(rows)}, below zero: {down})."
        )
    return [" ".join(said)]


def class_probability(summary: pd.DataFrame) -> list[str]:
    """State the layer from which the tuned model stays above the base, and both final probabilities."""
    said = []
    for key in strongest_of_each(summary["model"]):
        pair = pick(summary, model=key, corruption=key).merge(pick(summary, model="base", corruption=key), on="layer")
        pair = pair.sort_values("layer")
        ahead = (pair["low_x"] > pair["high_y"]).to_numpy()[::-1].cumprod()[::-1].astype(bool)
        last = pair.iloc[-1]
        lead = (
            f"lies above the base's, with separate intervals, from layer {int(pair['layer'][ahead].iloc[0])} of "
            f"{int(last.layer)} to the last"
            if ahead.any()
            else f"does not lie above the base's with separate intervals at the last layer, {int(last.layer)}"
        )
        said.append(
            f"On {title_of(key)}, the correct class's probability in the model tuned on it {lead}. At the last layer "
            f"it is {last.probability_x:.3f}, the base's {last.probability_y:.3f}."
        )
    return said


def first_correct_layers(first: pd.DataFrame) -> list[str]:
    """State the mean layer of each distribution."""
    said = []
    for key in strongest_of_each(first["model"]):
        base, tuned = (pick(first, model=m, corruption=key) for m in ("base", key))
        if base.empty or tuned.empty:
            said.append(f"On {title_of(key)}, one of the two models is right on no image at any layer.")
            continue
        (before, n_base), (after, n_tuned) = map(_mean_layer, (base, tuned))
        said.append(
            f"On {title_of(key)}, the first correct layer is on average {before:.2f} in the base ({n_base:,} images) "
            f"and {after:.2f} in the tuned model ({n_tuned:,} images)."
        )
    return said


def _mean_layer(first: pd.DataFrame) -> tuple[float, int]:
    """Return the mean layer and the number of images, from one row per image or from a histogram."""
    if "share" in first:
        return float((first["layer"] * first["share"]).sum()), int(first["images"].iloc[0])
    return float(first["layer"].mean()), len(first)


def first_correct_difference(summary: pd.DataFrame) -> list[str]:
    """State which tuned models are earlier, and the change for the strongest of each family."""
    own = summary[(summary["model"] == summary["corruption"]) & (summary["model"] != "base")]
    own = own.dropna(subset=["difference"]).set_index("model")
    if own.empty:
        return ["There is no image that both the base and a tuned model get right at some layer."]
    own = own.loc[in_order(own.index)]
    earlier = [title_of(model, short=True) for model in own.index[own["difference_high"] < 0]]
    found = f"the models tuned on {listing(earlier)}" if earlier else "no tuned model"
    each = []
    for key in strongest_of_each(own.index):
        row = own.loc[key]
        change = interval(row["difference_low"], row["difference_high"], 2)
        each.append(f"{signed(row['difference'], 2)} layers ({change}) for {title_of(key, short=True)}")
    return [f"The interval lies below zero (earlier) for {found}. The mean change is {listing(each)}."]


def entropy_difference(summary: pd.DataFrame) -> list[str]:
    """State the base's differences along the layers, and in how many layers the base's is the highest."""
    part = pick(summary, quantity="entropy_difference")
    said = []
    for key in strongest_of_each(part["corruption"]):
        wide = pick(part, corruption=key).pivot(index="layer", columns="model", values="value").sort_index()
        base, highest = wide["base"], int((wide.idxmax(axis=1) == "base").sum())
        text = (
            f"On {title_of(key)}, the base's difference runs from {signed(base.iloc[0], 3)} nats at layer "
            f"{base.index[0]} to {signed(base.iloc[-1], 3)} at layer {base.index[-1]}; it is negative in "
            f"{int((base < 0).sum())} of {len(base)} layers, and the highest of all models in {highest}."
        )
        if key in wide:
            gap = (wide[key] - base).mean()
            text += f" Averaged over layers, the tuned model's difference minus the base's is {signed(gap, 3)} nats."
        said.append(text)
    return said


def pattern_change(summary: pd.DataFrame) -> list[str]:
    """State the layer whose attention changes most, base against tuned."""
    cosine = pick(summary, quantity="cosine")
    said = []
    for key in strongest_of_each(cosine["corruption"]):
        wide = pick(cosine, corruption=key).pivot(index="layer", columns="model", values="value").sort_index()
        worst = wide["base"].idxmin()
        text = (
            f"Under {title_of(key)}, the base's attention changes most at layer {worst} (cosine "
            f"{wide['base'][worst]:.3f})"
        )
        if key in wide:
            less = int((wide[key] > wide["base"]).sum())
            text += (
                f"; that of the model tuned on it has a cosine of {wide[key][worst]:.3f} there and changes less than "
                f"the base's in {less} of {len(wide)} layers"
            )
        said.append(text + ".")
    return said


def cosine_distributions(cosine: pd.DataFrame) -> list[str]:
    """State the mean cosines of base and tuned for each SAE and corruption."""
    said = []
    column = "mean_cosine" if "mean_cosine" in cosine else "cosine"
    tested = set(cosine["corruption"].unique())
    for kind in architectures(cosine):
        pairs = []
        for key in (k for k in in_order(cosine["model"].unique()) if k in tested - {"base"}):
            means = [pick(cosine, model=m, architecture=kind, corruption=key)[column].mean() for m in ("base", key)]
            pairs.append(f"{means[0]:.3f} in the base and {means[1]:.3f} in the tuned model on {title_of(key)}")
        if pairs:
            said.append(f"{ARCHITECTURE_TITLES[kind]}: the mean cosine is {listing(pairs)}.")
    return said


def cosine_distances(distance: pd.DataFrame) -> list[str]:
    """State the largest distance by each measure."""
    own = distance[distance["model"] == distance["corruption"]]
    names = {"wasserstein": "Wasserstein distance", "kolmogorov_smirnov": "Kolmogorov–Smirnov distance"}
    said = []
    for statistic, name in names.items():
        rows = pick(own, statistic=statistic)
        if len(rows):
            worst = rows.loc[rows["value"].idxmax()]
            said.append(
                f"the largest {name} is {worst.value:.3f} ({worst.low:.3f} to {worst.high:.3f}; "
                f"{ARCHITECTURE_TITLES[worst.architecture]}, {title_of(worst.model)})"
            )
    text = listing(said) if said else "no distance was measured between a base and a tuned model"
    return [text[0].upper() + text[1:] + ". Zero means equal distributions."]


def training_curves(history: pd.DataFrame) -> list[str]:
    """State the final explained variance and L0."""
    last = history.sort_values("tokens").groupby(["architecture", "model", "metric"])["value"].last().unstack()
    said = []
    for kind in architectures(history):
        rows, parts = last.loc[kind], []
        if "explained_variance" in rows:
            low, high = rows["explained_variance"].min(), rows["explained_variance"].max()
            parts.append(f"an explained variance of {low:.3f} to {high:.3f}")
        if "l0" in rows:
            parts.append(f"{rows['l0'].min():.1f} to {rows['l0'].max():.1f} active latents per token")
        if parts:
            said.append(f"{ARCHITECTURE_TITLES[kind]}s end with {listing(parts)}.")
    tokens = int(history["tokens"].max())
    return [" ".join([*said, f"The longest training saw {tokens:,} tokens."])]
