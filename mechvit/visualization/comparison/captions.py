"""Sentences of a comparison's report, each computed from the table that its figure shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from mechvit.visualization.figures.table_checks import pick
from mechvit.visualization.number_format import interval, listing, share, signed
from mechvit.visualization.report.gain_captions import component_name
from mechvit.visualization.report.sections import INTO_BASE
from mechvit.visualization.style import in_sentence, title_of

from .floors import is_rounding, weight_floor

if TYPE_CHECKING:
    from mechvit.visualization.report.run_results import RunResults

DIRECTIONS = {"between_models": "tuned − base", "mean_difference": "clean − shifted"}
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


def dictionaries(table: pd.DataFrame) -> list[str]:
    """State the first quantity of every dictionary on every model."""
    first = pick(table, panel=table["panel"].iloc[0])
    named = ((f"{row.model[0].upper()}{row.model[1:]}", row) for row in first.itertuples())
    return [" ".join(f"{name} on {row.group}: {row.value:.3f}." for name, row in named)]
