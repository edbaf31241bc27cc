"""Sentences of a comparison's report, each computed from the table that its figure shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from mechvit.visualization.figures.table_checks import pick
from mechvit.visualization.number_format import interval, signed
from mechvit.visualization.style import in_sentence

if TYPE_CHECKING:
    pass

PARTNERS = "paired_"
"""Beginning of the keys of partner pictures."""


def percent(value: float) -> str:
    """Format a share as `12.3%`, a whole percentage as `90%`."""
    return f"{100 * value:.1f}".removesuffix(".0") + "%"


def uncapitalised(title: str) -> str:
    """Return a title for use after a comma; abbreviations and Gauss keep their capitals."""
    kept = title[1:2].isupper() or title.startswith("Gaussian")
    return title if kept else title[:1].lower() + title[1:]


def points(value: float, low: float, high: float) -> str:
    """Format a difference of shares in percentage points, with its interval."""
    shown = f"{signed(100 * value)} points"
    return shown if pd.isna(low) else f"{shown} [{interval(100 * low, 100 * high)}]"


def span(row: Any, digits: int = 3) -> str:
    """Format a value with its interval, with a true minus; one image has no interval."""
    value, low, high = (number(each, digits) for each in (row.value, row.low, row.high))
    return value if pd.isna(row.low) else f"{value} [{low}, {high}]"


def number(value: float, digits: int = 3) -> str:
    """Format a number with a true minus."""
    return f"{value + 0:.{digits}g}".replace("-", "−")


def part_of(count: float, of: int, condition: str = "") -> str:
    """Format a share as images and percentage: `3 of 30 clean images (10%)`; no small share is rounded to none."""
    images = round(count)
    shown = percent(images / of) if of else "none"
    if 0 < images < of and shown in ("0%", "100%"):
        shown = "under 0.1%" if shown == "0%" else "over 99.9%"
    return f"{images:,} of {of:,} {shown_images(of, condition)} ({shown})"


def shown_images(of: int, condition: str = "") -> str:
    """Return what some images are: `clean images`, `images under fog 3`, `partners in night`."""
    if condition.startswith(PARTNERS):
        return in_sentence(condition)
    what = f"{'clean ' if condition == 'clean' else ''}image{'' if of == 1 else 's'}"
    return what if condition in ("", "clean") else f"{what} under {in_sentence(condition)}"


def answers(table: pd.DataFrame) -> list[str]:
    """State each model's accuracy under each condition."""
    accuracy = pick(table, panel="accuracy")
    told = []
    for group, part in accuracy.groupby("group", sort=False):
        shown = ", ".join(f"{row.model} {percent(row.value)}" for row in part.itertuples())
        told.append(f"{group}: {shown}.")
    return [" ".join(told)]


def flips(table: pd.DataFrame) -> list[str]:
    """State how many predictions differ."""
    told = []
    for (model, group), part in table.groupby(["model", "group"], sort=False):
        of = int(part["n"].max())
        told.append(f"{model}, {uncapitalised(str(group))}: {part_of(part['value'].sum() * of, of)}.")
    return [" ".join(told)]


def divergence(table: pd.DataFrame) -> list[str]:
    """State how far apart the outputs are."""
    own = pick(table, panel="kl")
    return [" ".join(f"{row.model}, {uncapitalised(row.group)}: {span(row)} nats." for row in own.itertuples())]


def groups(table: pd.DataFrame, *, name: str, most: int) -> list[str]:
    """State which groups change most, and how many surely do."""
    if not table["value"].any():
        return [f"No {name} differs in accuracy."]
    sure = int(((table["low"] > 0) | (table["high"] < 0)).sum())
    first, last = table.iloc[0], table.iloc[-1]
    told = [
        f"From {first['group']} ({signed(100 * first['value'])} points) to {last['group']} "
        f"({signed(100 * last['value'])})."
    ]
    told.append(
        f"Of {len(table)} intervals shown {sure} exclude{'s' if sure == 1 else ''} 0; with so many, one in twenty does "
        f"where nothing differs. At most {most} of the groups are shown, those that differ most."
    )
    return [" ".join(told)]


def streams(table: pd.DataFrame) -> list[str]:
    """State where the streams part."""
    told, clean = [], pick(table, condition="Clean").dropna(subset="value")
    for model in dict.fromkeys(clean["model"]):
        shown = []
        for panel, name in (("cls", "the cosine at CLS"), ("patches", "the cosine at patches"), ("cka", "CKA")):
            part = pick(clean, panel=panel, model=model).sort_values("layer")
            if len(part):
                last, lowest = part.iloc[-1], part.loc[part["value"].idxmin()]
                shown.append(
                    f"{name} is {lowest['value']:.3f} at its lowest (layer {lowest['layer']}) and {last['value']:.3f} "
                    "at the last layer"
                )
        told.append(f"{model}, clean: {'; '.join(shown)}.")
    paired = clean.assign(layer_tuned=clean.get("layer_tuned")).dropna(subset="layer_tuned")
    for model, part in paired.groupby("model", sort=False):
        if (part["layer"] == part["layer_tuned"]).all():
            continue
        layers = ", ".join(f"{row.layer} with {row.layer_tuned:.0f}" for row in part.itertuples())
        told.append(f"Layers of the base are paired with those of {model} by depth: {layers}.")
    told.append("The largest difference in a residual stream is nearly always late, and says not where it arises.")
    return [" ".join(told)]


def lens(table: pd.DataFrame) -> list[str]:
    """State the layer by which half of the divergence is gone."""
    own = pick(table, panel="divergence")
    told = []
    for (model, condition), part in own.groupby(["model", "condition"], sort=False):
        far = part.sort_values("layer")
        half = far[far["value"] <= far["value"].iloc[0] / 2] if far["value"].iloc[0] > 0 else far[:0]
        if len(half):
            told.append(
                f"{model}, {uncapitalised(condition)}: half of the divergence is gone at layer {half['layer'].iloc[0]}."
            )
    return [" ".join(told)] if told else []


def depth(table: pd.DataFrame) -> list[str]:
    """State by how much the prediction is settled earlier or later."""
    return [
        " ".join(
            f"{row.model}, {uncapitalised(row.group)}: {span(row)} layers, {row.n} image{'' if row.n == 1 else 's'}."
            for row in table.itertuples()
        )
    ]


def heads(table: pd.DataFrame) -> list[str]:
    """Name the heads whose patterns are furthest apart."""
    own = pick(table, panel="js_distance").sort_values("value", ascending=False, kind="stable")
    if not own["value"].any():
        return ["No head's pattern differs at all."]
    several, told = own["model"].nunique() > 1, []
    for model in dict.fromkeys(table["model"]):
        part = pick(own, model=model)
        shown = [f"layer {row.layer}, head {row.head} ({row.value:.3f})" for row in part.head(3).itertuples()]
        told.append(
            f"{f'{model}: the' if several else 'The'} patterns are furthest apart in {'; '.join(shown)}. The median "
            f"head’s distance is {part['value'].median():.3f}."
        )
    return [" ".join(told)]


def attention_layers(table: pd.DataFrame) -> list[str]:
    """Count the layers whose entropy differs."""
    own = pick(table, panel="entropy_change")
    told = []
    for (model, condition), part in own.groupby(["model", "condition"], sort=False):
        up, down = int((part["low"] > 0).sum()), int((part["high"] < 0).sum())
        told.append(
            f"{model}, {uncapitalised(condition)}: of {len(part)} layers entropy is higher in {up} and lower in "
            f"{down}, by intervals that exclude 0."
        )
    told.append("Every tuning moves some: only tuning on clean images tells what is usual.")
    return [" ".join(told)]


def condition_lens(table: pd.DataFrame) -> list[str]:
    """State each model's probability of the label at the end."""
    last = table[table["layer"] == table["layer"].max()]
    return [" ".join(f"{row.model}, {uncapitalised(row.condition)}: {row.value:.3f}." for row in last.itertuples())]


def condition_attention(table: pd.DataFrame) -> list[str]:
    """State where a condition spreads attention out or draws it together."""
    told = []
    for (model, condition), part in table.groupby(["model", "condition"], sort=False):
        most = part.loc[part["value"].abs().idxmax()]
        told.append(
            f"{model}, {uncapitalised(condition)}: {signed(most['value'], 3)} nats at layer {most['layer']}, "
            "the largest."
        )
    return [" ".join(told)]
