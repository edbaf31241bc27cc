"""Results of SAE evaluation: quality, ablation baselines, firing rates and cosines, and their tidy tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvit.analysis.statistics.results import AveragedResult, Columns, Result
from mechvit.analysis.statistics.tidy_tables import tidy
from mechvit.saes.latents.results import SAEFeatures

if TYPE_CHECKING:
    import pandas as pd

DENSITY_EDGES = np.linspace(-6, 0, 25)
"""Edges of the bins of log10(firing rate): four per decade."""


class _Metrics(Result):
    """A dataclass of numbers that can be written as a table."""

    def to_frame(self, **labels: str) -> pd.DataFrame:
        """Return one row per metric that is not None; `labels` are constant columns put first."""
        import pandas as pd

        metrics: dict[str, float | None] = asdict(self)  # type: ignore[call-overload]
        rows = [(*labels.values(), metric, value) for metric, value in metrics.items() if value is not None]
        return pd.DataFrame(rows, columns=[*labels, "metric", "value"])


@dataclass(frozen=True, kw_only=True)
class Classification(_Metrics):
    """Classification performance of a model over all images."""

    accuracy: float
    """Top-1 accuracy, 0 to 1."""
    top5: float | None
    """Share of images whose label is among the five highest-scoring classes; None if there are no more than five."""
    ece: float
    """Expected calibration error: 15 equal-width bins of confidence, L1, as in `Performance.ece`."""
    cross_entropy: float
    """Mean cross-entropy in nats."""


@dataclass(frozen=True, kw_only=True)
class SAEQuality(_Metrics):
    """Quality of one SAE under one condition, over all tokens that it reads. What needs a head is None without one.

    A fraction recovered is (floor - reconstructed) / (floor - untouched): 0 is as bad as ablating the tokens that the
    SAE reads, 1 as good as the untouched model, NaN if these two are equal. The floor is zero ablation, or mean
    ablation with the mean clean activation of the same position (see `evaluate_saes`).
    """

    explained_variance: float
    """1 - sum |x - x_hat|^2 / sum |x - mean of each dimension|^2, as in sae-lens; 1 is perfect."""
    normalised_mse: float
    """Mean over tokens of |x - x_hat|^2 / |x|^2."""
    cosine: float
    """Mean over tokens of the cosine between x and x_hat."""
    l0: float
    """Mean number of active latents per token."""
    l0_cls: float | None
    """L0 of the class token alone; None if the SAE does not read it."""
    l0_patches: float | None
    """L0 of the patches alone; None if the SAE does not read them."""
    l1: float
    """Mean sum of activations per token, as in sae-lens's evaluation (decoder norms are not included)."""
    dead_fraction: float
    """Share of latents that never fire on these images under this condition."""
    dense_fraction: float
    """Share of latents that fire on more than `dense_above` of the tokens (10% by default)."""
    accuracy: float | None = None
    """Accuracy of the model with the reconstruction in place of the activation, 0 to 1."""
    top5: float | None = None
    """Share of images whose label is among the same model's five highest scores; None with five classes or fewer."""
    ece: float | None = None
    """Expected calibration error of the same model: 15 bins, L1."""
    cross_entropy: float | None = None
    """Mean cross-entropy of the same model, in nats."""
    accuracy_recovered: float | None = None
    """Fraction recovered relative to zero ablation."""
    cross_entropy_recovered: float | None = None
    """Fraction recovered relative to zero ablation."""
    accuracy_recovered_from_mean: float | None = None
    """Fraction recovered relative to mean ablation."""
    cross_entropy_recovered_from_mean: float | None = None
    """Fraction recovered relative to mean ablation."""


@dataclass(frozen=True, repr=False)
class SAECosine(AveragedResult):
    """Cosine, over latents, between the clean and the corrupted code of the same patch; on the CPU.

    The cosine of two empty codes is 1; that of an empty code with a non-empty one is 0.
    """

    SUMMARISED: ClassVar[Columns] = (("token",), ("cosine",))

    image_id: Int[Tensor, " images"]
    cosine: Float[Tensor, "images tokens"]
    """0 to 1 where no latent is negative. Tokens are the patches in reading order, or CLS alone for an SAE of CLS."""

    @property
    def token(self) -> Int[Tensor, " tokens"]:
        """Index of each patch; 0 for CLS alone."""
        return torch.arange(self.cosine.shape[1])

    def to_frame(self, **labels: str) -> pd.DataFrame:
        """Return one row per image and token; `labels` are constant columns put first."""
        return tidy(self.image_id, {"cosine": self.cosine}, labels).rename(columns={"layer": "token"})


@dataclass(frozen=True, repr=False)
class FiringRates(Result):
    """Share of tokens on which each latent fires."""

    rate: Float[Tensor, " d_sae"]

    def to_frame(self, **labels: str) -> pd.DataFrame:
        """Return the feature density histogram: one row (low, high, number of latents) per bin of log10(rate).

        The first row holds the dead latents (low and high are -inf); the first bin includes rates below 1e-6, the last
        bin latents that always fire.
        """
        import pandas as pd

        rate = self.rate.numpy(force=True)
        alive = np.log10(rate[rate > 0]).clip(DENSITY_EDGES[0], DENSITY_EDGES[-1])
        counts, _ = np.histogram(alive, DENSITY_EDGES)
        low, high = np.r_[-np.inf, DENSITY_EDGES[:-1]], np.r_[-np.inf, DENSITY_EDGES[1:]]
        return pd.DataFrame(labels | {"low": low, "high": high, "latents": np.r_[(rate == 0).sum(), counts]})


@dataclass(frozen=True, repr=False)
class SAEEvaluation(Result):
    """Evaluation of a model's SAEs under several conditions, by (name of the SAE, corruption key).

    In the tables the name is the column `architecture`, which it is for SAEs that `train_saes` published.
    """

    quality: Mapping[tuple[str, str], SAEQuality]
    cosine: Mapping[tuple[str, str], SAECosine]
    baselines: Mapping[tuple[str, str], Classification] = field(default_factory=dict)
    """Performance of the model itself, by (baseline, corruption key): `untouched`, or with the tokens that the SAEs
    read ablated to `zero` or their `mean`."""
    firing: Mapping[tuple[str, str], FiringRates] = field(default_factory=dict)
    features: Mapping[str, SAEFeatures] = field(default_factory=dict)
    """Descriptions of latents by the SAE's name; empty unless requested."""

    def to_frame(self, **labels: str) -> pd.DataFrame:
        """Return `quality_frame`."""
        return self.quality_frame(**labels)

    def quality_frame(self, **labels: str) -> pd.DataFrame:
        """Return the columns of `labels`, then architecture, corruption, metric, value."""
        return _frame(self.quality, labels, "architecture", ["metric", "value"])

    def cosine_frame(self, **labels: str) -> pd.DataFrame:
        """Return the columns of `labels`, then architecture, corruption, image_id, token, cosine (float32)."""
        return _frame(self.cosine, labels, "architecture", ["image_id", "token", "cosine"])

    def baseline_frame(self, **labels: str) -> pd.DataFrame:
        """Return the columns of `labels`, then baseline, corruption, metric, value."""
        return _frame(self.baselines, labels, "baseline", ["metric", "value"])

    def density_frame(self, **labels: str) -> pd.DataFrame:
        """Return a histogram of log10(firing rate): `labels`, architecture, corruption, low, high, latents."""
        return _frame(self.firing, labels, "architecture", ["low", "high", "latents"])


def _frame(
    parts: Mapping[tuple[str, str], Any], labels: Mapping[str, str], key: str, columns: list[str]
) -> pd.DataFrame:
    import pandas as pd

    frames = [part.to_frame(**{**labels, key: name, "corruption": c}) for (name, c), part in parts.items()]
    empty = pd.DataFrame(columns=[*labels, key, "corruption", *columns])
    return pd.concat(frames, ignore_index=True) if frames else empty
