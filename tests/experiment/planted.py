"""Per-image tables with planted effects, and the effects read back from them by plain means and explicit resampling."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise

import numpy as np
import pandas as pd

LAYERS = 6
IMAGES = 300
LEVELS = {"gaussian_blur": (1, 2, 4), "gaussian_noise": (1, 2, 4)}
METRICS = {"accuracy": 1, "top5": 5, "top10": 10}
BASE = (0.30, 0.50, 0.60)
"""The base model's top-1, top-5 and top-10 accuracy under every condition."""
FALL, RISE = -0.1, 0.2
Gains = tuple[float, float, float]


@dataclass(frozen=True)
class Plant:
    """The truth about one family's tuned models; the defaults make every claim of the paper true."""

    gains: tuple[Gains, ...] = ((0.12, 0.06, 0.02), (0.24, 0.13, 0.05), (0.36, 0.20, 0.08))
    """Gain in top-1, top-5 and top-10 on the family's strongest level, by level tuned on."""
    elsewhere: Gains = (0, 0, 0)
    """Gain on the other family's strongest level."""
    clean: Gains = (0, 0, 0)
    certainty: float = 0.1
    """Gain in the right class's probability."""
    lead: tuple[float, ...] = (-0.05, -0.05, -0.05, -0.05, 0.1, 0.2, 0.3)
    """By how much the model tuned on the strongest level leads in the right class's probability, by layer."""
    earlier: float = 0.4
    """Share of images that the tuned models get right one layer earlier."""
    sign: tuple[float, ...] = (FALL, FALL, 0.0, RISE, RISE, RISE)
    """Entropy difference averaged over the base and the tuned models, by layer."""
    gap: tuple[float, ...] = (0.0, 0.0, 0.1, 0.1, 0.0, 0.0)
    """Base less tuned entropy difference, by layer."""
    distance: tuple[float, float, float] = (0.02, 0.01, 0.03)
    """Kolmogorov-Smirnov distance between the SAEs' cosines, and its interval."""
    loose: frozenset[str] = field(default_factory=frozenset)
    """The fields whose values scatter so much from image to image that they decide nothing."""


BLUR = Plant(earlier=0.8)
NOISE = Plant()


def plant_tables(
    blur: Plant = BLUR, noise: Plant = NOISE, *, levels: dict[str, tuple[int, ...]] = LEVELS, seed: int = 0
) -> dict[str, pd.DataFrame]:
    """The tables that claims are judged on: `IMAGES` images with ids that start at 1000, in shuffled order."""
    plants = {"gaussian_blur": blur, "gaussian_noise": noise}
    world = _World({family: plants[family] for family in levels}, levels, np.random.default_rng(seed))
    return {
        name: getattr(world, name)() for name in ("performance", "lens", "first_correct", "attention", "sae_distance")
    }


class _World:
    def __init__(self, plants: dict[str, Plant], levels: dict[str, tuple[int, ...]], rng: np.random.Generator) -> None:
        self.plants, self.levels, self.rng = plants, levels, rng
        self.models = ["base", *(f"{family}_{level}" for family in levels for level in levels[family])]
        self.conditions = ["clean", *self.models[1:]]
        self.ids = 1000 + rng.permutation(IMAGES)
        self.difficulty = (rng.permutation(IMAGES) + 0.5) / IMAGES
        self.shared = self.scatter(0.05)
        self.right_at = rng.integers(3, 6, IMAGES)

    def scatter(self, deviation: float) -> np.ndarray:
        """Noise over images whose mean is 0."""
        noise = self.rng.normal(0, 1, IMAGES)
        return deviation * (noise - noise.mean())

    def plant(self, model: str) -> tuple[str, Plant]:
        family = model.rpartition("_")[0]
        return family, self.plants[family]

    def frame(self, model: str, corruption: str, **columns: object) -> pd.DataFrame:
        return pd.DataFrame({"model": model, "corruption": corruption, "image_id": self.ids, **columns})

    def performance(self) -> pd.DataFrame:
        parts = []
        for model in self.models:
            for condition in self.conditions:
                gains, difficulty, certainty, deviation = (0, 0, 0), self.difficulty, 0.0, 0.01
                if model != "base":
                    family, plant = self.plant(model)
                    own = condition.startswith(family)
                    part = "clean" if condition == "clean" else "gains" if own else "elsewhere"
                    place = self.levels[family].index(int(model.rpartition("_")[2]))
                    gains = plant.gains[place] if part == "gains" else getattr(plant, part)
                    certainty = plant.certainty if own else 0.0
                    deviation = 0.5 if "certainty" in plant.loose else 0.01
                    if part in plant.loose:
                        difficulty = self.rng.permutation(self.difficulty)
                top = [base + gain for base, gain in zip(BASE, gains, strict=True)]
                rank = np.select([difficulty < share for share in top], [0, 3, 7], 12)
                probability = 0.4 + certainty + self.shared + self.scatter(deviation)
                confidence = np.clip(0.5 + self.shared, 0.01, 0.99)
                parts.append(self.frame(model, condition, rank=rank, confidence=confidence, probability=probability))
        return pd.concat(parts, ignore_index=True)

    def lens(self) -> pd.DataFrame:
        parts = []
        for model in self.models:
            for condition in self.conditions:
                for layer in range(LAYERS + 1):
                    mean, deviation = 0.3 + 0.05 * layer, 0.01
                    if model == condition and int(model.rpartition("_")[2]) == self.levels[self.plant(model)[0]][-1]:
                        plant = self.plant(model)[1]
                        mean += plant.lead[layer]
                        deviation = 0.3 if "lead" in plant.loose else 0.01
                    probability = mean + self.shared + self.scatter(deviation)
                    parts.append(self.frame(model, condition, layer=layer, probability=probability))
        return pd.concat(parts, ignore_index=True)

    def first_correct(self) -> pd.DataFrame:
        parts = []
        for model in self.models:
            for condition in self.conditions:
                layer = self.right_at
                if model != "base":
                    plant = self.plant(model)[1]
                    layer = layer - (self.difficulty < plant.earlier)
                    if "earlier" in plant.loose:
                        layer = self.right_at + self.rng.permutation(np.resize([-1, 1], IMAGES))
                kept = self.rng.uniform(size=IMAGES) < 0.9
                parts.append(self.frame(model, condition, layer=layer)[kept])
        return pd.concat(parts, ignore_index=True)

    def attention(self) -> pd.DataFrame:
        parts = []
        for model in self.models:
            for condition in self.conditions[1:]:
                family, plant = self.plant(condition)
                tuned = len(self.levels[family])
                for layer in range(LAYERS):
                    # the base and the tuned models of the family average to `sign`, and lie `gap` apart
                    above = plant.gap[layer] * (tuned if model == "base" else -1) / (tuned + 1)
                    noise = self.scatter(2.0 if "sign" in plant.loose else 0.02)
                    value = plant.sign[layer] + above + self.shared + noise
                    parts.append(self.frame(model, condition, layer=layer, entropy_difference=value))
        return pd.concat(parts, ignore_index=True)

    def sae_distance(self) -> pd.DataFrame:
        rows = []
        for family, plant in self.plants.items():
            key = f"{family}_{self.levels[family][-1]}"
            for architecture in ("standard", "batchtopk"):
                rows.append((key, architecture, key, "wasserstein", 0.012, 0.01, 0.015))
                rows.append((key, architecture, key, "kolmogorov_smirnov", *plant.distance))
        return pd.DataFrame(rows, columns=["model", "architecture", "corruption", "statistic", "value", "low", "high"])


def change(plant: Plant, *loose: str, **fields: object) -> Plant:
    return replace(plant, loose=frozenset(loose), **fields)


Part = list[tuple[float, np.ndarray]]
"""A weighted sum of means over images; NaN is an image that a mean leaves out."""


class Oracle:
    """Every part of every claim as columns over images, read from the tables one image at a time."""

    def __init__(self, tables: dict[str, pd.DataFrame], levels: dict[str, tuple[int, ...]] = LEVELS) -> None:
        self.tables, self.levels = tables, levels
        self.ids = sorted(tables["performance"]["image_id"].unique())

    @cache  # noqa: B019
    def column(self, table: str, value: str, model: str, corruption: str, layer: int | None = None) -> np.ndarray:
        frame = self.tables[table]
        chosen = frame[(frame["model"] == model) & (frame["corruption"] == corruption)]
        if layer is not None:
            chosen = chosen[chosen["layer"] == layer]
        return chosen.set_index("image_id")[value].reindex(self.ids).to_numpy(float)

    def top(self, model: str, test: str, metric: str) -> np.ndarray:
        return 100.0 * (self.column("performance", "rank", model, test) < METRICS[metric])

    def entropy(self, model: str, test: str) -> np.ndarray:
        """[images, layers]."""
        return np.stack(
            [self.column("attention", "entropy_difference", model, test, layer) for layer in range(LAYERS)], axis=1
        )

    def parts(self) -> dict[str, list[Part]]:
        """Claim id -> its parts."""
        strongest = {family: f"{family}_{levels[-1]}" for family, levels in self.levels.items()}
        found: dict[str, list[Part]] = {}
        shifts = {}
        for family, test in strongest.items():
            tuned = [f"{family}_{level}" for level in self.levels[family]]
            other = next(key for name, key in strongest.items() if name != family)

            def gain(model: str, metric: str, on: str = test) -> np.ndarray:
                return self.top(model, on, metric) - self.top("base", on, metric)

            found[f"better_{family}"] = [[(1, gain(m, "accuracy"))] for m in tuned]
            found[f"monotone_{family}"] = [
                [(1, self.top(high, test, "accuracy") - self.top(low, test, "accuracy"))]
                for low, high in pairwise(tuned)
            ]
            mean = {metric: sum(gain(m, metric) for m in tuned) / len(tuned) for metric in METRICS}
            found[f"ordering_{family}"] = [[(1, mean[a] - mean[b])] for a, b in pairwise(METRICS)]
            found[f"no_transfer_{family}"] = [[(1, gain(m, metric, other))] for m in tuned for metric in METRICS]
            found[f"clean_unchanged_{family}"] = [[(1, gain(m, metric, "clean"))] for m in tuned for metric in METRICS]
            probability = {m: 100 * self.column("performance", "probability", m, test) for m in ["base", *tuned]}
            found[f"certainty_{family}"] = [[(1, probability[m] - probability["base"])] for m in tuned]
            layer = {m: self.column("first_correct", "layer", m, test) for m in ["base", *tuned]}
            shifts[family] = [layer["base"] - layer[m] for m in tuned]
            found[f"earlier_{family}"] = [[(1, shift)] for shift in shifts[family]]
            entropy = {m: self.entropy(m, test) for m in ["base", *tuned]}
            average = sum(entropy.values()) / len(entropy)
            found[f"entropy_sign_{family}"] = [[(1, -average[:, 0])], [(1, average[:, 3:].mean(1))]]
            if family == "gaussian_blur":
                found["entropy_blur"] = [[(1, (entropy["base"] - entropy[m]).mean(1))] for m in tuned]
            else:
                gap = entropy["base"] - sum(entropy[m] for m in tuned) / len(tuned)
                middle, late = gap[:, 2:4].mean(1), gap[:, 4:].mean(1)
                found["entropy_noise"] = [[(1, middle)], [(1, middle - late)]]
        found["earlier_more_for_blur"] = [
            [(sign / len(shift), s) for sign, shift in zip((1, -1), shifts.values(), strict=True) for s in shift]
        ]
        return found

    def resamples(self, count: int = 2000, seed: int = 99) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return np.stack([rng.choice(len(self.ids), len(self.ids)) for _ in range(count)])

    def bootstrap(self, part: Part, chosen: np.ndarray) -> tuple[float, float, float]:
        """Value, low and high of a 95% interval."""
        value = sum(weight * np.nanmean(column) for weight, column in part)
        draws = sum(weight * np.nanmean(column[chosen], axis=1) for weight, column in part)
        low, high = np.quantile(draws, [0.025, 0.975])
        return float(value), float(low), float(high)

    def onset(self, family: str, chosen: np.ndarray | None = None, ahead: float = 0.01) -> float:
        """First layer from which the strongest model stays ahead, by a loop from the last layer down."""
        test = f"{family}_{self.levels[family][-1]}"
        models = ["base", *(f"{family}_{level}" for level in self.levels[family])]
        rows = np.arange(len(self.ids)) if chosen is None else chosen
        first = LAYERS + 1
        for layer in reversed(range(LAYERS + 1)):
            *others, strongest = (self.column("lens", "probability", m, test, layer)[rows].mean() for m in models)
            if strongest - max(others) <= ahead:
                break
            first = layer
        return float(first)
