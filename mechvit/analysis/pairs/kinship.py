"""Kinship: whether one of two models was trained from the other, so that their weights share a basis."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mechvit.analysis.statistics.results import Result
from mechvit.arguments import checked
from mechvit.models.grafting import encoder_source

from .matching import MatchedMatrix, block_units, matched_cosines
from .unrelated import kin_bound, unrelated_cosine

if TYPE_CHECKING:
    import pandas as pd

    from mechvit.models import HookedViT

SHAPE = ("n_layers", "n_heads", "d_model", "d_head", "d_mlp", "gated_mlp")
"""Fields of the config that kin have in common."""


@dataclass(frozen=True, repr=False)
class Kinship(Result):
    """Median cosine of two models' weight matrices after matching, beside that of unrelated models."""

    value: float
    """Median cosine over the blocks' matrices, heads and neurons matched; NaN for models of different shapes."""
    bound: float
    """Median above which the models are kin; NaN for models of different shapes."""
    unrelated: float
    """Median cosine of two random models of this shape after matching; NaN for models of different shapes."""
    matrices: tuple[MatchedMatrix, ...]
    """Every matrix of every block, in the order of a forward pass; empty for models of different shapes."""
    shapes: tuple[tuple[str, int, int], ...] = ()
    """Fields of the shape in which the models differ, with both values."""

    @property
    def is_kin(self) -> bool:
        """Whether the models are kin."""
        return self.value > self.bound

    @property
    def reason(self) -> str:
        """The judgement and its grounds, as a sentence without its full stop."""
        if self.shapes:
            differ = ", ".join(f"{name} {own} and {other}" for name, own, other in self.shapes)
            return f"the models differ in shape ({differ}), so that neither was trained from the other"
        said = f"the median cosine of their weight matrices is {self.value:.2f} with heads and neurons matched"
        return (
            f"{said}, {'above' if self.is_kin else 'not above'} the bound of {self.bound:.2f} (unrelated models of "
            f"this shape reach {self.unrelated:.2f})"
        )

    def __repr__(self) -> str:
        return f"Kinship({'kin' if self.is_kin else 'no kin'}: {self.reason})"

    def to_frame(self) -> pd.DataFrame:
        """Return one row per matrix: matrix, plain, matched (cosines), moved, units (see `MatchedMatrix`)."""
        import pandas as pd

        return pd.DataFrame(self.matrices, columns=list(MatchedMatrix._fields))

    def summary(self) -> pd.DataFrame:
        """Return one row: is_kin, value, bound, unrelated."""
        import pandas as pd

        return pd.DataFrame([{"is_kin": self.is_kin} | {n: getattr(self, n) for n in ("value", "bound", "unrelated")}])


@checked
@torch.inference_mode()
def kinship(base: HookedViT, tuned: HookedViT) -> Kinship:
    """Judge whether one of two models was trained from the other, by the weight matrices of their blocks.

    Two models trained apart have no basis in common, however alike their shapes and functions: the cosine of their
    matrices is about 0, and cosines, differences, swaps and mixtures of their weights or activations mean nothing.
    LayerNorm gains, biases and fixed positions agree between any two models and are no evidence. Heads and neurons may
    have been permuted: where the cosines of a branch's matrices do not exceed the bound as they stand, each is matched
    with the one that resembles it most (512 of the neurons, evenly spaced).

    Args:
        base, tuned: any two HookedViTs; heads, classes, input sizes and patches may differ.

    Returns:
        the median over all matrices of all blocks, and the bound: the median of random models of this shape, which
        matching raises above 0, and `KIN_MARGIN` of the way from there to 1.
    """
    differing = [(name, getattr(base.cfg, name), getattr(tuned.cfg, name)) for name in SHAPE]
    if differing := [(name, own, other) for name, own, other in differing if own != other]:
        return Kinship(math.nan, math.nan, math.nan, (), tuple(differing))
    bound, found = kin_bound(base.cfg), []
    for layer, (own, other) in enumerate(zip(base.blocks, tuned.blocks, strict=True)):
        branches, theirs = block_units(own), block_units(other)
        for branch, units in branches.items():
            given = {name: matrix.to(units[name].device) for name, matrix in theirs[branch].items()}
            found += matched_cosines(f"blocks.{layer}.{branch}", units, given, bound)
    cosines = [matrix.matched for matrix in found if not math.isnan(matrix.matched)]
    value = statistics.median(cosines) if cosines else math.nan
    return Kinship(value, bound, unrelated_cosine(base.cfg), tuple(found))


@checked
def require_kin(base: HookedViT, tuned: HookedViT, what: str) -> Kinship:
    """Refuse two models that are not kin, for a quantity that needs it.

    Args:
        what: the quantity, as the subject of the error's sentence: "swapping weights".

    Raises:
        ValueError: the models are not kin; gives the reason.
    """
    found = _KNOWN.get().get(_encoders(base, tuned)) or kinship(base, tuned)
    if not found.is_kin:
        raise ValueError(
            f"{what} needs models of which one was trained from the other, so that their weights share a basis; "
            f"{found.reason}: give a model and one fine-tuned from it, or compare what needs no common basis "
            "(behaviour, CKA, lenses, attention)"
        )
    return found


_KNOWN: ContextVar[dict[frozenset[int], Kinship]] = ContextVar("known kinships", default={})  # noqa: B039 never changed
"""Encoders of two models -> what was found of them."""


@contextmanager
def known_kinship(base: HookedViT, tuned: HookedViT, found: Kinship) -> Iterator[None]:
    """Keep what `kinship` found of two models for `require_kin`, in the context, where their weights must not change.

    It counts for the two in either order, and for models that share their encoders (`mechvit.models.graft_head`).

    Args:
        base, tuned: the models.
        found: the result of `kinship(base, tuned)`.
    """
    token = _KNOWN.set({**_KNOWN.get(), _encoders(base, tuned): found})
    try:
        yield
    finally:
        _KNOWN.reset(token)


def _encoders(base: HookedViT, tuned: HookedViT) -> frozenset[int]:
    return frozenset(id(encoder_source(model) or model) for model in (base, tuned))
