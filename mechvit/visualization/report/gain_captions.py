"""Paragraphs under the figures on where the gain arises, written from the tables that the figures draw."""

from __future__ import annotations

import pandas as pd

from mechvit.visualization.figures.feature_ablation import DISCOVERY
from mechvit.visualization.figures.table_checks import pick
from mechvit.visualization.number_format import listing, signed
from mechvit.visualization.style import in_order, title_of

AGREEMENT = {"pearson": "Pearson’s r", "spearman": "Spearman’s ρ", "relative_error": "relative error"}
KIND_NAMES = {"resid": "the residual stream", "attn": "attention", "mlp": "the MLP"}


def between(row: pd.Series, name: str, digits: int = 2, scale: float = 1.0) -> str:
    """Format `+0.52 [+0.41, +0.63]` from the columns name, name_low and name_high."""
    value, low, high = (signed(scale * float(row[c]), digits) for c in (name, f"{name}_low", f"{name}_high"))
    return f"{value} [{low}, {high}]"


def component_name(row: pd.Series) -> str:
    """Return the name of a component in a sentence: `head 3 of block 2`, `the MLP of block 0`."""
    name = f"head {int(row['head'])}" if row["kind"] == "head" else KIND_NAMES[row["kind"]]
    return f"{name} of block {int(row['layer'])}"


def patching(summary: pd.DataFrame) -> list[str]:
    """Name the component whose activation alone recovers most, for each model."""
    said = []
    for model in in_order(summary["model"]):
        rows = pick(summary, model=model, quantity="logit_difference")
        single = rows[rows["kind"].isin(["attn", "mlp", "head"]) & rows["recovered"].notna()]
        if single.empty:
            said.append(f"On {title_of(model)}, the tuned model has no clear lead that could be recovered.")
            continue
        best = single.loc[single["recovered"].idxmax()]
        said.append(
            f"On {title_of(model)}, the single activation that recovers the largest share of the tuned model’s lead is "
            f"that of {component_name(best)}: {between(best, 'recovered')}."
        )
    return [" ".join(said)]


def swaps(summary: pd.DataFrame) -> list[str]:
    """Name the part, and the block, whose weights alone recover most."""
    rows = pick(summary, kind="single", quantity="logit_difference")
    rows = rows[rows["recovered"].notna()]
    if rows.empty:
        return ["The two models have no clear gap that could be recovered."]
    blocks = rows["part"].str.fullmatch(r"blocks\.\d+")
    parts, whole = rows[~blocks], rows[blocks]
    best = parts.loc[parts["recovered"].idxmax()]
    said = f"The single part that recovers the largest share of the gap is {best['part']}: {between(best, 'recovered')}"
    if len(whole):
        block = whole.loc[whole["recovered"].idxmax()]
        said += f"; among whole blocks, it is {block['part']}: {between(block, 'recovered')}"
    return [said + "."]


def smallest(found: pd.DataFrame) -> str:
    """Describe the smallest set and its recovered share on held-out images; empty without one."""
    held_out = pick(found, images="held_out") if len(found) else found
    if held_out.empty:
        return ""
    last = held_out.loc[held_out["step"].idxmax()]
    names = str(last["groups"]).split()
    return (
        f"The smallest set that recovers 90% of the gain, on the images that it was chosen on, holds {len(names)} of "
        f"{int(last['of'])} parts: {listing(names)}. On held-out images it recovers {between(last, 'recovered')}."
    )


def interpolation(summary: pd.DataFrame) -> list[str]:
    """State, per condition, the point on the line with the highest accuracy."""
    rows = pick(summary, quantity="accuracy")
    said = []
    for corruption in in_order(rows["corruption"]):
        line = pick(rows, corruption=corruption)
        best = line.loc[line["value"].idxmax()]
        images = "clean images" if corruption == "clean" else title_of(corruption)
        said.append(f"{images} at alpha {best['alpha']:g} ({100 * best['value']:.1f}%)")
    return [f"Accuracy is highest on {listing(said)}."]


def attribution(components: pd.DataFrame, overall: pd.DataFrame) -> list[str]:
    """State how well the approximation agrees with patching."""
    rows = pick(overall, kind="all").set_index("quantity")
    said = [
        f"{name} {rows.loc[key, 'value']:.2f} [{rows.loc[key, 'low']:.2f}, {rows.loc[key, 'high']:.2f}]"
        for key, name in AGREEMENT.items()
        if key in rows.index
    ]
    return [f"Agreement over {len(components)} components: {listing(said)}."]


def heads(correlations: pd.DataFrame) -> list[str]:
    """List the attention statistics whose correlation with the patching effect is significant."""
    rows = correlations.dropna(subset=["value"])
    sure = rows[((rows["low"] > 0) | (rows["high"] < 0)) & (rows["p"] < 0.05)]
    if sure.empty:
        return [
            "No statistic of the heads’ attention is significantly correlated with their patching effect (interval "
            "over images without zero, and p below 0.05 when heads are permuted)."
        ]
    said = [
        f"{row.number.replace('_', ' ')} ({row.model}) {signed(row.value, 2)} [{signed(row.low, 2)}, "
        f"{signed(row.high, 2)}]"
        for row in sure.itertuples()
    ]
    return [
        "Significant rank correlations with the patching effect (interval over images without zero, and p below 0.05 "
        f"when heads are permuted): {listing(said)}."
    ]


def steering(chosen: pd.DataFrame) -> list[str]:
    """State the recovered share of the chosen directions on held-out images, and their clean cost."""
    rows = pick(chosen, quantity="accuracy", control=0)
    rows = rows[rows["recovered"].notna()]
    if rows.empty:
        return ["Every direction costs too much accuracy on clean images, or there is no gain to recover."]
    names = {"mean_difference": "the mean difference", "sae": "the SAE’s latents"}
    said = [
        f"On {title_of(row['corruption'])}, adding {names.get(row['source'], row['source'])} at {row['hook_name']} "
        f"recovers {between(row, 'recovered')} of the gain in accuracy, which is {between(row, 'beyond', 1, 100)} "
        "points more than random directions, and changes accuracy on clean images by "
        f"{between(row, 'clean_change', 1, 100)} points"
        for _, row in rows.iterrows()
    ]
    return [f"{'. '.join(said)}. All on held-out images."]


def similarity(cka: pd.DataFrame) -> list[str]:
    """State the layer at which base and tuned differ most."""
    own = cka[(cka["model_a"] != cka["model_b"]) & (cka["corruption_a"] == cka["corruption_b"])]
    said = []
    for model in in_order(own["model_b"]):
        rows = own[(own["model_b"] == model) & (own["corruption_b"] == model) & own["cka"].notna()]
        if len(rows):
            least = rows.loc[rows["cka"].idxmin()]
            said.append(
                f"On {title_of(model)}, the model tuned on it differs most from the base at layer "
                f"{int(least['layer_b'])}: CKA {least['cka']:.3f} [{least['low']:.3f}, {least['high']:.3f}]"
            )
    return [f"{'. '.join(said)}."] if said else []


def depth(summary: pd.DataFrame) -> list[str]:
    """State the change of prediction depth on the corruption that each model was tuned on."""
    rows = summary[(summary["model"] == summary["corruption"]) & (summary["subset"] == "both_correct")]
    said = [
        f"{between(row, 'change')} layers for {title_of(row['model'])} by the {row['lens']} lens"
        for _, row in rows.iterrows()
    ]
    if not said:
        return []
    return [f"Change under the corruption tuned on, over images that both models get right: {listing(said)}."]


def latents(change: pd.DataFrame) -> list[str]:
    """State how many latents the corruption changes in each model, and in how many the models differ."""
    base, tuned, moved, differ = _changed(change)
    said = (
        f"At a false discovery rate of 5%, the corruption changes {moved[0]} of the base’s {len(base)} latents, and "
        f"{moved[1]} of the {len(tuned)} matching latents of the tuned model. In {len(differ)} of the matches the two "
        "changes differ"
    )
    if len(differ):
        row = differ.loc[differ["beyond"].abs().idxmax()]
        before = base.set_index("feature").loc[row["feature"], "difference"]
        said += (
            f", most in latent {int(row['feature'])}: {signed(float(before), 3)} in the base, "
            f"{signed(float(row['difference']), 3)} in the tuned model"
        )
    return [f"{said}."]


def shared_latents(change: pd.DataFrame) -> list[str]:
    """State the same for one SAE trained on both models, where no latent has to be matched."""
    base, _, moved, differ = _changed(change)
    before = base.set_index("feature")["difference"].loc[differ["feature"]]
    less = int((differ["difference"].abs().to_numpy() < before.abs().to_numpy()).sum())
    return [
        f"At a false discovery rate of 5%, the corruption changes {moved[0]} of the {len(base)} latents in the base "
        f"and {moved[1]} in the tuned model. In {len(differ)} the two changes differ; in {less} of these the change is "
        "smaller in the tuned model."
    ]


def _changed(change: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, list[int], pd.DataFrame]:
    """Return the latents of the base, those of the tuned model, the numbers changed in each, and those that differ."""
    base, tuned = (pick(change, model=model).dropna(subset=["difference"]) for model in dict.fromkeys(change["model"]))
    moved = [int((part["q"] < DISCOVERY).sum()) for part in (base, tuned)]
    return base, tuned, moved, tuned[tuned["beyond_q"] < DISCOVERY]


def neurons(agreement: pd.DataFrame) -> list[str]:
    """State how well the approximation agrees with patching for single neurons."""
    said = []
    for reason, words in (("top", "with the largest approximate effects"), ("random", "drawn at random")):
        rows = pick(agreement, chosen=reason).set_index("quantity")
        if len(rows):
            numbers = [
                f"{name} {rows.loc[key, 'value']:.2f} [{rows.loc[key, 'low']:.2f}, {rows.loc[key, 'high']:.2f}]"
                for key, name in AGREEMENT.items()
                if key in rows.index
            ]
            said.append(f"{int(rows['neurons'].iloc[0])} {words}, {listing(numbers)}")
    return [f"Agreement over single MLP neurons: {'; '.join(said)}."] if said else []


def ablation(summary: pd.DataFrame) -> list[str]:
    """State the effect of ablating the most sensitive latents beyond that of the controls."""
    rows = pick(summary, kind="sensitive", quantity="accuracy")
    rows = rows[rows["corruption"] != "clean"]
    said = [
        f"{int(row['n'])} latent{'' if row['n'] == 1 else 's'} {between(row, 'beyond', 1, 100)} points"
        for _, row in rows.iterrows()
    ]
    if not said:
        return []
    return [f"Change of accuracy under the corruption, minus that of equally frequent latents: {listing(said)}."]


def related(transfer: pd.DataFrame) -> list[str]:
    """State on how many filters of its own group, and of other groups, each model gains."""
    said = []
    for model in (m for m in in_order(transfer["trained_on"]) if m != "base"):
        for relation, words in (("group", "other filters of its group"), ("across", "filters of other groups")):
            rows = pick(transfer, trained_on=model, relation=relation)
            if len(rows):
                up, down = int((rows["gain_low"] > 0).sum()), int((rows["gain_high"] < 0).sum())
                said.append(
                    f"Tuned on {title_of(model)}, on {words}: the gain’s interval lies above zero in {up} of "
                    f"{len(rows)} and below zero in {down} (mean {signed(100 * rows['gain'].mean())} points)"
                )
    return [f"{'. '.join(said)}."] if said else []
