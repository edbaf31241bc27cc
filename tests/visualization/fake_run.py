"""A whole synthetic run folder, as an experiment leaves it, with plausible random numbers: what the report reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.random import Generator
from random_maps import random_explorer, random_lens
from safetensors.numpy import save_file

FAMILIES = ("gaussian_blur", "gaussian_noise")
LEVELS = (1, 2, 4)
TUNED = [f"{family}_{level}" for family in FAMILIES for level in LEVELS]
MODELS = ["base", *TUNED]
CORRUPTIONS = ["clean", *TUNED]
LABELS = ["astronaut", "</script><script>alert(1)</script>", "coffee & <b>cream</b>"]
LAYERS, HEADS, GRID, PREFIX = 6, 3, (6, 6), 1


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
                        "label": np.arange(images) % len(LABELS),
                        "prediction": (np.arange(images) + rank) % len(LABELS),
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
    tokens = GRID[0] * GRID[1]
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


def claim(id: str, text: str, source: str, what: str, unit: str, parts: dict, decides: str, rule: str, verdict: str):
    """One row of claims.json in the words of an experiment: `parts` maps labels to (value, low, high)."""
    measured = "; ".join(f"{label} {v:.3g} [{low:.3g}, {high:.3g}]" for label, (v, low, high) in parts.items())
    value, low, high = parts[decides]
    return {
        "id": id,
        "claim": text,
        "source": source,
        "measured": f"{unit}: {measured}",
        "value": value,
        "low": low,
        "high": high,
        "unit": unit,
        "rule": f"{what}. Replicates when {rule}; otherwise inconclusive.",
        "verdict": verdict,
    }


def claims() -> list[dict]:
    """A claim of each kind, one of them not measured and one with hostile text."""
    points, above = "percentage points", "every 95% interval lies above 0; does not when one lies wholly below 1"
    within = "every 95% interval lies within ±3 percentage points; does not when one lies wholly outside"
    levels = {"tuned on 1": (6.9, 4.8, 9.1), "tuned on 2": (11.2, 8.9, 13.6), "tuned on 4": (14.9, 12.8, 17.1)}
    nine = {
        f"{metric} tuned on {level}": (-0.4 * level + place, -1.2 * level + place, 0.3 * level + place)
        for place, metric in enumerate(["accuracy", "top5", "top10"])
        for level in (1, 2, 4)
    }
    hostile = {"<img src=x onerror=alert(2)> first layer": (-0.021, -0.034, -0.008), "later half": (0.1, 0.08, 0.12)}
    distance = {"wasserstein": (0.012, 0.01, 0.015), "kolmogorov smirnov": (0.024, 0.019, 0.031)}
    better = "Fine-tuning on Gaussian blur makes models better on new images with Gaussian blur"
    earlier = "The right class comes earlier by more for Gaussian blur than for Gaussian noise"
    entropy = "Under Gaussian noise attention entropy starts out below the clean image's and ends above it"
    alike = "SAE codes of clean and corrupted patches are as alike in the model tuned on Gaussian blur 4 as in the base"
    stronger = "The stronger the Gaussian noise in training, the larger the gain"
    transfer = "What fine-tuning on Gaussian blur gains does not transfer to the other family, nor harm it"
    judged = [
        claim(
            "better_gaussian_blur",
            better,
            "section 4.1, Table 1, Figures 2 and 3",
            "Gain in accuracy over the base model on Gaussian blur 4, for each model tuned on Gaussian blur",
            points,
            levels,
            "tuned on 1",
            above,
            "replicates",
        ),
        claim(
            "no_transfer_gaussian_blur",
            transfer,
            "section 4.1",
            "Gain on Gaussian noise 4 in accuracy, top-5 and top-10",
            points,
            nine,
            "accuracy tuned on 4",
            within,
            "inconclusive",
        ),
        claim(
            "earlier_more_for_blur",
            earlier,
            "section 4.2, Figures 5 and 6",
            "Layers earlier, averaged over the models tuned on blur, less the same for noise",
            "layers",
            {"blur over noise": (0.21, 0.08, 0.34)},
            "blur over noise",
            above,
            "replicates",
        ),
        claim(
            "entropy_sign_gaussian_noise",
            entropy,
            "section 4.3, Figures 7 and 8",
            "H(corrupted) - H(clean) on Gaussian noise 4",
            "nats",
            hostile,
            "<img src=x onerror=alert(2)> first layer",
            above,
            "does not replicate",
        ),
        claim(
            "sae_cosine_batchtopk_gaussian_blur",
            alike,
            "section 4.4, Figures 9 and 10",
            "Kolmogorov-Smirnov distance between the two models' distributions of cosines",
            "distance, 0 to 1",
            distance,
            "kolmogorov smirnov",
            within,
            "replicates",
        ),
    ]
    unmeasured = {
        "id": "monotone_gaussian_noise",
        "claim": stronger,
        "source": "section 4.1, Table 1, Figures 2 and 3",
        "measured": "not measured: only one level of Gaussian noise was trained on",
        "value": None,
        "low": None,
        "high": None,
        "unit": points,
        "rule": "Accuracy on Gaussian noise 4: each training level's less the next lower level's",
        "verdict": "inconclusive",
    }
    return [*judged, unmeasured]


def picture(rng: Generator, corruption: str, size: int = 64) -> np.ndarray:
    """A coloured gradient with a disc, blurred or noised crudely: uint8 [3, size, size]."""
    y, x = np.mgrid[0:size, 0:size] / size
    channels = [x, y, ((x - 0.5) ** 2 + (y - 0.5) ** 2 < rng.uniform(0.05, 0.12)) * 0.8 + 0.1]
    image = np.stack(channels) + (0.2 * rng.normal(size=(3, size, size)) if "noise" in corruption else 0)
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


def pattern(rng: Generator) -> np.ndarray:
    """Attention that prefers near patches, its rows summing to one: float16 [layers, heads, tokens, tokens]."""
    place = np.stack(np.divmod(np.arange(GRID[0] * GRID[1]), GRID[1]), 1)
    near = np.zeros((PREFIX + len(place),) * 2)
    near[PREFIX:, PREFIX:] = -np.square(place[:, None] - place).sum(-1)
    width = rng.uniform(0.05, 0.6, (LAYERS, HEADS, 1, 1))
    scores = np.exp(width * near + 0.6 * rng.normal(size=(LAYERS, HEADS, *near.shape)))
    return (scores / scores.sum(-1, keepdims=True)).astype(np.float16)


def write_views(rng: Generator, run: Path) -> None:
    views = run / "views"
    views.mkdir()
    ids = [3, 11, 27]
    pictures = {f"{i}/{corruption}": picture(rng, corruption) for i in ids for corruption in CORRUPTIONS}
    save_file(pictures, views / "examples.safetensors")
    listed = [{"image_id": i, "label": LABELS[n]} for n, i in enumerate(ids)]
    (views / "examples.json").write_text(json.dumps(listed))
    models, corruptions = (
        ["base", "gaussian_blur_4", "gaussian_noise_4"],
        ["clean", "gaussian_blur_4", "gaussian_noise_4"],
    )
    save_file({f"{m}/{c}": pattern(rng) for m in models for c in corruptions}, views / "attention.safetensors")
    about = {"image_id": 11, "label": LABELS[1], "grid": GRID, "n_prefix_tokens": PREFIX}
    (views / "attention.json").write_text(json.dumps({**about, "models": models, "corruptions": corruptions}))
    shown = {"models": ["Base", "Blur 4 tuned", "Noise 4 tuned"], "titles": LABELS[:2]}
    shown["conditions"] = ["clean", "Gaussian blur 4", "Gaussian noise 4"]
    explorer, lens = random_explorer(**shown, layers=3, heads=2, side=6), random_lens(**shown, names=LABELS)
    (views / "explorer.json").write_text(json.dumps(explorer.spec()))
    (views / "lens.json").write_text(json.dumps({"spec": lens.spec(), "figures": lens.figures()}))


def write_fake_run(run: Path, *, saes: bool = True, images: int = 60, seed: int = 0) -> Path:
    """Write the run folder `run`; without `saes` it lacks every SAE table."""
    rng = np.random.default_rng(seed)
    tables = run / "tables"
    tables.mkdir(parents=True)
    first = first_correct(rng, images)
    frames = {
        "performance": performance(rng, images),
        "performance_summary": performance_summary(rng),
        "lens_summary": lens_summary(rng),
        "first_correct": first,
        "first_correct_summary": first_correct_summary(first),
        "attention_summary": attention_summary(rng),
        **(sae_tables(rng, images) if saes else {}),
    }
    for name, frame in frames.items():
        frame.to_parquet(tables / f"{name}.parquet")
    write_views(rng, run)
    (run / "claims.json").write_text(json.dumps(claims()))
    config = {
        "preset": "photos",
        "images": {"source": "photos", "size": 64, "seed": 0, "classes": LABELS},
        "finetuning": {"learning_rate": 5e-5, "epochs": 10, "batch_size": 64},
        "saes": {"expansion": 32, "k": 32, "learning_rate": 1e-3},
    }
    (run / "config.json").write_text(json.dumps(config))
    provenance = {
        "versions": {"torch": "2.13.0", "transformer-lens": "3.9.0", "plotly": "7.1.0"},
        "hardware": {"cpu": "2 cores", "memory_bytes": 8 * 2**30},
        "seeds": {"data": 0, "bootstrap": 1},
        "stages": [
            {"name": "base", "seconds": 92.41, "peak_memory_bytes": 1.9e9},
            {"name": "evaluate", "seconds": 41.02, "peak_memory_bytes": 1.2e9},
            {"name": "saes", "seconds": 133.9, "peak_memory_bytes": 2.4e9},
        ],
        "started": "2030-01-02T03:04:05+00:00",
        "finished": "2030-01-02T03:09:11+00:00",
    }
    (run / "provenance.json").write_text(json.dumps(provenance))
    return run
