"""What the evaluation of SAEs gives: quality and cosines, and their tidy tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvit.analysis.frames import tidy

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class SAEQuality:
    """One SAE under one condition, over all the tokens that it reads. Without a head the last four are None."""

    explained_variance: float
    """1 - sum |x - x_hat|^2 / sum |x - mean of each dimension|^2, as in sae-lens; 1 is perfect."""
    normalised_mse: float
    """Mean over tokens of |x - x_hat|^2 / |x|^2."""
    l0: float
    """Active latents a token."""
    dead_fraction: float
    """Share of latents that never fire on these images under this condition."""
    accuracy: float | None = None
    """Of the model with the reconstruction in place of the residual, 0 to 1."""
    cross_entropy: float | None = None
    """Of the same, nats."""
    accuracy_recovered: float | None = None
    """0 is zero ablation of the tokens that the SAE reads, 1 the untouched model; NaN where these two are equal."""
    cross_entropy_recovered: float | None = None
    """The same of the cross-entropy."""

    def to_frame(self, **labels: str) -> pd.DataFrame:
        """One row a metric; `labels` are constant columns put first."""
        import pandas as pd

        rows = [(*labels.values(), metric, value) for metric, value in asdict(self).items() if value is not None]
        return pd.DataFrame(rows, columns=[*labels, "metric", "value"])


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
class SAEEvaluation:
    """A model's SAEs under several conditions, by (architecture, corruption key)."""

    quality: Mapping[tuple[str, str], SAEQuality]
    cosine: Mapping[tuple[str, str], SAECosine]

    def quality_frame(self, **labels: str) -> pd.DataFrame:
        """The labels, then architecture, corruption, metric, value."""
        return self._frame(self.quality, labels, ["metric", "value"])

    def cosine_frame(self, **labels: str) -> pd.DataFrame:
        """The labels, then architecture, corruption, image_id, token, cosine (float32)."""
        return self._frame(self.cosine, labels, ["image_id", "token", "cosine"])

    @staticmethod
    def _frame(parts: Mapping[tuple[str, str], Any], labels: Mapping[str, str], columns: list[str]) -> pd.DataFrame:
        import pandas as pd

        frames = [part.to_frame(**labels, architecture=a, corruption=c) for (a, c), part in parts.items()]
        empty = pd.DataFrame(columns=[*labels, "architecture", "corruption", *columns])
        return pd.concat(frames, ignore_index=True) if frames else empty
