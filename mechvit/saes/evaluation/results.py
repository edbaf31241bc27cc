"""What the evaluation of SAEs gives: quality, floors, firing rates and cosines, and their tidy tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvit.analysis.statistics.tidy_tables import tidy
from mechvit.saes.latents.results import SAEFeatures

if TYPE_CHECKING:
    import pandas as pd

DENSITY_EDGES = np.linspace(-6, 0, 25)
"""Edges of the bins of log10(firing rate): four a decade."""


class _Metrics:
    """A dataclass of numbers as a table."""

    def to_frame(self, **labels: str) -> pd.DataFrame:
        """One row a metric that is not None; `labels` are constant columns put first."""
        import pandas as pd

        metrics: dict[str, float | None] = asdict(self)  # type: ignore[call-overload]
        rows = [(*labels.values(), metric, value) for metric, value in metrics.items() if value is not None]
        return pd.DataFrame(rows, columns=[*labels, "metric", "value"])


@dataclass(frozen=True, kw_only=True)
class Classification(_Metrics):
    """How a model classifies, over all images."""

    accuracy: float
    """0 to 1."""
    top5: float | None
    """Share of images whose label is among the five classes that score highest; None where there are no more."""
    ece: float
    """Expected calibration error: 15 equal-width bins of confidence, L1, as in `Performance.ece`."""
    cross_entropy: float
    """Nats."""


@dataclass(frozen=True, kw_only=True)
class SAEQuality(_Metrics):
    """One SAE under one condition, over all the tokens that it reads. What needs a head is None without one.

    A fraction recovered is (floor - reconstructed) / (floor - untouched): 0 is as bad as ablating the tokens that the
    SAE reads, 1 as good as the untouched model, NaN where these two are equal. The floors ablate to zero, or to the
    mean clean activation of the same position (see `evaluate_saes`).
    """

    explained_variance: float
    """1 - sum |x - x_hat|^2 / sum |x - mean of each dimension|^2, as in sae-lens; 1 is perfect."""
    normalised_mse: float
    """Mean over tokens of |x - x_hat|^2 / |x|^2."""
    cosine: float
    """Mean over tokens of the cosine between x and x_hat."""
    l0: float
    """Active latents a token."""
    l0_cls: float | None
    """The same of the class token alone; None where the SAE does not read it."""
    l0_patches: float | None
    """The same of the patches alone; None where the SAE does not read them."""
    l1: float
    """Sum of all activations a token, as in sae-lens's evaluation (decoder norms do not enter it)."""
    dead_fraction: float
    """Share of latents that never fire on these images under this condition."""
    dense_fraction: float
    """Share of latents that fire on more than a given share of tokens (`dense_above`, 10% by default)."""
    accuracy: float | None = None
    """Of the model with the reconstruction in place of the activation, 0 to 1."""
    top5: float | None = None
    """Of the same: share of images whose label is among the five classes that score highest; None where no more are."""
    ece: float | None = None
    """Of the same: expected calibration error, 15 bins, L1."""
    cross_entropy: float | None = None
    """Of the same, nats."""
    accuracy_recovered: float | None = None
    """Above zero ablation."""
    cross_entropy_recovered: float | None = None
    """Above zero ablation."""
    accuracy_recovered_from_mean: float | None = None
    """Above mean ablation."""
    cross_entropy_recovered_from_mean: float | None = None
    """Above mean ablation."""


@dataclass(frozen=True)
class SAECosine:
    """Cosine, over latents, between the codes of the same patch clean and corrupted; on the CPU.

    Two empty codes are the same code: 1. One empty code shares nothing with one that is not: 0.
    """

    image_id: Int[Tensor, " images"]
    cosine: Float[Tensor, "images tokens"]
    """0 to 1, since no latent is negative. Tokens are the patches in reading order, or CLS alone for an SAE of CLS."""

    @property
    def token(self) -> Int[Tensor, " tokens"]:
        """The index of each patch; 0 for CLS alone."""
        return torch.arange(self.cosine.shape[1])

    def to_frame(self, **labels: str) -> pd.DataFrame:
        """One row an image and token; `labels` are constant columns put first."""
        return tidy(self.image_id, {"cosine": self.cosine}, labels).rename(columns={"layer": "token"})


@dataclass(frozen=True)
class FiringRates:
    """The share of tokens on which each latent fires."""

    rate: Float[Tensor, " d_sae"]

    def to_frame(self, **labels: str) -> pd.DataFrame:
        """The feature density histogram, one row a bin of log10(rate): low <= log10(rate) < high, and how many latents.

        The first row holds the dead latents (low and high are -inf); the first bin also holds what is rarer than 1e-6,
        the last one what always fires.
        """
        import pandas as pd

        rate = self.rate.numpy(force=True)
        alive = np.log10(rate[rate > 0]).clip(DENSITY_EDGES[0], DENSITY_EDGES[-1])
        counts, _ = np.histogram(alive, DENSITY_EDGES)
        low, high = np.r_[-np.inf, DENSITY_EDGES[:-1]], np.r_[-np.inf, DENSITY_EDGES[1:]]
        return pd.DataFrame(labels | {"low": low, "high": high, "latents": np.r_[(rate == 0).sum(), counts]})


@dataclass(frozen=True)
class SAEEvaluation:
    """A model's SAEs under several conditions, by (name of the SAE, corruption key).

    The tables call the name `architecture`, which it is for what `train_saes` publishes.
    """

    quality: Mapping[tuple[str, str], SAEQuality]
    cosine: Mapping[tuple[str, str], SAECosine]
    baselines: Mapping[tuple[str, str], Classification] = field(default_factory=dict)
    """The model itself, by (`untouched`, `zero` or `mean`: what stands where the SAEs read, corruption key)."""
    firing: Mapping[tuple[str, str], FiringRates] = field(default_factory=dict)
    features: Mapping[str, SAEFeatures] = field(default_factory=dict)
    """By the SAE's name; empty unless asked for."""

    def quality_frame(self, **labels: str) -> pd.DataFrame:
        """The labels, then architecture, corruption, metric, value."""
        return _frame(self.quality, labels, "architecture", ["metric", "value"])

    def cosine_frame(self, **labels: str) -> pd.DataFrame:
        """The labels, then architecture, corruption, image_id, token, cosine (float32)."""
        return _frame(self.cosine, labels, "architecture", ["image_id", "token", "cosine"])

    def baseline_frame(self, **labels: str) -> pd.DataFrame:
        """The labels, then baseline, corruption, metric, value."""
        return _frame(self.baselines, labels, "baseline", ["metric", "value"])

    def density_frame(self, **labels: str) -> pd.DataFrame:
        """The labels, then architecture, corruption, low, high (log10 of the firing rate) and latents: a histogram."""
        return _frame(self.firing, labels, "architecture", ["low", "high", "latents"])


def _frame(
    parts: Mapping[tuple[str, str], Any], labels: Mapping[str, str], key: str, columns: list[str]
) -> pd.DataFrame:
    import pandas as pd

    frames = [part.to_frame(**{**labels, key: name, "corruption": c}) for (name, c), part in parts.items()]
    empty = pd.DataFrame(columns=[*labels, key, "corruption", *columns])
    return pd.concat(frames, ignore_index=True) if frames else empty
