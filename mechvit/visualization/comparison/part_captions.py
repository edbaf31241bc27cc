"""Sentences of a comparison's report on the models' parts, each computed from the table that its figure shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from mechvit.visualization.figures.table_checks import pick
from mechvit.visualization.number_format import listing, share
from mechvit.visualization.report.gain_captions import component_name
from mechvit.visualization.report.sections import INTO_BASE
from mechvit.visualization.style import in_sentence, title_of

from .captions import percent
from .floors import is_rounding, weight_floor

if TYPE_CHECKING:
    from mechvit.visualization.report.run_results import RunResults

DIRECTIONS = {"between_models": "tuned − base", "mean_difference": "clean − shifted"}


def weight_parts(table: pd.DataFrame, *, run: RunResults) -> list[str]:
    """Name the parts that changed most, and by more than rounding."""
    told = []
    for model, part in table.groupby("model", sort=False):
        order = part.sort_values("relative", ascending=False, kind="stable")
        floor = weight_floor(run, str(model))
        changed = order[order["relative"] > floor]
        if changed.empty:
            told.append(f"{model}: no weight differs{' by more than rounding makes' if floor else ''}.")
            continue
        shown = ", ".join(f"{row.group} ({row.relative:.2g})" for row in changed.head(3).itertuples())
        told.append(f"{model}: {len(changed)} of {len(order)} parts differ, most in relation to their size {shown}.")
    return [" ".join(told)]


def ranks(table: pd.DataFrame) -> list[str]:
    """Name the changes of lowest and of highest rank."""
    told = []
    for model, part in table.groupby("model", sort=False):
        order = part.sort_values("value", kind="stable")
        first, last = order.iloc[0], order.iloc[-1]
        told.append(
            f"{model}: from {first['value']:.1f} of {first['most']} ({first['condition']} of block {first['layer']}) "
            f"to {last['value']:.1f} of {last['most']} ({last['condition']} of block {last['layer']}); median "
            f"{part['value'].median():.1f}."
        )
    return [" ".join(told)]


def difference_size(table: pd.DataFrame) -> list[str]:
    """State where the mean difference is largest."""
    own = pick(table, panel="relative")
    told = []
    for (model, tokens), part in own.groupby(["model", "condition"], sort=False):
        top = part.loc[part["value"].idxmax()]
        told.append(f"{model}, {tokens}: at most {top['value']:.3g} of the base’s mean (layer {top['layer']}).")
    return [" ".join(told)]


def difference_read(table: pd.DataFrame, *, run: RunResults) -> list[str]:
    """Name the classes that the mean difference raises most at the last layer."""
    classes = run.table("difference_classes")
    last = pick(classes[classes["layer"] == classes["layer"].max()], direction="rises")
    told = []
    for (tuned, tokens, head), part in last.groupby(["tuned", "tokens", "head"], sort=False):
        names = ", ".join(part.sort_values("place")["name"].head(3).astype(str))
        told.append(f"{tuned}, {tokens}, {head} head: {names} rise most at the last layer.")
    return [" ".join(told)]


def swaps(table: pd.DataFrame, *, direction: str, run: RunResults, tuned: str) -> list[str]:
    """Name the parts that recover most, and the place of the difference if there is one."""
    told = []
    for condition, part in table.groupby("corruption", sort=False):
        known = part.dropna(subset="recovered").sort_values("recovered", ascending=False, kind="stable")
        if known.empty:
            told.append(f"{title_of(condition)}: the difference is too small to be shared out.")
            continue
        known = known[known["recovered"] > 0]
        shown = ", ".join(f"{row.part} ({share(row.recovered)})" for row in known.head(3).itertuples())
        told.append(f"{title_of(condition)}: {f'most is recovered by {shown}' if shown else 'no part recovers any'}.")
    if run.has("place") and direction == INTO_BASE:
        told += [place_sentence(row, run) for row in places(run, tuned)]
    return [" ".join(told)]


def places(run: RunResults, tuned: str) -> list[Any]:
    """Return, for each condition, the row that says where the difference sits."""
    own = pick(run.table("place"), tuned=tuned)
    return list(own.drop_duplicates("condition").itertuples())


def place_sentence(row: Any, run: RunResults) -> str:
    """State where the difference sits, or that it is in no single place."""
    share_asked = percent(float(run.config["recovered"]))
    shown = "On clean images" if row.condition == "clean" else f"Under {in_sentence(row.condition)}"
    if is_rounding(run, row.tuned, row.condition):
        return f"{shown} the difference is not placed: it is no more than rounding alone makes."
    if row.reason in ("no_gap", "same_answers"):
        return f"{shown} the difference is too small to be placed."
    if row.place_first < 0:
        return (
            f"{shown} the difference is in no single place: no run of blocks, short of all, recovers {share_asked} of "
            "it in both directions on images that did not choose it."
        )
    one = row.place_first == row.place_last
    blocks = f"block {row.place_first}" if one else f"blocks {row.place_first} to {row.place_last}"
    return (
        f"{shown} the difference sits in {blocks}: exchanged, {'it recovers' if one else 'they recover'} at least "
        f"{share_asked} of it in both directions, on images that did not choose {'it' if one else 'them'}."
    )


def patching(table: pd.DataFrame) -> list[str]:
    """Name the best component of each kind but the stream."""
    told = []
    for kind in ("attn", "mlp", "head"):
        known = pick(table, kind=kind).dropna(subset="recovered")
        if (known["recovered"] > 0).any():
            best = known.loc[known["recovered"].idxmax()]
            told.append(f"{component_name(best)} ({share(best['recovered'])})")
    return [f"Most is recovered by {listing(told)}."] if told else []


def interpolation(table: pd.DataFrame) -> list[str]:
    """State at which point of the line the loss is lowest; nothing without labels."""
    loss = pick(table, quantity="loss").dropna(subset="value")
    told = [
        f"{title_of(condition)}: the loss is lowest at alpha {part.loc[part['value'].idxmin(), 'alpha']:g}."
        for condition, part in loss.groupby("corruption", sort=False)
    ]
    return [" ".join(told)] if told else []


def steering(table: pd.DataFrame) -> list[str]:
    """State what each direction recovers beside random ones of its length."""
    told = []
    for row in pick(table, control=0).itertuples():
        chance = table[(table["control"] > 0) & (table["corruption"] == row.corruption)]
        random = pick(chance, source=row.source)["recovered"].mean()
        shown = "On clean images" if row.corruption == "clean" else f"Under {in_sentence(row.corruption)}"
        told.append(
            f"{shown}, {DIRECTIONS.get(row.source, row.source)}, added after block {row.hook_name.split('.')[1]} at "
            f"scale {row.scale:g}, recovers {share(row.recovered)} [{share(row.recovered_low)}, "
            f"{share(row.recovered_high)}] of the difference; random directions of its length recover {share(random)}."
        )
    return [" ".join(told)]


def dictionaries(table: pd.DataFrame) -> list[str]:
    """State the first quantity of every dictionary on every model."""
    first = pick(table, panel=table["panel"].iloc[0])
    named = ((f"{row.model[0].upper()}{row.model[1:]}", row) for row in first.itertuples())
    return [" ".join(f"{name} on {row.group}: {row.value:.3f}." for name, row in named)]
