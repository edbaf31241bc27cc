"""Exchanges between the two models of a comparison: which part carries the difference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from mechvit.data.corruption_spec import CLEAN
from mechvit.experiment.sections import exchanges
from mechvit.experiment.sections.exchanges import INTO_BASE, INTO_TUNED, Exchange, Tables

from .pair import Pair

if TYPE_CHECKING:
    import pandas as pd

    from mechvit.data.conditions import Condition

KINDS = ("resid", "attn", "mlp", "head")
"""Components whose activations are patched."""
FEWEST_STEERED = 4
"""Fewest images for steering: two that give directions, one that chooses among them, one that is reported."""


def single_swaps(pair: Pair, count: int) -> Tables:
    """Swap single blocks in both directions: swaps, with the columns direction and those of `Swaps.summary`."""
    from mechvit import analysis

    found = exchange(pair, count)
    own = {"parts": tuple(analysis.part_groups(found.base, "blocks")), "cumulative": None}
    return {"swaps": exchanges.swaps(found, pair.one_image, {INTO_BASE: own, INTO_TUNED: own})}


def causes(pair: Pair, count: int) -> Tables:
    """Swap weights, patch activations, and look for the place of the difference.

    swaps and patching: direction, and the columns of `effects`; place: condition, and the columns of `exchanges.place`;
    smallest_set: condition, and the columns of `SmallestSet.to_frame`; interpolation: as `Interpolation.summary`;
    steering, from `FEWEST_STEERED` images on: condition, and the columns of `Steering.chosen`.
    """
    from mechvit import analysis

    found = exchange(pair, count)
    parts = (*analysis.part_groups(found.base, "blocks"), *analysis.part_groups(found.base, "branches"))
    own = {"parts": tuple(dict.fromkeys(parts)), "cumulative": "blocks"}

    def patching(condition: Condition) -> pd.DataFrame:
        both = exchanges.patched(found, condition, {INTO_BASE: KINDS, INTO_TUNED: KINDS})
        return exchanges.patching_table(both.items(), pair.bootstrap)

    def smallest_set(condition: Condition) -> pd.DataFrame:
        return exchanges.smallest_set(found, condition, share=pair.recovered, quantity="divergence")

    made = {
        "swaps": exchanges.swaps(found, pair.one_image, {INTO_BASE: own, INTO_TUNED: own}),
        "place": _by_condition(pair, lambda condition: exchanges.place(found, condition, pair.recovered)),
        "patching": _by_condition(pair, patching),
        "smallest_set": _by_condition(pair, smallest_set),
        "interpolation": exchanges.interpolation(found, pair.one_image),
    }
    if len(found.images) >= FEWEST_STEERED:
        made["steering"] = _by_condition(pair, lambda condition: _steering(found, condition))
    return made


def exchange(pair: Pair, count: int) -> Exchange:
    """Return the models with the first of the chosen heads, and the images on which they are exchanged."""
    reading = pair.readings[0]
    return Exchange(
        base=reading.base,
        tuned=reading.tuned,
        images=pair.first(count, reading.head),
        seed=pair.seed,
        batch_size=pair.batch_size,
        bootstrap=pair.bootstrap,
    )


def _steering(pair: Exchange, condition: Condition) -> pd.DataFrame:
    """Steer the base towards the tuned model and, under a condition, towards its own activations on clean images.

    One half of the images gives the directions; a quarter chooses block and scale, and the last quarter is reported.
    """
    from mechvit import analysis
    from mechvit.analysis.held_out_split import split_images

    given, shown = split_images(pair.images, 0.5, seed=pair.seed)
    directions = [
        direction
        for towards in ([pair.tuned] if condition == CLEAN else [pair.tuned, None])
        for direction in analysis.steering_directions(
            pair.base, given, condition, towards=towards, hook_names=pair.steered_hooks, **pair.asked
        )
    ]
    found = exchanges.steered(replace(pair, images=shown), condition, directions)
    return found.chosen(by="divergence", **pair.bootstrap).drop(columns="corruption")


def _by_condition(pair: Pair, measure: Callable[[Condition], pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    from mechvit.analysis.statistics.tidy_tables import labelled

    frames = [labelled(measure(condition), {"condition": condition.key}) for condition in pair.one_image]
    return pd.concat(frames, ignore_index=True)
