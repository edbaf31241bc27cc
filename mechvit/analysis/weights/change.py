"""Change of each weight by fine-tuning: its size, direction and spectrum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from mechvit.analysis.interventions.model_pair import LeftOut, comparable_weights
from mechvit.analysis.statistics.results import OneLine, Result
from mechvit.analysis.statistics.tidy_tables import labelled
from mechvit.arguments import checked

from .model_parts import model_parts
from .spectra import singular_decomposition, singular_values

if TYPE_CHECKING:
    import pandas as pd

    from mechvit.models import HookedViT

RANKS = (1, 4, 16)
"""Numbers k of top directions for which share and overlap are reported."""


@dataclass(frozen=True, repr=False)
class WeightChange(OneLine):
    """Change D = T - B of one weight tensor from base B to tuned T, in float64."""

    part: str
    """Part of the model, as in `model_parts`."""
    weight: str
    """Name of the tensor in the state dict."""
    base_norm: float
    """Frobenius norm of B."""
    tuned_norm: float
    """Frobenius norm of T."""
    change_norm: float
    """Frobenius norm of D."""
    product: float
    """Inner product of B and T."""
    shape: tuple[int, ...]
    """Shape of the tensor in the state dict."""
    singular_values: Float[Tensor, " rank"]
    """Singular values of D as a matrix [out, in], descending; empty if the tensor is not a matrix."""
    base_singular_values: Float[Tensor, " rank"]
    """Singular values of B, likewise; NaN where directions were not asked for, and so are the overlaps."""
    left_overlap: Float[Tensor, " rank"]
    """Entry k - 1: share of D's top k left singular directions in the span of B's, |U_B' U_D|² / k; NaN for D = 0."""
    right_overlap: Float[Tensor, " rank"]
    """The same for the right singular directions."""

    @property
    def relative(self) -> float:
        """Relative size |D| / |B|; infinite where B is zero and D is not."""
        return _ratio(self.change_norm, self.base_norm)

    @property
    def cosine(self) -> float:
        """Cosine of the angle between B and T; NaN where either is zero."""
        norms = self.base_norm * self.tuned_norm
        return self.product / norms if norms else float("nan")

    @property
    def stable_rank(self) -> float:
        """Stable rank |D|² / σ1²: number of equally large directions with the same energy; NaN without a change."""
        s = self.singular_values
        return float(s.square().sum() / s[0].square()) if len(s) else float("nan")

    @property
    def effective_rank(self) -> float:
        """Effective rank, exp of the entropy of σ / Σσ (Roy and Vetterli, EUSIPCO 2007); NaN without a change."""
        p = self.singular_values / self.singular_values.sum()
        return float(torch.special.entr(p).sum().exp()) if len(p) else float("nan")

    def share(self, k: int) -> float:
        """Return the share of |D|² in its top k directions."""
        energy = self.singular_values.square()
        return float(energy[:k].sum() / energy.sum()) if len(energy) else float("nan")

    def overlap(self, k: int) -> tuple[float, float]:
        """Return the left and the right overlap of the top k directions (of all, if there are fewer)."""
        if not len(self.left_overlap):
            return float("nan"), float("nan")
        place = min(k, len(self.left_overlap)) - 1
        return float(self.left_overlap[place]), float(self.right_overlap[place])


@dataclass(frozen=True, repr=False)
class WeightChanges(Result):
    """Changes of all weight tensors, in the order of a forward pass."""

    weights: tuple[WeightChange, ...]
    left_out: tuple[LeftOut, ...] = ()
    """Weights that only one model has, or that differ in shape (another head, another input size)."""

    def left_out_frame(self, **labels: str) -> pd.DataFrame:
        """Return one row per weight that is left out: the labels, weight, base_shape, tuned_shape (as in 32x64)."""
        import pandas as pd

        rows = [(w, *("" if s is None else "x".join(map(str, s)) for s in shapes)) for w, *shapes in self.left_out]
        return labelled(pd.DataFrame(rows, columns=list(LeftOut._fields)), labels)

    def to_frame(self, *, top: Sequence[int] = RANKS, **labels: str) -> pd.DataFrame:
        """Return one row per tensor.

        Columns: the labels, part, weight, shape (as in 32x64), parameters, base_norm, change_norm, relative, cosine,
        stable_rank, effective_rank, and for each k of `top` share_k, left_overlap_k, right_overlap_k. Those that need a
        matrix are NaN for other tensors. Two random k-dimensional subspaces of d dimensions overlap by k / d on
        average.
        """
        import pandas as pd

        rows = []
        for w in self.weights:
            row: dict[str, object] = {
                **labels,
                "part": w.part,
                "weight": w.weight,
                "shape": "x".join(map(str, w.shape)),
            }
            row["parameters"] = torch.Size(w.shape).numel()
            names = ("base_norm", "change_norm", "relative", "cosine", "stable_rank", "effective_rank")
            row |= {name: getattr(w, name) for name in names}
            for k in top:
                row[f"share_{k}"] = w.share(k)
                row[f"left_overlap_{k}"], row[f"right_overlap_{k}"] = w.overlap(k)
            rows.append(row)
        return pd.DataFrame(rows)

    def part_frame(self, **labels: str) -> pd.DataFrame:
        """Return one row per part, with all its tensors taken as one vector.

        Columns: the labels, part, parameters, base_norm, change_norm, relative, cosine, and energy: the part's share of
        the model's squared change.
        """
        import numpy as np
        import pandas as pd

        table = pd.DataFrame(
            [
                (w.part, torch.Size(w.shape).numel(), w.base_norm**2, w.tuned_norm**2, w.change_norm**2, w.product)
                for w in self.weights
            ],
            columns=["part", "parameters", "base", "tuned", "change", "product"],
        )
        sums = table.groupby("part", sort=False, as_index=False).sum()
        found = sums[["part", "parameters"]].assign(
            base_norm=np.sqrt(sums["base"]), change_norm=np.sqrt(sums["change"])
        )
        found["relative"] = [_ratio(a, b) for a, b in zip(found["change_norm"], found["base_norm"], strict=True)]
        norms = np.sqrt(sums["base"] * sums["tuned"])
        found["cosine"] = sums["product"] / norms.where(norms > 0)
        found["energy"] = sums["change"] / sums["change"].sum() if sums["change"].sum() else np.nan
        return labelled(found, labels)

    def summary(self) -> pd.DataFrame:
        """Return `part_frame()`."""
        return self.part_frame()

    def spectrum_frame(self, **labels: str) -> pd.DataFrame:
        """Return one row per changed matrix and direction.

        Columns: the labels, part, weight, k (from 1), singular_value, cumulative (share of the squared change in the
        top k), base_singular_value, left_overlap, right_overlap (see `WeightChange`).
        """
        import pandas as pd

        frames = []
        for w in self.weights:
            energy = w.singular_values.square().cumsum(0)
            frames.append(
                pd.DataFrame(
                    {
                        **labels,
                        "part": w.part,
                        "weight": w.weight,
                        "k": range(1, len(energy) + 1),
                        "singular_value": w.singular_values.numpy(),
                        "cumulative": (energy / energy[-1:]).numpy(),
                        "base_singular_value": w.base_singular_values.numpy(),
                        "left_overlap": w.left_overlap.numpy(),
                        "right_overlap": w.right_overlap.numpy(),
                    }
                )
            )
        return pd.concat(frames, ignore_index=True)


@checked
@torch.inference_mode()
def weight_change(base: HookedViT, tuned: HookedViT, *, directions: bool = True) -> WeightChanges:
    """Measure the change of every weight: its size, direction, spectrum, and overlap with the base's directions.

    Matrices are taken as stored, [out, in], the patch embedding as [d_model, channel * row * column] and positions as
    [position, d_model]; vectors have only size and direction. Everything is computed in float64, one tensor after the
    other, with two spectra per changed matrix (`mechvit.analysis.weights.spectra`).

    Args:
        base, tuned: two models of which one was trained from the other; no head is needed. Weights that only one has,
            or that differ in shape, are listed (`left_out`).
        directions: compare the directions of the change with those of the base, which takes a second spectrum of every
            changed matrix and most of the time.

    Raises:
        ValueError: the models are not kin, or on two devices.

    Source: subspace overlap as in LoRA, arXiv:2106.09685, section 7.2, eq. 4 (there between two changes).
    """
    common, left_out = comparable_weights(base, tuned)
    own, other, both = base.own_state_dict(), tuned.own_state_dict(), set(common)
    named = [(part, name) for part, names in model_parts(base).items() for name in names if name in both]
    found = [_compare(part, name, own[name], other[name], directions) for part, name in named]
    return WeightChanges(tuple(found), left_out)


def _compare(part: str, weight: str, base: Tensor, tuned: Tensor, directions: bool) -> WeightChange:
    B, T = base.double(), tuned.double()
    D = T - B
    numbers = (float(B.norm()), float(T.norm()), float(D.norm()), float((B * T).sum()))
    matrix, nothing = _as_matrix(D), torch.zeros(0, dtype=torch.float64)
    if matrix is None or numbers[2] == 0:
        return WeightChange(part, weight, *numbers, tuple(base.shape), nothing, nothing, nothing, nothing)
    if not directions:
        values = singular_values(matrix).cpu()
        unknown = torch.full_like(values, torch.nan)
        return WeightChange(part, weight, *numbers, tuple(base.shape), values, unknown, unknown, unknown)
    whole = _as_matrix(B)
    assert whole is not None
    own, other = singular_decomposition(matrix), singular_decomposition(whole)
    overlaps = (_overlap(other.left.T @ own.left).cpu(), _overlap(other.right.T @ own.right).cpu())
    return WeightChange(part, weight, *numbers, tuple(base.shape), own.values.cpu(), other.values.cpu(), *overlaps)


def _overlap(cosines: Float[Tensor, "base own"]) -> Float[Tensor, " rank"]:
    """Compute |the top k by k corner|² / k for every k."""
    corners = cosines.square().cumsum(0).cumsum(1).diagonal()
    return corners / torch.arange(1, len(corners) + 1, device=corners.device)


def _as_matrix(weight: Tensor) -> Tensor | None:
    """Return a tensor as a matrix; None if it is a vector or a number."""
    flat = weight.flatten(1) if weight.dim() == 4 else weight.squeeze()
    return flat if flat.dim() == 2 and min(flat.shape) > 1 else None


def _ratio(above: float, below: float) -> float:
    if below:
        return above / below
    return float("inf") if above else float("nan")
