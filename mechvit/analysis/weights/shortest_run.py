"""The shortest run of blocks that holds the difference between two models, in both directions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from mechvit.analysis.held_out_split import split_images
from mechvit.analysis.inputs import Images
from mechvit.analysis.interventions.model_pair import check_weights_fit
from mechvit.analysis.interventions.recovery import DIVERGENCE, GIVER, NO_SHARE, RECEIVER
from mechvit.analysis.interventions.runner import effects, outcome_frame, run_interventions
from mechvit.analysis.statistics.bootstrap import LEVEL, RESAMPLES
from mechvit.analysis.statistics.results import Result
from mechvit.analysis.statistics.tidy_tables import labelled
from mechvit.arguments import checked
from mechvit.data.corruption_spec import CLEAN, Condition
from mechvit.settings_checks import COUNT, SHARE_ABOVE_ZERO, check_number

from .model_parts import model_parts, part_groups
from .swapping import mixed_logits

if TYPE_CHECKING:
    from mechvit.models import HookedViT

REASONS: tuple[str, ...] = (*NO_SHARE, "no_run", "not_confirmed")
"""Reasons why there is no place: none (there is one); those of `NO_SHARE`; no run recovers the share on the images to
choose on; or the chosen one does not on the others.
"""
ELSEWHERE = -1
"""Value of `first` and `last` of a part that is no block."""
Runs = Mapping[tuple[int, int, str], frozenset[str]]
"""(first block, last block, name) -> parts."""


@dataclass(frozen=True, repr=False)
class ShortestRun(Result):
    """The run of blocks that was chosen on one part of the images, measured on the other."""

    share: float
    """Share of KL(giver | receiver) to recover in each direction."""
    blocks: int
    """Number of blocks of the models."""
    chosen: tuple[int, int] | None
    """First and last block of the run chosen; None where no run recovers the share."""
    reason: str
    """One of `REASONS`."""
    table: pd.DataFrame
    """Rows by run and direction: images (selection or held_out), receiver ("base" or "tuned"), part, first, last, and
    the columns of `effects` from value on. The selection holds all runs that were tried, single blocks first, and the
    embedding, final norm and head (first and last are -1); held_out the chosen run alone.
    """
    passes: float
    """Forward passes per image of the selection."""

    @property
    def place(self) -> tuple[int, int] | None:
        """First and last block of the run, confirmed on held-out images; None: the difference is in no single place."""
        return None if self.reason else self.chosen

    def __repr__(self) -> str:
        where = "in no single place" if self.place is None else f"in blocks {self.place[0]} to {self.place[1]}"
        return f"ShortestRun({where} of {self.blocks}{f': {self.reason}' if self.reason else ''})"

    def to_frame(self, **labels: str) -> pd.DataFrame:
        """Return the table, with constant columns put first."""
        return labelled(self.table, labels)

    def summary(self) -> pd.DataFrame:
        """Return the chosen run's rows, on both parts of the images and in both directions."""
        own = (self.table["first"] == (self.chosen or ("",))[0]) & (self.table["last"] == (self.chosen or ("",))[-1])
        return self.table[own].reset_index(drop=True)


@checked
def shortest_run(
    base: HookedViT,
    tuned: HookedViT,
    images: Images,
    condition: Condition | str = CLEAN,
    *,
    share: float = 0.9,
    longest: int | None = None,
    selection_fraction: float = 0.5,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    batch_size: int | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> ShortestRun:
    """Find the shortest run of blocks whose weights, swapped, recover a share of the KL divergence in both directions.

    Of the runs of one length, from single blocks on, the one is chosen whose smaller share of the two directions (base
    with the tuned model's blocks, tuned with the base's) is largest; the search ends with the first length at which
    both shares suffice. The images that chose it do not judge it: it is confirmed where both shares suffice on the
    others, too. No labels are needed.

    Args:
        base, tuned: two models of the same config.
        images: a `datasets.Dataset` (prepared or raw) or an `ImageBatch`; labels are not needed.
        condition: what is done to the images before they are shown.
        share: share of KL(giver | receiver), above 0 and at most 1.
        longest: most blocks of a run; None allows all but the run of every block, which is no place. The passes of a
            search that ends there grow with the square of the number of blocks: 12 blocks take about 110.
        selection_fraction: fraction of the images on which the run is chosen.
        resamples, level: settings of the bootstrap over images.
        batch_size: images per forward pass; None takes 32 on a CPU, else 128.
        seed: seed of the draw of images, the condition and the bootstrap.
        progress: the label of a progress bar for each length; None shows none.

    Raises:
        ValueError: models of different configs, a share outside (0, 1], and as `evaluate`.

    Source: one layer's weights set back, arXiv:1902.01996; runs of them and the rule are ours.
    """
    check_weights_fit(base, tuned, "finding the shortest run of blocks")
    check_number("share", share, SHARE_ABOVE_ZERO)
    n = base.cfg.n_layers
    longest = max(1, n - 1) if longest is None else min(longest, n)
    check_number("longest", longest, COUNT)
    chosen_on, held_out = split_images(images, selection_fraction, seed=seed)
    groups = part_groups(base, "blocks")

    def measure(part: Images, runs: Runs, name: str, label: str | None) -> pd.DataFrame:
        frames = []
        for receiver, giver, which in ((base, tuned, "base"), (tuned, base, "tuned")):
            found = _effects(receiver, giver, part, condition, runs, resamples, level, batch_size, seed, label)
            frames.append(labelled(found, {"images": name, "receiver": which}))
        return pd.concat(frames, ignore_index=True)

    tables, chosen, passes, reason = [], None, 0.0, REASONS[3]
    for length in range(1, longest + 1):
        runs = {**_runs(groups, length, n), **(_others(groups) if length == 1 else {})}
        passes += 2 * _passes(runs, n)
        tables.append(measure(chosen_on, runs, "selection", progress and f"{progress}, runs of {length}"))
        if reasons := set(tables[-1]["recovered_reason"]) - {""}:
            reason = min(reasons)
            break
        both = tables[-1][tables[-1]["first"] != ELSEWHERE].groupby(["first", "last"])["recovered"].min()
        if both.max() >= share:
            first, last = both.idxmax()
            chosen = (int(first), int(last))
            run = {key: parts for key, parts in runs.items() if key[:2] == chosen}
            tables.append(measure(held_out, run, "held_out", None))
            reason = "" if (tables[-1]["recovered"] >= share).all() else REASONS[4]
            break
    return ShortestRun(share, n, chosen, reason, pd.concat(tables, ignore_index=True), passes)


def _runs(groups: Mapping[str, tuple[str, ...]], length: int, n: int) -> dict[tuple[int, int, str], frozenset[str]]:
    """Return every run of one length."""
    found = {}
    for first in range(n - length + 1):
        last = first + length - 1
        name = f"blocks.{first}" if length == 1 else f"blocks.{first}-{last}"
        found[first, last, name] = frozenset(p for layer in range(first, last + 1) for p in groups[f"blocks.{layer}"])
    return found


def _others(groups: Mapping[str, tuple[str, ...]]) -> dict[tuple[int, int, str], frozenset[str]]:
    """Return the parts that are no block."""
    names = [name for name in groups if "." not in name]
    return {(ELSEWHERE, ELSEWHERE, name): frozenset(groups[name]) for name in names}


def _passes(runs: Runs, n: int) -> float:
    """Return the forward passes per image of one direction: both models', and each run's from its first block on.

    The embedding's swap runs all blocks, those after the blocks none.
    """
    own = [n - first if first != ELSEWHERE else n if name == "embed" else 0 for first, _, name in runs]
    return 2 + sum(own) / n


def _effects(
    receiver: HookedViT,
    giver: HookedViT,
    images: Images,
    condition: Condition | str,
    runs: Runs,
    resamples: int,
    level: float,
    batch_size: int | None,
    seed: int,
    progress: str | None,
) -> pd.DataFrame:
    """Return the divergence's effects of all runs in one direction."""
    mixes: dict[tuple[int, int, str] | str, frozenset[str]] = {RECEIVER: frozenset()}
    mixes[GIVER] = frozenset(model_parts(receiver))
    for run, parts in runs.items():
        mixes[run] = parts
    found = run_interventions(
        receiver,
        images,
        [condition],
        lambda pixels: mixed_logits(receiver, giver, pixels, mixes),
        batch_size=batch_size,
        seed=seed,
        progress=progress,
    )
    references = {key: outcomes for key, outcomes in found.items() if isinstance(key[1], str)}
    others = {key: outcomes for key, outcomes in found.items() if not isinstance(key[1], str)}
    table = effects(
        outcome_frame(others, lambda run: dict(zip(("part", "first", "last"), (run[2], *run[:2]), strict=True))),
        outcome_frame(references, lambda name: {"condition": name}),
        by=["part", "first", "last"],
        resamples=resamples,
        level=level,
        seed=seed,
    )
    return table[table["quantity"] == DIVERGENCE].drop(columns=["corruption", "quantity"])
