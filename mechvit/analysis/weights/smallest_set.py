"""The smallest set of a tuned model's parts that gives the base model most of the gain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from torch import Tensor

from mechvit.analysis.held_out_split import split_images
from mechvit.analysis.inputs import Images
from mechvit.analysis.interventions.model_pair import check_weights_fit
from mechvit.analysis.interventions.recovery import GIVER, RECEIVER
from mechvit.analysis.interventions.runner import effects, outcome_frame, run_interventions
from mechvit.analysis.statistics.bootstrap import LEVEL, RESAMPLES
from mechvit.analysis.statistics.results import Result
from mechvit.arguments import checked
from mechvit.data.corruption_spec import Condition
from mechvit.settings_checks import SHARE_ABOVE_ZERO, check, check_choice

from .model_parts import Unit, model_parts, part_groups, shared_parts, weights_of, weights_replaced
from .swapping import mixed_logits

if TYPE_CHECKING:
    import pandas as pd

    from mechvit.models import HookedViT

Quantity = Literal["accuracy", "logit_difference", "divergence"]
Method = Literal["greedy", "exhaustive"]
Group = tuple[str, ...]
EXHAUSTIVE = 10
"""Most groups for which the exhaustive search runs (1,023 sets)."""


class NoGap(ValueError):
    """Error: the two models do not differ in the quantity, so that there is no gap to recover."""


@dataclass(frozen=True, kw_only=True)
class SmallestSetConfig:
    """Settings for the smallest set: the share to recover, the units, and the search."""

    share: float = 0.9
    """Share of the gap between the two models, above 0 and at most 1."""
    quantity: Quantity = "logit_difference"
    """Quantity in which the gap is measured; divergence, KL(giver | receiver), needs no labels."""
    unit: Unit = "branches"
    """Granularity of the parts, see `part_groups`."""
    method: Method = "greedy"
    """Search method; exhaustive for at most 10 groups."""
    selection_fraction: float = 0.5
    """Fraction of the images on which sets are chosen."""
    resamples: int = RESAMPLES
    """Resamples of the bootstrap over images."""
    level: float = LEVEL
    """Coverage of the intervals."""

    def __post_init__(self) -> None:
        check(self, SHARE_ABOVE_ZERO, "share")
        check_choice(self, quantity=get_args(Quantity), method=get_args(Method))


@dataclass(frozen=True, repr=False)
class SmallestSet(Result):
    """Sets from one group to the first that recovers the share, measured on both parts of the images."""

    quantity: Quantity
    share: float
    """Requested share of the gap between receiver and giver."""
    path: tuple[Group, ...]
    """Set of groups at each step; each has one group more than the one before, which greedy selection keeps."""
    selection: pd.DataFrame
    """Effects on the images that the sets were chosen on: step, quantity, and the columns of `effects`. Being chosen
    among many, they are too favourable here.
    """
    held_out: pd.DataFrame
    """Effects of the same sets on the other images."""

    @property
    def groups(self) -> Group:
        """The set that was found."""
        return self.path[-1]

    def to_frame(self) -> pd.DataFrame:
        """Return one row per step and image part.

        Columns: step, added (the groups that the previous set lacks), groups (joined by spaces), images (selection or
        held_out), value, low, high, change ..., recovered, recovered_low, recovered_high.
        """
        import pandas as pd

        frames = []
        for name, table in (("selection", self.selection), ("held_out", self.held_out)):
            table = table[table["quantity"] == self.quantity].reset_index(drop=True)
            table.insert(1, "added", [self._added(step) for step in table["step"]])
            table.insert(2, "groups", [" ".join(self.path[step - 1]) for step in table["step"]])
            table.insert(3, "images", name)
            frames.append(table)
        return pd.concat(frames, ignore_index=True)

    def summary(self) -> pd.DataFrame:
        """Return the rows of the set that was found, on both parts of the images."""
        table = self.to_frame()
        return table[table["step"] == len(self.path)].reset_index(drop=True)

    def _added(self, step: int) -> str:
        before = self.path[step - 2] if step > 1 else ()
        return " ".join(group for group in self.path[step - 1] if group not in before)


@checked
def smallest_set(
    receiver: HookedViT,
    giver: HookedViT,
    images: Images,
    corruption: Condition | str,
    *,
    config: SmallestSetConfig | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> SmallestSet:
    """Find few parts whose weights, taken from the giver, recover a share of its gain over the receiver.

    Greedy selection adds in each step the group that recovers most together with those chosen so far, until the share
    is reached; it may miss a smaller set of groups that work only together. The exhaustive search tries all sets of one
    group, of two, and so on, and returns the best of the smallest size that reaches the share. Either uses one part of
    the images; the path is then measured on the others.

    Args:
        receiver, giver: two models of the same config: the base and the tuned one.
        images: a `datasets.Dataset` (prepared or raw) or an `ImageBatch`; labels are the models' own class ids,
            negative for images without one.
        corruption: corruption under which the gain is measured.
        config: see `SmallestSetConfig`.
        batch_size: as in `evaluate`.
        seed: seed of the draw of images, the corruption and the bootstrap.
        progress: the label of a progress bar for each step; None shows none.

    Raises:
        NoGap: the interval of the gap between the models contains 0 on the images to choose on.
        ValueError: models of different configs, too many groups for an exhaustive search, and as `evaluate`.

    Source: grafting regions of a tuned model onto the base, arXiv:2302.06600 (there single weights, found by
    optimisation).
    """
    config = config or SmallestSetConfig()
    check_weights_fit(receiver, giver, "finding the smallest set of weights")
    shared, greedy = shared_parts(receiver, giver), config.method == "greedy"
    groups = {
        name: parts for name, parts in part_groups(receiver, config.unit).items() if not set(parts) <= set(shared)
    }
    if not greedy and len(groups) > EXHAUSTIVE:
        raise ValueError(
            f"an exhaustive search takes at most {EXHAUSTIVE} groups; this model has {len(groups)} {config.unit}: use "
            "method='greedy'" + ("" if config.unit == "blocks" else " or unit='blocks'")
        )
    chosen_on, held_out = split_images(images, config.selection_fraction, seed=seed)

    def measure(part: Images, sets: Sequence[Group], kept: Group = (), label: str | None = None) -> pd.DataFrame:
        """Compute the effects of several sets that all contain `kept`; `step` counts them from 1."""
        found = run_interventions(
            receiver,
            part,
            [corruption],
            lambda pixels: _logits(receiver, giver, pixels, groups, sets, kept),
            batch_size=batch_size,
            seed=seed,
            progress=label,
        )
        references = {key: outcomes for key, outcomes in found.items() if key[1] in (RECEIVER, GIVER)}
        others = {key: outcomes for key, outcomes in found.items() if key not in references}
        return effects(
            outcome_frame(others, lambda step: {"step": step}),
            outcome_frame(references, lambda name: {"condition": name}),
            by=["step"],
            resamples=config.resamples,
            level=config.level,
            seed=seed,
        )

    path: list[Group] = []
    reached = -np.inf
    while reached < config.share and len(path) < len(groups):
        size, kept = len(path) + 1, path[-1] if path and greedy else ()
        sets = list(combinations(groups, size))
        if greedy:
            sets = [(*kept, group) for group in groups if group not in kept]
        found = measure(chosen_on, sets, kept, progress and f"{progress}, sets of {size}")
        recovered = found[found["quantity"] == config.quantity].set_index("step")["recovered"]
        if recovered.empty:
            raise ValueError(
                f"a gap in {config.quantity} needs images with labels, and these have none: take quantity='divergence'"
            )
        if recovered.isna().any():
            raise NoGap(
                f"receiver and giver must differ in {config.quantity}; on the {len(chosen_on)} images for choosing, "
                "the interval of their difference includes 0: give more images or another corruption"
            )
        path.append(sets[int(recovered.to_numpy().argmax())])
        reached = recovered.max()
    on_both = [measure(part, path) for part in (chosen_on, held_out)]
    return SmallestSet(config.quantity, config.share, tuple(path), *on_both)


def _logits(
    receiver: HookedViT,
    giver: HookedViT,
    pixels: Tensor,
    groups: Mapping[str, tuple[str, ...]],
    sets: Sequence[Group],
    kept: Group,
) -> dict[int | str, Tensor]:
    """Compute the logits of both models and of every set.

    Groups that all sets contain are replaced throughout, so that the sets share the residual stream up to the first
    other group.
    """
    mixes: dict[int | str, frozenset[str]] = {GIVER: frozenset(model_parts(receiver))}
    for step, names in enumerate(sets, start=1):
        mixes[step] = frozenset(part for name in names if name not in kept for part in groups[name])
    own = receiver(pixels)
    with weights_replaced(receiver, weights_of(giver, [part for name in kept for part in groups[name]])):
        return {RECEIVER: own, **mixed_logits(receiver, giver, pixels, mixes)}
