"""Rows of a comparison's figures: tables of the run, reduced and named as the figures take them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from mechvit.visualization.figures.table_checks import pick
from mechvit.visualization.style import title_of

if TYPE_CHECKING:
    from mechvit.visualization.report.run_results import RunResults

MOST_GROUPS = 20
"""Most classes or groups in a figure, those that differ most; the table has all."""
HEAD_PANELS = {
    "js_distance": "JS distance",
    "entropy_change": "entropy, nats",
    "distance_change": "distance, patches",
    "cls_mass_change": "weight on CLS",
}
"""Quantities of a head's change, with their units."""


def of_all(table: pd.DataFrame, head: str) -> pd.DataFrame:
    """Return the rows of one head over all images, with the tuned model as `model` and the condition as `group`."""
    own = pick(table, head=head, by="all").rename(columns={"tuned": "model"})
    return own.assign(group=own["condition"].map(title_of)).drop(columns=["head", "by", "condition"])


def answer_rows(table: pd.DataFrame, base: str) -> pd.DataFrame:
    """Return accuracy, calibration and confidence of each model; the base's once."""
    parts = []
    for quantity in ("accuracy", "ece", "confidence"):
        own = pick(table, quantity=f"{quantity}_base").assign(model=base).drop_duplicates(["group"])
        parts += [own.assign(panel=quantity), pick(table, quantity=f"{quantity}_tuned").assign(panel=quantity)]
    return pd.concat(parts, ignore_index=True).drop(columns="quantity")


def flip_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return the kinds of flips; without labels, all flips as one."""
    known = table[table["quantity"].isin(("negative_flips", "positive_flips", "wrong_to_wrong"))]
    if len(known):
        return known.reset_index(drop=True)
    agreed = pick(table, quantity="agreement")
    ends = {"value": 1 - agreed["value"], "low": 1 - agreed["high"], "high": 1 - agreed["low"]}
    return agreed.assign(quantity="prediction_flips", **ends).reset_index(drop=True)


def plain_rows(table: pd.DataFrame, quantities: tuple[str, ...]) -> pd.DataFrame:
    own = table[table["quantity"].isin(quantities)]
    return own.rename(columns={"quantity": "panel"}).reset_index(drop=True)


def most_changed(table: pd.DataFrame, by: str, head: str) -> pd.DataFrame:
    """Return the change of accuracy of clean images by group, of the groups that change most."""
    own = pick(table, head=head, by=by, quantity="accuracy_change", condition="clean").rename(
        columns={"tuned": "model"}
    )
    most = own.assign(size=own["value"].abs()).groupby("group", sort=False)["size"].max()
    chosen = most.sort_values(ascending=False, kind="stable").index[:MOST_GROUPS]
    shown = own[own["group"].isin(chosen)].sort_values("value", kind="stable")
    return shown.rename(columns={"quantity": "panel"}).drop(columns=["head", "by", "condition"]).reset_index(drop=True)


def stream_rows(run: RunResults) -> pd.DataFrame:
    parts = []
    if run.has("residual_cosine"):
        cosine = run.table("residual_cosine")
        cosine = cosine[cosine["tokens"] != "head"].rename(columns={"tokens": "panel", "cosine": "value"})
        parts.append(cosine)
    if run.has("cka"):
        cka = run.table("cka")
        parts.append(cka.rename(columns={"layer_base": "layer", "cka": "value"}).assign(panel="cka"))
    table = pd.concat(parts, ignore_index=True).rename(columns={"tuned": "model"})
    return table.assign(condition=table["condition"].map(title_of))


def lens_rows(table: pd.DataFrame, base: str) -> pd.DataFrame:
    named = table.assign(model=table["tuned"].where(table["model"] == "tuned", base))
    named = named.drop_duplicates(["model", "corruption", "layer", "quantity"])
    named = named.rename(columns={"quantity": "panel", "corruption": "condition"})
    named = named.dropna(subset="value").drop(columns=["tuned", "lens", "head"])
    return named.assign(condition=named["condition"].map(title_of)).reset_index(drop=True)


def depth_rows(table: pd.DataFrame) -> pd.DataFrame:
    own = table[(table["model"] == "tuned") & (table["subset"] == "all")]
    ends = {"value": own["change"], "low": own["change_low"], "high": own["change_high"]}
    named = own.drop(columns=["model", "change", "change_low", "change_high"], errors="ignore").assign(**ends)
    named = named.assign(model=own["tuned"], panel="change", group=own["corruption"].map(title_of))
    return named[["model", "panel", "group", "n", "value", "low", "high"]].reset_index(drop=True)


def attention_rows(table: pd.DataFrame) -> pd.DataFrame:
    own = table[table["quantity"].isin(HEAD_PANELS)].rename(columns={"quantity": "panel", "tuned": "model"})
    return own.assign(condition=own["condition"].map(title_of)).reset_index(drop=True)


def weight_rows(table: pd.DataFrame) -> pd.DataFrame:
    ends = dict.fromkeys(("value", "low", "high"), table["relative"])
    return table.rename(columns={"tuned": "model", "part": "group"}).assign(panel="relative", **ends)


def rank_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return the effective rank of every block's changed matrices; the kind of matrix as `condition`."""
    named = table["weight"].str.extract(r"^blocks\.(?P<layer>\d+)\.(?P<condition>.+)\.weight$")
    own = table.assign(**named).dropna(subset=["layer", "effective_rank"])
    sides = own["shape"].str.split("x").map(lambda shape: min(map(int, shape)))
    own = own.assign(layer=own["layer"].astype(int), most=sides, model=own["tuned"], panel="effective_rank")
    own = own.assign(value=own["effective_rank"], low=float("nan"), high=float("nan"))
    columns = ["model", "panel", "condition", "layer", "value", "low", "high", "most", "stable_rank"]
    return own[columns].reset_index(drop=True)


def difference_rows(table: pd.DataFrame) -> pd.DataFrame:
    parts = []
    for panel in ("relative", "mean_share"):
        scale = table["relative"] / table["norm"] if panel == "relative" else None
        low, high = (table[panel],) * 2 if scale is None else (table["low"] * scale, table["high"] * scale)
        parts.append(table.assign(panel=panel, value=table[panel]).assign(low=low, high=high))
    found = pd.concat(parts, ignore_index=True).rename(columns={"tuned": "model", "tokens": "condition"})
    return found[["model", "panel", "condition", "layer", "value", "low", "high"]].dropna(subset="value")


def reading_rows(table: pd.DataFrame) -> pd.DataFrame:
    own = table.assign(value=table["size"], model=table["tuned"])
    several = table["tuned"].nunique() > 1
    name = "random directions" + (" (" + table["tuned"] + ")" if several else "")
    random = table.assign(value=table["random"], low=table["random_low"], high=table["random_high"], model=name)
    found = pd.concat([own, random], ignore_index=True).rename(columns={"head": "panel", "tokens": "condition"})
    return found[["model", "panel", "condition", "layer", "value", "low", "high"]]


def of_pair(table: pd.DataFrame, tuned: str, direction: str) -> pd.DataFrame:
    return pick(table, tuned=tuned, direction=direction).drop(columns=["tuned", "direction"]).reset_index(drop=True)


def clean_patching(table: pd.DataFrame) -> pd.DataFrame:
    own = pick(table, condition="clean", tokens="all", quantity="divergence")
    return own.drop(columns="condition").reset_index(drop=True)


def steering_rows(table: pd.DataFrame) -> pd.DataFrame:
    own = pick(table, quantity="divergence").dropna(subset="recovered").drop(columns="tuned")
    return own.rename(columns={"condition": "corruption"}).reset_index(drop=True)


def dictionary_rows(table: pd.DataFrame, base: str) -> pd.DataFrame:
    """Return one row per model, dictionary and quantity, named by the models."""
    owner = table["tuned"].where(table["dictionary"] == "tuned", base)
    shown = table["tuned"].where(table["model"] == "tuned", base)
    under = table["corruption"].map(title_of)
    if "metric" in table:
        ends = dict.fromkeys(("low", "high"), table["value"])
        table = table.assign(panel=table["metric"], group=shown, **ends)[table["corruption"] == "clean"]
    else:
        table = table.assign(panel="cosine", group=shown + ", " + under.str.lower())
    named = table.assign(model="dictionary of " + owner[table.index])
    return named[["model", "panel", "group", "value", "low", "high"]].drop_duplicates(["model", "panel", "group"])


def condition_rows(table: pd.DataFrame, base: str, quantity: str) -> pd.DataFrame:
    metric = "metric" if "metric" in table else "quantity"
    own = pick(table, **{metric: quantity}) if metric in table else table.rename(columns={quantity: "value"})
    named = own.assign(model=own["tuned"].where(own["model"] == "tuned", base), panel=quantity)
    named = named.drop_duplicates(["model", "corruption", "layer"]).rename(columns={"corruption": "condition"})
    named = named.assign(condition=named["condition"].map(title_of))
    return named[["model", "panel", "condition", "layer", "value", "low", "high"]].reset_index(drop=True)
