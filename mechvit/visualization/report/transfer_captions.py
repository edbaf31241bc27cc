"""Paragraphs of the transfer page, written from the tables that the figures draw."""

from __future__ import annotations

import pandas as pd

from mechvit.visualization.figures.table_checks import pick
from mechvit.visualization.number_format import interval, listing, share, signed
from mechvit.visualization.style import in_sentence, title_of


def lead(means: pd.DataFrame) -> list[str]:
    """State the answer: transfer within a group against across groups, and by frequency bands."""
    rows = means.set_index("scope")
    said = []
    if "group minus across" in rows.index:
        group, across, difference = (rows.loc[name] for name in ("group", "across", "group minus across"))
        said.append(
            f"Training on one corruption changes accuracy on another of its group by {_points(group)} on average, and "
            f"on one of another group by {_points(across)}. The difference {_judged(difference)}."
        )
    if "same band minus other band" in rows.index:
        said.append(
            "The difference between pairs in the same band of frequencies and pairs in different bands "
            f"{_judged(rows.loc['same band minus other band'])}."
        )
    return (
        [" ".join(said)] if said else ["This run lacks two corruptions of the same group, or two of different groups."]
    )


def gains(transfer: pd.DataFrame) -> list[str]:
    """State the gains on each model's own corruption, the largest and smallest transfer, and the clean cost."""
    own = pick(transfer, relation="itself")
    up = int((own["gain_low"] > 0).sum())
    said = [
        f"Tested on what it was trained on, a model gains {interval(own['gain'].min() * 100, own['gain'].max() * 100)} "
        f"points over the base (mean {signed(own['gain'].mean() * 100)}); {up} of {len(own)} intervals lie above zero."
    ]
    others = transfer[transfer["relation"].isin(["family", "group", "across"])]
    if not others.empty:
        best, worst = (others.loc[getattr(others["gain"], name)()] for name in ("idxmax", "idxmin"))
        said.append(
            f"Between two corruptions, the gain is largest from training on {in_sentence(best.trained_on)} to testing "
            f"on {in_sentence(best.tested_on)}: {_points(best)}; it is smallest from {in_sentence(worst.trained_on)} "
            f"to {in_sentence(worst.tested_on)}: {_points(worst)}."
        )
    for relation, words in (
        ("clean", "On clean images, the models' accuracy differs from the base's by"),
        ("control", "Further training on clean images alone changes accuracy on corrupted ones by"),
    ):
        part = pick(transfer, relation=relation)
        if not part.empty:
            low, high = part["gain"].min() * 100, part["gain"].max() * 100
            said.append(f"{words} {interval(low, high)} points (mean {signed(part['gain'].mean() * 100)}).")
    return [" ".join(said)]


def shares(transfer: pd.DataFrame) -> list[str]:
    """State, for each corruption with a positive own gain, the best other corruption to train on."""
    known = transfer[transfer["transfer"].notna()]
    tested = list(dict.fromkeys(known["tested_on"]))
    unknown = [key for key in dict.fromkeys(pick(transfer, relation="itself")["tested_on"]) if key not in tested]
    said = []
    for key in tested:
        others = known[(known["tested_on"] == key) & known["relation"].isin(["family", "group", "across"])]
        if not others.empty:
            best = others.loc[others["transfer"].idxmax()]
            said.append(
                f"{title_of(key)}: {in_sentence(best.trained_on)} ({share(best.transfer)}, "
                f"{share(best.transfer_low)} to {share(best.transfer_high)})"
            )
    found = (
        [f"The best other corruption to train on for each tested one, with its share. {'; '.join(said)}."]
        if said
        else []
    )
    if unknown:
        names = listing([in_sentence(key) for key in unknown])
        found.append(f"Left empty: {names}, on which training on the corruption itself gives no clear gain.")
    return found


def means(table: pd.DataFrame) -> list[str]:
    """State each relation's mean gain with its interval."""
    rows = table.set_index("scope")
    said = []
    for scope, words in (
        ("family", "Training on another level of the tested corruption"),
        ("group", "Training on another corruption of its group"),
        ("across", "Training on a corruption of another group"),
        ("member", "Training on a mixture that contains it"),
    ):
        if scope in rows.index:
            row = rows.loc[scope]
            part = "" if pd.isna(row.transfer) else f", {share(row.transfer)} of the gain from training on it itself"
            said.append(f"{words} gives {_points(row)}{part}.")
    return [" ".join(said)] if said else []


def similarity(table: pd.DataFrame) -> list[str]:
    """State the rank correlations and what follows from them."""
    said = []
    for row in table.itertuples():
        what = "the gain" if row.quantity == "gain" else "the share of the tested corruption’s own gain"
        sure = row.p_value < 0.05
        says = (
            f"the further apart two spectra lie, the {'less' if row.correlation < 0 else 'more'} is transferred"
            if sure
            else "this is no evidence of a relation"
        )
        said.append(
            f"Over {row.pairs} ordered pairs, the rank correlation of the spectra’s distance with {what} is "
            f"{signed(row.correlation, 2)} ({interval(row.low, row.high, 2)} over test images), p = {row.p_value:.2g} "
            f"when corruptions are permuted: {says}."
        )
    return said


def _points(row: pd.Series) -> str:
    """Format `+1.2 points (+0.4 to +2.0)`."""
    return f"{signed(row.gain * 100)} points ({interval(row.gain_low * 100, row.gain_high * 100)})"


def _judged(row: pd.Series) -> str:
    """State a difference and whether its interval excludes zero."""
    if row.gain_low > 0 or row.gain_high < 0:
        return f"is {signed(row.gain * 100)} points ({interval(row.gain_low * 100, row.gain_high * 100)})"
    return f"is not clearly different from zero ({interval(row.gain_low * 100, row.gain_high * 100)} points)"
