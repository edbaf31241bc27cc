"""Simulated data with known effects, and how often intervals of `mechvit.analysis.statistics` hold these."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

ALLOWED = (0.93, 0.97)
"""Coverage that a 95% interval of Gaussian data may have."""
LEAST = (0.92, 1.0)
"""Coverage that it may have elsewhere."""
BESIDE = None
"""Limits of what is shown for comparison."""
EFFECT = 0.3
COLUMNS = 400
"""Draws that are worked out side by side."""
CLUSTER_SD, IMAGE_SD = 0.5, 1.0
SKEWS: dict[str, tuple[bool, bool]] = {
    "Gaussian": (False, False),
    "skewed images": (False, True),
    "skewed clusters": (True, False),
}
"""Whether the noise of clusters, and that of images, is exponential."""
SEED_MIXES: dict[str, tuple[float, float, float]] = {
    "seeds as uncertain as clusters": (1.0, 1.0, 0.5),
    "mostly seeds": (2.5, 1.0, 0.5),
    "mostly clusters": (0.3, 1.0, 0.5),
    "pure interaction": (0.0, 0.0, 1.0),
}
"""Deviations between seeds, between clusters and of their interaction, in that of the mean of the clusters."""
NULL_ROWS, NULLS = (12, 72), (2, 3, 5)
Limits = tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Coverage of one kind of interval in one kind of data."""

    part: str
    case: str
    method: str
    coverage: float
    error: float
    """Standard error of the coverage, by the number of draws."""
    half_width: float
    """Mean half-width over the deviation of the estimate; of null limits, over that of one null."""
    draws: int
    limits: Limits
    """Least and most coverage allowed; None where it is shown for comparison."""

    @property
    def verdict(self) -> str:
        """`met` or `missed`, and whether a limit lies within two standard errors."""
        if self.limits is None:
            return ""
        judged = "met" if self.limits[0] <= self.coverage <= self.limits[1] else "missed"
        near = any(abs(self.coverage - end) < 2 * self.error for end in self.limits if end < 1)
        return f"{judged} (unsure)" if near else judged


def every_case(draws: int, seed: int) -> Iterator[Coverage]:
    """Simulate all cases in turn."""
    yield from cover_clusters(draws, seed)
    yield from cover_seeds(draws, seed)
    yield from cover_other_statistics(max(draws // 8, 25), seed)
    yield from cover_nulls(draws, seed)


def designs() -> dict[str, Any]:
    """Return the designs by name: 19 clusters, and 113 in 19 strata, as many as the photographs have."""
    from mechvit.analysis.statistics import Design

    cell = np.repeat(np.arange(113), np.arange(113) % 3 + 6)
    return {
        "19 clusters of 40 images": Design(np.repeat(np.arange(19), 40)),
        "113 clusters of 6 to 8 images in 19 strata": Design(cell, cell % 19),
    }


def cover_clusters(draws: int, seed: int) -> Iterator[Coverage]:
    """Cover the mean of clustered images, and beside it take images for units."""
    from mechvit.analysis.statistics import Design, cluster_t

    for layout, design in designs().items():
        cluster = np.asarray(design.cluster)
        level = np.zeros((len(cluster), 1)) if design.stratum is None else np.asarray(design.stratum)[:, None] / 4
        for skew, (of_cluster, of_image) in SKEWS.items():
            rng = np.random.default_rng([seed, len(skew), len(layout)])
            found: dict[str, list[np.ndarray]] = {"cluster t": [], "t over images": []}
            for columns in chunks(draws):
                between = CLUSTER_SD * noise(rng, (cluster.max() + 1, columns), of_cluster)
                values = EFFECT + level + between[cluster] + IMAGE_SD * noise(rng, (len(cluster), columns), of_image)
                for method, units in (("cluster t", design), ("t over images", Design(stratum=design.stratum))):
                    found[method].append(held(cluster_t(values, units), EFFECT + level.mean()))
            own = ALLOWED if skew == "Gaussian" else LEAST
            for method, limits in (("cluster t", own), ("t over images", BESIDE)):
                yield covered("clusters", f"{layout}, {skew}", method, found[method], limits)


def cover_seeds(draws: int, seed: int) -> Iterator[Coverage]:
    """Cover a mean over images and training seeds, and beside it read one training alone."""
    from mechvit.analysis.statistics import cluster_t, seed_and_cluster_interval

    for layout, design in designs().items():
        cluster = np.asarray(design.cluster)
        sizes = np.bincount(cluster)
        scale = np.sqrt((sizes**2).sum()) / len(cluster)  # the deviation of the mean of clusters of deviation 1
        for seeds in (2, 3, 5):
            for mix, (between, within, both) in SEED_MIXES.items():
                rng = np.random.default_rng([seed, seeds, len(mix), len(layout)])
                all_seeds, one = [], []
                for columns in chunks(draws):
                    values = EFFECT + scale * between * noise(rng, (seeds, 1, columns))
                    values = values + within * noise(rng, (len(sizes), columns))[cluster]
                    values = values + both * noise(rng, (seeds, len(sizes), columns))[:, cluster]
                    all_seeds.append(held(seed_and_cluster_interval(values, design), EFFECT))
                    one.append(held(cluster_t(values[0], design), EFFECT))
                own = BESIDE if seeds == 2 else LEAST if mix == "pure interaction" else ALLOWED
                case = f"{layout}, {seeds} seeds, {mix}"
                yield covered("seeds", case, "seeds and clusters", all_seeds, own)
                yield covered("seeds", case, "cluster t of one seed", one, BESIDE)


def cover_other_statistics(draws: int, seed: int) -> Iterator[Coverage]:
    """Cover ratios of means, and statistics by the delete-a-cluster jackknife.

    The truths: a correlation of .3 / sqrt(.09 + .25); a Wasserstein distance of two normal distributions that lie 1
    apart and hardly differ in width; a calibration error of answers that are right .1 less often than believed.
    """
    from mechvit.analysis.statistics import cluster_jackknife, cluster_ratio, fieller

    for layout, design in designs().items():
        cluster = np.asarray(design.cluster)
        rng = np.random.default_rng([seed, len(layout)])
        found: dict[tuple[str, str], list[np.ndarray]] = {}
        for _ in range(draws):
            x, other = (noise(rng, (cluster.max() + 1, 1))[cluster] / 2 + noise(rng, (len(cluster), 1)) for _ in "xy")
            y = EFFECT * x + other / 2
            confidence = rng.uniform(0.5, 1, size=(len(cluster), 1))
            less = 0.1 + 0.1 * rng.uniform(-1, 1, size=(cluster.max() + 1, 1))[cluster]
            right = rng.uniform(size=(len(cluster), 1)) < confidence - less
            now = {
                ("ratio of means", "linearised"): held(cluster_ratio(y + EFFECT, x + 1, design), EFFECT),
                ("ratio of means", "Fieller"): held_by_fieller(fieller(y + EFFECT, x + 1, design), EFFECT),
                ("correlation", "jackknife"): held(
                    cluster_jackknife(correlation, np.hstack([x, y]), design), EFFECT / np.sqrt(EFFECT**2 + 0.25)
                ),
                ("Wasserstein distance", "jackknife"): held(
                    cluster_jackknife(distance, np.hstack([x, 1 + x + other / 4]), design), 1.0
                ),
                ("calibration error", "jackknife"): held(
                    cluster_jackknife(calibration, np.hstack([confidence, right]), design), 0.1
                ),
            }
            for key, one in now.items():
                found.setdefault(key, []).append(one)
        for (what, method), parts in found.items():
            yield covered("other statistics", f"{layout}, {what}", method, parts, LEAST)


def cover_nulls(draws: int, seed: int) -> Iterator[Coverage]:
    """Cover one more null model by limits from n of them, whose deviations vary between rows by a factor of e^.5."""
    from mechvit.analysis.statistics import prediction_limits

    for rows in NULL_ROWS:
        for n in NULLS:
            rng = np.random.default_rng([seed, rows, n])
            found: dict[str, list[np.ndarray]] = {"moderated": [], "plain t": [], "range of the nulls": []}
            for _ in range(max(draws // 2, 25)):
                deviation = np.exp(0.5 * noise(rng, (rows,)))
                nulls, more = noise(rng, (n, rows)) * deviation, noise(rng, (rows,)) * deviation
                for method, moderate in (("moderated", True), ("plain t", False)):
                    limits = prediction_limits(nulls, more, moderate=moderate)
                    inside = (limits.low <= more) & (more <= limits.high)
                    found[method].append(np.stack([inside, (limits.high - limits.low) / 2 / deviation, more]))
                inside = (nulls.min(0) <= more) & (more <= nulls.max(0))
                found["range of the nulls"].append(np.stack([inside, np.ptp(nulls, axis=0) / 2 / deviation, more]))
            for method, parts in found.items():
                case, limits_of = f"{n} nulls, {rows} rows", LEAST if method != "range of the nulls" else BESIDE
                yield covered("null limits", case, method, parts, limits_of, by_row=True)


def noise(rng: np.random.Generator, shape: tuple[int, ...], skewed: bool = False) -> np.ndarray:
    """Draw deviates of mean 0 and variance 1, normal or exponential."""
    return rng.exponential(size=shape) - 1 if skewed else rng.normal(size=shape)


def chunks(draws: int) -> list[int]:
    """Divide draws into numbers that are worked out side by side."""
    return [min(COLUMNS, draws - start) for start in range(0, draws, COLUMNS)]


def correlation(rows: np.ndarray) -> float:
    """Return the correlation of two columns."""
    return float(np.corrcoef(rows.T)[0, 1])


def distance(rows: np.ndarray) -> float:
    """Return the Wasserstein distance of two columns of as many values."""
    return float(np.abs(np.sort(rows[:, 0]) - np.sort(rows[:, 1])).mean())


def calibration(rows: np.ndarray) -> float:
    """Return the calibration error of confidences and right answers, in 15 bins."""
    gaps = np.bincount((rows[:, 0] * 15).astype(int).clip(0, 14), rows[:, 0] - rows[:, 1], minlength=15)
    return float(np.abs(gaps).sum() / len(rows))


def held(estimates: Any, truth: float) -> np.ndarray:
    """Return whether each interval holds the truth, its half-width, and the estimate."""
    inside = (estimates.low <= truth) & (truth <= estimates.high)
    return np.stack([inside, (estimates.high - estimates.low) / 2, estimates.value])


def held_by_fieller(intervals: Any, truth: float) -> np.ndarray:
    """Return the same of Fieller's intervals, which may have a gap."""
    inside = (intervals.low <= truth) & (truth <= intervals.high)
    inside &= ~((intervals.gap_low < truth) & (truth < intervals.gap_high))
    return np.stack([inside, (intervals.high - intervals.low) / 2, intervals.value])


def covered(
    part: str, case: str, method: str, parts: Sequence[np.ndarray], limits: Limits, *, by_row: bool = False
) -> Coverage:
    """Return the coverage of draws; with `by_row` each part is a draw of several rows with widths in deviations."""
    inside, half, value = np.concatenate(parts, axis=1)
    draws = [one[0].mean() for one in parts] if by_row else inside
    width = half.mean() / (1.0 if by_row else value.std())
    return Coverage(
        part=part,
        case=case,
        method=method,
        coverage=float(inside.mean()),
        error=float(np.std(draws, ddof=1) / len(draws) ** 0.5),
        half_width=float(width),
        draws=len(draws),
        limits=limits,
    )
