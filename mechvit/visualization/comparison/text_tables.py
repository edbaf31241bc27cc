"""Tables of words and numbers in a comparison's report: classes that the mean difference moves, latents that differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from mechvit.visualization.figures.table_checks import pick
from mechvit.visualization.number_format import signed
from mechvit.visualization.report.table_downloads import Offer, Offers

if TYPE_CHECKING:
    from mechvit.visualization.report.run_results import RunResults

MOST_CLASSES = 3
"""Classes named in a cell; the table beside the page has more."""
MOST_LATENTS = 10
"""Latents of each dictionary in the report; the table beside the page has all."""


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """One table of the page."""

    id: str
    title: str
    columns: list[str]
    groups: list[tuple[str, list[tuple[str, list[str]]]]]
    """Heading, and its rows: title and cells."""
    definition: str
    offer: Offer
    words: bool = False
    """Whether cells hold words, which are set to the left."""


def text_tables(run: RunResults, about: dict[str, Any], section: str, offers: Offers) -> list[TextTable]:
    """Return the tables of a section; none where the run lacks theirs, or they have no rows."""
    made = {"difference": ("difference_classes", _classes), "saes": ("sae_latents", _latents)}
    if section not in made or not run.has(made[section][0]):
        return []
    name, table_of = made[section]
    table = run.table(name)
    return [table_of(table, about, offers.add(name, "its table", table))] if len(table) else []


def _classes(table: pd.DataFrame, about: dict[str, Any], offer: Offer) -> TextTable:
    """Return, by layer, the classes that each head reads as raised and as lowered."""
    heads = [head for head in ("base", "tuned") if head in set(table["head"])]
    titles = {"base": "base’s head", "tuned": "tuned head"}
    groups = []
    for (tuned, tokens), part in table.groupby(["tuned", "tokens"], sort=False):
        rows = []
        for layer, own in part.groupby("layer"):
            cells = [
                _named(pick(own, head=head, direction=direction)) for head in heads for direction in ("rises", "falls")
            ]
            rows.append((f"layer {layer}", cells))
        where = "at CLS" if tokens == "cls" else f"at {tokens}"
        groups.append((f"{tuned}, {where}" if len(about["tuned"]) > 1 else where[0].upper() + where[1:], rows))
    return TextTable(
        id="difference-classes",
        title="Classes that the mean difference raises and lowers",
        columns=[f"{titles[head]} {says}" for head in heads for says in ("raises", "lowers")],
        groups=groups,
        definition="Change of each class’s logit, minus the mean over classes, where the mean difference is added to "
        f"the base’s mean residual stream: at most the {MOST_CLASSES} largest of either sign. Layers at which nothing "
        "differs are left out.",
        offer=offer,
        words=True,
    )


def _named(part: pd.DataFrame) -> str:
    """Return classes with their changes."""
    shown = part.sort_values("place").head(MOST_CLASSES)
    return ", ".join(
        f"{row.class_name} {signed(row.change, 2)}" for row in shown.rename(columns={"name": "class_name"}).itertuples()
    )


def _latents(table: pd.DataFrame, about: dict[str, Any], offer: Offer) -> TextTable:
    """Return the latents of each dictionary whose mean activation differs most between the models."""
    groups = []
    for (tuned, dictionary), part in table.groupby(["tuned", "dictionary"], sort=False):
        size = part["difference"].abs()
        first = (
            part.assign(size=size)[size > 0]
            .sort_values(["size", "feature"], ascending=[False, True])
            .head(MOST_LATENTS)
        )
        rows = [
            (
                f"latent {row.feature}",
                [
                    f"{row.base:.3g}",
                    f"{row.tuned_mean:.3g}",
                    f"{row.difference:+.3g} [{row.low:+.3g}, {row.high:+.3g}]".replace("-", "−"),
                    f"{row.base_rate:.1%}",
                    f"{row.tuned_rate:.1%}",
                ],
            )
            for row in first.itertuples()
        ]
        owner = tuned if dictionary == "tuned" else about["base"]
        sure = int((part["q"] <= 0.05).sum())
        says = f"Dictionary of {owner}" + (f", read on {tuned}" if len(about["tuned"]) > 1 else "")
        groups.append((f"{says}: {sure} of {len(part)} latents differ at q ≤ 0.05", rows))
    return TextTable(
        id="sae-latents",
        title="Latents that differ most",
        columns=["mean in base", "mean in tuned", "tuned − base", "fires in base", "fires in tuned"],
        groups=groups,
        definition="Mean activation over tokens of clean images, and share of tokens at which the latent fires; the "
        "interval is Student’s t over images. q: expected share of false discoveries (Benjamini and Hochberg). Images, "
        "classes and effects of latents: mechvit browse-features.",
        offer=offer,
    )
