"""Exchanges between the two models of a comparison: which part carries the difference."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mechvit.experiment.sections import exchanges
from mechvit.experiment.sections.exchanges import INTO_BASE, INTO_TUNED, Exchange, Tables

from .pair import Pair

if TYPE_CHECKING:
    import pandas as pd

    from mechvit.data.conditions import Condition

KINDS = ("resid", "attn", "mlp", "head")
"""Components whose activations are patched."""


def single_swaps(pair: Pair, count: int) -> Tables:
    """Swap single blocks in both directions: swaps, with the columns direction and those of `Swaps.summary`."""
    from mechvit import analysis

    found = exchange(pair, count)
    own = {"parts": tuple(analysis.part_groups(found.base, "blocks")), "cumulative": None}
    return {"swaps": exchanges.swaps(found, pair.one_image, {INTO_BASE: own, INTO_TUNED: own})}


def causes(pair: Pair, count: int) -> Tables:
    """Swap weights, patch activations, and look for the place of the difference.

    swaps and patching: direction, and the columns of `effects`; place: condition, and the columns of `exchanges.place`;
    smallest_set: condition, and the columns of `SmallestSet.to_frame`; interpolation: as `Interpolation.summary`.
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

    return {
        "swaps": exchanges.swaps(found, pair.one_image, {INTO_BASE: own, INTO_TUNED: own}),
        "place": _by_condition(pair, lambda condition: exchanges.place(found, condition, pair.recovered)),
        "patching": _by_condition(pair, patching),
        "smallest_set": _by_condition(pair, smallest_set),
        "interpolation": exchanges.interpolation(found, pair.one_image),
    }


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


def _by_condition(pair: Pair, measure: Callable[[Condition], pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    from mechvit.analysis.statistics.tidy_tables import labelled

    frames = [labelled(measure(condition), {"condition": condition.key}) for condition in pair.one_image]
    return pd.concat(frames, ignore_index=True)
