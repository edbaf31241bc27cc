"""Pairs of a training corruption and a tested one, and the relation between the two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from mechvit.data.corruption_spec import GROUPS, Condition, listed_order
from mechvit.data.mixture_spec import Mixture

RELATIONS: dict[str, str] = {
    "itself": "the corruption that the model was trained on",
    "family": "another level of it",
    "group": "another family of its group (noise, blur, weather, digital)",
    "across": "a corruption of another group",
    "member": "one of the mixture that the model was trained on",
    "outside": "none of the mixture that the model was trained on",
    "clean": "clean images",
    "control": "any corruption, by a model that was trained further on clean images",
}
"""Relations of a tested corruption to the one trained on, with their descriptions."""
Distances = dict[tuple[Condition, Condition], float]


@dataclass(frozen=True)
class TransferCase:
    """One model under one corruption."""

    model: str
    tested_on: str
    trained: Condition | Mixture | None
    """Training corruption or mixture; None for the base."""
    tested: Condition
    gain: Float[np.ndarray, " draws"]
    own: Float[np.ndarray, " draws"] | None
    """Gain of the model that was trained on the tested corruption; None without one."""
    distances: Distances
    bands: dict[Condition, str]

    @property
    def relation(self) -> str:
        """Relation of the tested corruption to the training: a key of `RELATIONS`, or `base`."""
        if self.trained is None:
            return "base"
        return relation(self.trained, self.tested)

    @property
    def transfer(self) -> Float[np.ndarray, " draws"]:
        """Gain over the own gain; NaN without an own gain."""
        return np.full_like(self.gain, np.nan) if self.own is None else ratio(self.gain, self.own)

    @property
    def distance(self) -> float | None:
        """Spectral distance between two different corruptions; None if unknown."""
        if isinstance(self.trained, Condition) and self.trained != self.tested:
            return self.distances.get((self.trained, self.tested))
        return None

    @property
    def same_band(self) -> bool | None:
        """Whether two different corruptions lie in one band of frequencies; None if their distance is unknown."""
        if self.distance is None or not isinstance(self.trained, Condition):
            return None
        return self.bands[self.trained] == self.bands[self.tested]


def group_of(what: Condition | Mixture | None) -> str:
    """Return one of `GROUPS`, `clean`, `mixture`, or `base` for no training."""
    if what is None:
        return "base"
    return "mixture" if isinstance(what, Mixture) else what.group


def relation(trained: Condition | Mixture, tested: Condition) -> str:
    """Return the relation of the tested corruption to the training: a key of `RELATIONS`."""
    if isinstance(trained, Mixture):
        return "member" if tested in trained.members else "clean" if tested.family == "clean" else "outside"
    if tested.family == "clean":
        return "clean"
    if trained.family == "clean":
        return "control"
    if trained == tested:
        return "itself"
    if trained.family == tested.family:
        return "family"
    return "group" if trained.group == tested.group else "across"


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Return draws of a ratio, NaN (and so left out of its interval) where the denominator is not positive."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below > 0, above / below, np.nan)


def place(what: Condition | Mixture) -> tuple[int, tuple[Any, ...]]:
    """Return a sort key: clean, group by group in the order of `CORRUPTION_FAMILIES`, other conditions, mixtures."""
    if isinstance(what, Mixture):
        return len(GROUPS) + 2, ()
    groups = ("clean", *GROUPS)
    return groups.index(what.group) if what.group in groups else len(groups), listed_order(what)
