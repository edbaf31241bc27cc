"""Description of each latent of an SAE: statistics, images, labels, effect on the logits, and tables of these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from mechvit.analysis.statistics.results import OneLine, Result
from mechvit.analysis.statistics.tidy_tables import labelled

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True, repr=False)
class LogitEffects(OneLine):
    """The classes whose logits a latent raises and lowers most through the head alone.

    The effect is that of one unit of activation along the latent's direction (`latent_directions`) in every token that
    the head reads, minus its mean over classes, before the division by the final LayerNorm's scale (and a zero-shot
    head's norm), which are held fixed. Effects through later blocks, and through the MLP of an attention pooler, are
    left out.
    """

    raised: Int[Tensor, "d_sae top"]
    """Class indices, strongest first."""
    raised_by: Float[Tensor, "d_sae top"]
    lowered: Int[Tensor, "d_sae top"]
    """Class indices, strongest first."""
    lowered_by: Float[Tensor, "d_sae top"]


@dataclass(frozen=True, kw_only=True, repr=False)
class Sensitivity(OneLine):
    """Effect of a corruption on each latent at the same tokens: patches, or CLS for an SAE of CLS alone."""

    clean_mean: Float[Tensor, " d_sae"]
    """Mean activation over all tokens of the clean images."""
    mean_difference: Float[Tensor, " d_sae"]
    """Mean over tokens of corrupted minus clean activation of the same token."""
    mean_absolute_difference: Float[Tensor, " d_sae"]
    """Mean of the difference's absolute value: above |mean_difference| if the latent moves between tokens."""
    ratio: Float[Tensor, " d_sae"]
    """Mean corrupted over mean clean activation; NaN where the latent never fires on clean tokens."""
    kept: Float[Tensor, " d_sae"]
    """Share of the clean tokens where the latent fires on which it also fires when corrupted; NaN if there is none."""


@dataclass(frozen=True, kw_only=True, repr=False)
class SAEFeatures(Result):
    """Every latent of one SAE on clean images, and the effect of corruptions on it; all on the CPU."""

    firing_rate: Float[Tensor, " d_sae"]
    """Share of tokens on which the latent fires."""
    mean_activation: Float[Tensor, " d_sae"]
    """Mean over the tokens on which it fires; NaN if there is none."""
    max_activation: Float[Tensor, " d_sae"]
    top_score: Float[Tensor, "d_sae top"]
    """Maximum activation in each of the images where it is highest; NaN if it fires in fewer images."""
    top_image: Int[Tensor, "d_sae top"]
    """Ids of these images; -1 where there is none."""
    top_patch: Int[Tensor, "d_sae top"]
    """Index in the image of the strongest patch, in reading order; CLS and other special tokens have indices below 0
    (the last of them -1)."""
    top_label: Int[Tensor, " d_sae"]
    """Most frequent label of the top images; -1 for a dead latent, and without labels."""
    top_label_purity: Float[Tensor, " d_sae"]
    """Share of the labelled top images with that label; NaN for a dead latent, and without labels."""
    mass_label: Int[Tensor, " d_sae"]
    """Label whose images hold the largest part of the latent's activation on labelled images; -1 for a dead latent, and
    without labels."""
    mass_label_purity: Float[Tensor, " d_sae"]
    """That part as a share: purity over all labelled images, weighted by activation; NaN without labels."""
    selective_label: Int[Tensor, " d_sae"]
    """Label whose images have the highest mean activation; -1 for a dead latent, and without labels."""
    selectivity: Float[Tensor, " d_sae"]
    """(a - b) / (a + b), with a that mean and b the mean of the other labels' means: 0 (none) to 1 (this class only).

    Source: the class selectivity index of arXiv:1803.06959, with activations averaged over an image's tokens.
    """
    logits: LogitEffects | None
    """None if the SAE does not read the residual stream or scales its output per token, or the model has no head."""
    sensitivity: Mapping[str, Sensitivity]
    """Effects of the corruptions, by corruption key."""

    def to_frame(self, **labels: str) -> pd.DataFrame:
        """Return one row per latent, `labels` and `feature` first; top images and classes are lists, strongest first.

        A dead latent's labels are missing (`pandas.NA`), and without labels those of all.
        """
        import pandas as pd

        frame = pd.DataFrame({"feature": np.arange(len(self.firing_rate))})
        shown = [int(row) for row in (self.top_image >= 0).sum(1)]
        for name, values in vars(self).items():
            if isinstance(values, Tensor):
                rows = values.numpy(force=True)
                cut = name in ("top_score", "top_image", "top_patch")
                frame[name] = [row[:n] for row, n in zip(rows, shown, strict=True)] if cut else rows
                if name.endswith("_label"):
                    frame[name] = known_only(frame[name])
        for name, values in vars(self.logits).items() if self.logits else ():
            frame[f"logit_{name}"] = list(values.numpy(force=True))
        return labelled(frame, labels)

    def sensitivity_frame(self, **labels: str) -> pd.DataFrame:
        """Return one row per latent and corruption: `labels`, corruption, feature and the fields of `Sensitivity`."""
        import pandas as pd

        columns = [*labels, "corruption", "feature", *Sensitivity.__dataclass_fields__]
        parts = [
            labelled(
                pd.DataFrame(
                    {"feature": np.arange(len(self.firing_rate))}
                    | {name: values.numpy(force=True) for name, values in vars(found).items()}
                ),
                {**labels, "corruption": key},
            )
            for key, found in self.sensitivity.items()
        ]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def known_only(index: pd.Series) -> pd.Series:
    """Convert indices below 0, which stand for none, to missing values."""
    return index.astype("Int64").mask(index < 0)
