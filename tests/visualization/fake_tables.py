"""Tables as an experiment leaves them, with plausible random numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.random import Generator

FAMILIES = ("gaussian_blur", "gaussian_noise")
LEVELS = (1, 2, 4)
TUNED = [f"{family}_{level}" for family in FAMILIES for level in LEVELS]
MODELS = ["base", *TUNED]
CORRUPTIONS = ["clean", *TUNED]
CLASSES, LAYERS, PATCHES = 3, 6, 36


def skill(model: str, corruption: str) -> float:
    """A made-up accuracy: corruption hurts, tuning on the same family helps, more so at higher levels."""
    family, _, level = corruption.rpartition("_")
    hurt = 0.0 if corruption == "clean" else {1: 0.06, 2: 0.13, 4: 0.27}[int(level)]
    same = corruption != "clean" and model.startswith(family)
    return 0.82 - hurt + (hurt * {"1": 0.3, "2": 0.45, "4": 0.55}[model[-1]] if same else 0.0)


def performance(rng: Generator, images: int) -> pd.DataFrame:
    rows = []
    for model in MODELS:
        for corruption in CORRUPTIONS:
            rank = rng.geometric(skill(model, corruption) * 0.98, images) - 1
            probability = np.clip(np.where(rank == 0, 0.75, 0.12) + rng.normal(0, 0.1, images), 0.001, 0.999)
            rows.append(
                pd.DataFrame(
                    {
                        "model": model,
                        "corruption": corruption,
                        "image_id": np.arange(images),
                        "label": np.arange(images) % CLASSES,
                        "prediction": (np.arange(images) + rank) % CLASSES,
                        "rank": rank,
                        "confidence": np.maximum(probability, rng.uniform(0.3, 0.9, images)),
                        "probability": probability,
                        "loss": -np.log(probability),
                    }
                )
            )
    return pd.concat(rows, ignore_index=True)


def performance_summary(rng: Generator) -> pd.DataFrame:
    rows = []
    for model in MODELS:
        for corruption in CORRUPTIONS:
            accuracy = skill(model, corruption) + rng.normal(0, 0.004)
            gain = accuracy - skill("base", corruption) if model != "base" else 0.0
            for metric, scale in (("accuracy", 1.0), ("top5", 0.45), ("top10", 0.2), ("ece", -0.1)):
                value = 0.06 - 0.1 * gain if metric == "ece" else 1 - (1 - accuracy) * scale
                half = 0.021 * abs(scale)
                known = np.nan if model == "base" else 1.0
                rows.append(
                    [model, corruption, metric, value, value - half, value + half, gain * scale * known]
                    + [(gain * scale + side * half * 0.7) * known for side in (-1, 1)]
                )
    columns = ["model", "corruption", "metric", "value", "low", "high", "gain", "gain_low", "gain_high"]
    return pd.DataFrame(rows, columns=columns)


def lens_summary(rng: Generator) -> pd.DataFrame:
    rows = []
    for model in MODELS:
        for corruption in CORRUPTIONS:
            for layer in range(LAYERS + 1):
                ceiling = skill(model, corruption)
                value = 0.05 + (ceiling - 0.08) / (1 + np.exp(-(layer - 3.9 + 1.5 * (ceiling - 0.6)) * 1.6))
                value += rng.normal(0, 0.004)
                rows.append([model, corruption, layer, value, value - 0.016, value + 0.016])
    return pd.DataFrame(rows, columns=["model", "corruption", "layer", "probability", "low", "high"])


def first_correct(rng: Generator, images: int) -> pd.DataFrame:
    rows = []
    for model in MODELS:
        for corruption in CORRUPTIONS:
            centre = 4.9 - 2.2 * (skill(model, corruption) - 0.5)
            layer = np.clip(np.rint(rng.normal(centre, 1.3, images)), 0, LAYERS).astype(int)
            kept = rng.uniform(size=images) < 0.9
            rows.append(
                pd.DataFrame(
                    {
                        "model": model,
                        "corruption": corruption,
                        "image_id": np.arange(images)[kept],
                        "layer": layer[kept],
                    }
                )
            )
    return pd.concat(rows, ignore_index=True)


def first_correct_summary(first: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for (model, corruption), group in first.groupby(["model", "corruption"], sort=False):
        base = first[(first.model == "base") & (first.corruption == corruption)]
        pair = group.merge(base, on="image_id")
        step = (pair.layer_x - pair.layer_y).to_numpy(float)
        half = 1.96 * step.std() / np.sqrt(len(step)) + 1e-6
        known = np.nan if model == "base" else 1.0
        mean, error = group.layer.mean(), 1.96 * group.layer.std() / np.sqrt(len(group))
        rows.append(
            [model, corruption, len(group), mean, mean - error, mean + error]
            + [(step.mean() + side * half) * known for side in (0, -1, 1)]
            + [len(pair)]
        )
    return pd.DataFrame(
        rows,
        columns=[
            "model",
            "corruption",
            "n",
            "mean",
            "low",
            "high",
            "difference",
            "difference_low",
            "difference_high",
            "n_paired",
        ],
    )


def attention_summary(rng: Generator) -> pd.DataFrame:
    rows = []
    for model in MODELS:
        for corruption in TUNED:
            strength = {"1": 0.3, "2": 0.6, "4": 1.0}[corruption[-1]]
            calm = 0.5 if model.startswith(corruption.rpartition("_")[0]) else 1.0
            for layer in range(LAYERS):
                values = {
                    "entropy_difference": strength * calm * (-0.08 + 0.05 * layer) + rng.normal(0, 0.004),
                    "cosine": 1 - strength * calm * 0.05 * (layer + 1) / LAYERS * rng.uniform(0.9, 1.1),
                    "squared_difference": strength * calm * 0.004 * (layer + 1) * rng.uniform(0.9, 1.1),
                }
                half = {"entropy_difference": 0.01, "cosine": 0.003, "squared_difference": 0.0008}
                rows += [
                    [model, corruption, layer, quantity, value, value - half[quantity], value + half[quantity]]
                    for quantity, value in values.items()
                ]
    return pd.DataFrame(rows, columns=["model", "corruption", "layer", "quantity", "value", "low", "high"])


def sae_tables(rng: Generator, images: int) -> dict[str, pd.DataFrame]:
    models, cosine, quality, history, distance = ["base", "gaussian_blur_4", "gaussian_noise_4"], [], [], [], []
    tokens = PATCHES
    for architecture in ("standard", "batchtopk"):
        for model in models:
            for corruption in ("clean", "gaussian_blur_4", "gaussian_noise_4"):
                damage = 0.0 if corruption == "clean" else 0.06
                for metric, value in {
                    "explained_variance": 0.88 - damage,
                    "normalised_mse": 0.12 + damage,
                    "l0": 32.0 if architecture == "batchtopk" else 35.5,
                    "dead_fraction": 0.07,
                    "accuracy_recovered": 0.97 - damage,
                    "cross_entropy_recovered": 0.95 - damage,
                    "accuracy": 0.8,
                    "cross_entropy": 0.71,
                }.items():
                    jitter = 1 + rng.normal(0, 0.01)
                    quality.append([model, architecture, corruption, metric, value * jitter])
                if corruption == "clean" or model not in ("base", corruption):
                    continue
                values = 1 - rng.beta(2, 5 if model == "base" else 5.2, (images, tokens))
                cosine.append(
                    pd.DataFrame(
                        {
                            "model": model,
                            "architecture": architecture,
                            "corruption": corruption,
                            "image_id": np.repeat(np.arange(images), tokens),
                            "token": np.tile(np.arange(tokens), images),
                            "cosine": values.ravel().astype(np.float32),
                        }
                    )
                )
                if model != "base":
                    for statistic, value in (
                        ("wasserstein", 0.012),
                        ("kolmogorov_smirnov", 0.024),
                        ("mean_difference", 0.007),
                    ):
                        distance.append([model, architecture, corruption, statistic, value, value * 0.7, value * 1.4])
            for step in range(0, 1000, 50):
                for metric, value in {
                    "explained_variance": 0.88 - 0.7 * np.exp(-step / 150),
                    "l0": 32 + 120 * np.exp(-step / 100),
                    "dead_fraction": 0.07 * (1 - np.exp(-step / 400)),
                    "loss": 0.2 + np.exp(-step / 120),
                }.items():
                    row = [model, architecture, step, step * 1024, step // 200, metric]
                    history.append([*row, value * (1 + rng.normal(0, 0.01))])
    keys = ["model", "architecture"]
    return {
        "sae_cosine": pd.concat(cosine, ignore_index=True),
        "sae_quality": pd.DataFrame(quality, columns=[*keys, "corruption", "metric", "value"]),
        "sae_history": pd.DataFrame(history, columns=[*keys, "step", "tokens", "epoch", "metric", "value"]),
        "sae_distance": pd.DataFrame(distance, columns=[*keys, "corruption", "statistic", "value", "low", "high"]),
    }
