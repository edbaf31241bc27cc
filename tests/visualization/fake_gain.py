"""Tables of where a gain lives, as a run leaves them, with plausible random numbers."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
from numpy.random import Generator

MODELS = ("gaussian_blur_4", "gaussian_noise_4")
LAYERS, HEADS = 4, 2
PARTS = ("embed", *(f"blocks.{i}.{part}" for i in range(LAYERS) for part in ("attn", "mlp")), "ln_final", "head")


def around(name: str, value: float, half: float = 0.05) -> dict[str, float]:
    """A quantity and its interval's ends."""
    ends = ("low", "high") if name == "value" else (f"{name}_low", f"{name}_high")
    return dict(zip((name, *ends), (value, value - half, value + half), strict=True))


def gain_tables(rng: Generator) -> dict[str, pd.DataFrame]:
    """Every table of the section, of two tuned models."""
    rows = {name: [] for name in MAKERS}
    for model, (name, make) in product(MODELS, MAKERS.items()):
        rows[name] += [{"tuned_on": model, **row} for row in make(rng, model)]
    return {name: pd.DataFrame(found) for name, found in rows.items()} | {"related": related(rng)}


def patching(rng: Generator, model: str):
    places = [("resid", layer, -1) for layer in range(LAYERS + 1)]
    places += [(kind, layer, -1) for kind in ("attn", "mlp") for layer in range(LAYERS)]
    places += [("head", layer, head) for layer in range(LAYERS) for head in range(HEADS)]
    for (kind, layer, head), way in product(places, ("tuned into base", "base into tuned")):
        for quantity in ("accuracy", "logit_difference"):
            about = {"direction": way, "kind": kind, "layer": layer, "head": head, "tokens": "all"}
            share = layer / LAYERS if kind == "resid" else rng.uniform(0, 0.5)
            yield about | {"quantity": quantity} | around("value", share + 1) | around("recovered", share)


def swaps(rng: Generator, model: str):
    for way, corruption, part in product(("tuned into base", "base into tuned"), ("clean", model), PARTS):
        share = np.nan if corruption == "clean" else rng.uniform(0, 0.6)
        about = {"direction": way, "corruption": corruption, "kind": "single", "part": part, "k": 1}
        yield about | {"quantity": "logit_difference"} | around("value", 1.0) | around("recovered", share)


def smallest_set(rng: Generator, model: str):
    for step, images in product((1, 2, 3), ("selection", "held_out")):
        groups = " ".join(PARTS[1 : step + 1])
        yield {"step": step, "groups": groups, "images": images, "of": len(PARTS)} | around("recovered", 0.3 * step)


def interpolation(rng: Generator, model: str):
    for corruption, alpha, quantity in product(("clean", model), (0.0, 0.5, 1.0, 1.5), ("accuracy", "loss")):
        about = {"corruption": corruption, "alpha": alpha, "quantity": quantity}
        yield about | around("value", 0.8 - 0.1 * abs(alpha - 0.75))


def components(rng: Generator, model: str):
    for layer, kind in product(range(LAYERS), ("attn", "mlp")):
        exact = rng.uniform(0, 1)
        about = {"kind": kind, "layer": layer, "head": -1, "tokens": "all"}
        yield about | around("exact", exact) | around("approximate", 1.1 * exact) | around("error", 0.1 * exact)


def attribution(rng: Generator, model: str):
    for quantity, value in (("pearson", 0.99), ("spearman", 0.97), ("relative_error", 0.18)):
        yield {"kind": "all", "components": 2 * LAYERS, "quantity": quantity} | around("value", value, 0.02)


def heads(rng: Generator, model: str):
    for which, number in product(("receiver", "giver", "change"), ("distance", "entropy")):
        for layer, head in product(range(LAYERS), range(HEADS)):
            about = {"model": which, "number": number, "layer": layer, "head": head}
            yield about | around("value", rng.normal()) | around("effect", rng.normal(0, 0.2))


def head_correlations(rng: Generator, model: str):
    for which, number in product(("receiver", "giver", "change"), ("distance", "entropy")):
        sure = (which, number) == ("receiver", "distance")
        about = {"model": which, "number": number, "heads": LAYERS * HEADS, "p": 0.01 if sure else 0.6}
        yield about | around("value", -0.5, 0.1 if sure else 0.9)


def steering(rng: Generator, model: str):
    for source, control in product(("mean_difference", "sae"), (0, 1)):
        about = {"corruption": model, "source": source, "hook_name": "blocks.1.hook_resid_post", "tokens": "all"}
        about |= {"control": control, "scale": 1.0, "quantity": "accuracy"}
        numbers = around("value", 0.6) | around("change", 0.02) | around("recovered", 0.1 if control else 0.2)
        yield about | numbers | around("clean_change", -0.01, 0.01) | around("beyond", np.nan if control else 0.03)


def cka(rng: Generator, model: str):
    pairs = [(("base", c), ("tuned", c)) for c in ("clean", model)]
    pairs += [((name, "clean"), (name, model)) for name in ("base", "tuned")]
    for ((a, c), (b, d)), layer in product(pairs, range(LAYERS + 1)):
        about = {"model_a": a, "corruption_a": c, "model_b": b, "corruption_b": d, "layer_a": layer, "layer_b": layer}
        value = 1 - 0.05 * layer
        yield about | {"cka": value, "low": value - 0.01, "high": value + 0.01}


def depth(rng: Generator, model: str):
    for which, corruption, lens, subset in product(
        ("base", "tuned"), ("clean", model), ("logit", "tuned"), ("all", "both_correct")
    ):
        about = {"model": which, "corruption": corruption, "lens": lens, "subset": subset, "n": 100, "depth": 3.0}
        yield about | {"low": 2.8, "high": 3.2} | around("change", 0.0 if which == "base" else -0.3, 0.1)


def ablation(rng: Generator, model: str):
    for which, corruption, kind, n, quantity in product(
        ("base", "tuned"),
        ("clean", model),
        ("untouched", "sensitive", "control"),
        (1, 4),
        ("accuracy", "loss"),
    ):
        about = {"model": which, "corruption": corruption, "kind": kind, "n": n, "quantity": quantity}
        yield about | around("value", 0.7) | around("change", 0.01) | around("beyond", 0.02)


def related(rng: Generator) -> pd.DataFrame:
    """A table like that of `mechvit.analysis.robustness.transfer`."""
    groups = {"median_blur_4": "blur", "shot_noise_4": "noise", "gaussian_blur_4": "blur", "gaussian_noise_4": "noise"}
    rows = []
    for trained, (tested, group) in product(("base", *MODELS), groups.items()):
        own = trained.split("_")[1] if trained != "base" else "base"
        relation = "base" if own == "base" else "itself" if trained == tested else "group" if own == group else "across"
        gain = {"base": 0.0, "itself": 0.2, "group": 0.1, "across": -0.05}[relation]
        about = {"trained_on": trained, "tested_on": tested, "trained_group": own, "tested_group": group}
        about |= {"relation": relation, "accuracy": 0.6 + gain, "low": 0.55, "high": 0.85}
        about |= around("gain", gain, 0.03) | around("transfer", gain / 0.2)
        rows.append(about | {"spectral_distance": np.nan, "same_band": np.nan})
    return pd.DataFrame(rows)


def latents(rng: Generator, model: str):
    """Six latents, of which two change in the base and three in the tuned model, which has no match for the last."""
    planted = {"base": (0.2, 0.0, 0.0, 0.0, 0.4, 0.0), "tuned": (0.2, 0.0, 0.1, 0.0, -0.2, np.nan)}
    for name, values in planted.items():
        for feature, value in enumerate(values):
            apart = value - planted["base"][feature] if feature == 4 else 0.0 * value
            about = {"model": name, "feature": feature, "clean": 0.5, "corrupted": 0.5 + value}
            ends = {"difference": value, "low": value - 0.05, "high": value + 0.05}
            ends |= {"q": 0.01 if value else 1.0, "beyond_q": 0.01 if apart else 1.0, "clean_rate": 0.1}
            yield about | ends | {"corrupted_rate": 0.1} | around("beyond", apart)


def neuron_agreement(rng: Generator, model: str):
    for chosen, quantity in product(("all", "top", "random"), ("pearson", "spearman", "relative_error")):
        yield {"chosen": chosen, "neurons": 16, "quantity": quantity} | around("value", 0.9)


MAKERS = {
    "gain_patching": patching,
    "gain_swaps": swaps,
    "gain_smallest_set": smallest_set,
    "gain_interpolation": interpolation,
    "gain_attribution_components": components,
    "gain_attribution": attribution,
    "gain_heads": heads,
    "gain_head_correlations": head_correlations,
    "gain_steering_chosen": steering,
    "gain_cka": cka,
    "gain_depth": depth,
    "gain_latents": latents,
    "gain_latents_shared": latents,
    "gain_neuron_agreement": neuron_agreement,
    "gain_ablation": ablation,
}
