"""Exchanges of weights and activations between the two models of a comparison: which part carries the difference."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from .pair import Pair

if TYPE_CHECKING:
    import pandas as pd

    from mechvit.data.conditions import Condition
    from mechvit.models import HookedViT

ALPHAS = (-0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
"""Points on the line from the base's weights to the tuned model's."""
INTO_BASE, INTO_TUNED = "tuned into base", "base into tuned"
"""Directions: the tuned model's part in the base, and the reverse."""
KINDS = ("resid", "attn", "mlp", "head")
"""Components whose activations are patched."""


def single_swaps(pair: Pair, count: int) -> dict[str, pd.DataFrame]:
    """Swap single blocks in both directions: swaps, with the columns direction and those of `Swaps.summary`."""
    return {"swaps": _swaps(pair, count, "blocks", cumulative=None)}


def causes(pair: Pair, count: int) -> dict[str, pd.DataFrame]:
    """Swap weights, patch activations, and look for the place of the difference.

    swaps and patching: direction, and the columns of `effects`; place: condition, chosen and confirmed runs as
    `ShortestRun.to_frame`, with place_first and place_last (-1 for no single place) and reason; smallest_set:
    condition, and the columns of `SmallestSet.to_frame`; interpolation: as `Interpolation.summary`.
    """
    from mechvit import analysis

    reading = pair.readings[0]
    images = pair.first(count, reading.head)
    line = analysis.interpolate_weights(
        reading.base, reading.tuned, images, pair.one_image, alphas=ALPHAS, progress="Interpolation", **pair.asked
    )
    return {
        "swaps": _swaps(pair, count, "branches", cumulative="blocks"),
        "place": _by_condition(pair, count, _place),
        "patching": _by_condition(pair, count, _patching),
        "smallest_set": _by_condition(pair, count, _smallest_set),
        "interpolation": line.summary(**pair.bootstrap),
    }


def _swaps(
    pair: Pair, count: int, unit: Literal["blocks", "branches"], *, cumulative: Literal["blocks"] | None
) -> pd.DataFrame:
    import pandas as pd

    from mechvit import analysis

    reading, frames = pair.readings[0], []
    images = pair.first(count, reading.head)
    for direction, receiver, giver in _directions(pair):
        parts = tuple(
            dict.fromkeys([*analysis.part_groups(reading.base, "blocks"), *analysis.part_groups(reading.base, unit)])
        )
        found = analysis.swap_weights(
            receiver,
            giver,
            images,
            pair.one_image,
            parts=parts,
            cumulative=cumulative,
            progress=f"Swapping weights, {direction}",
            **pair.asked,
        )
        frames.append(found.summary(**pair.bootstrap).assign(direction=direction))
    return pd.concat(frames, ignore_index=True)


def _directions(pair: Pair) -> tuple[tuple[str, HookedViT, HookedViT], ...]:
    """Return each direction with its receiver and giver."""
    reading = pair.readings[0]
    return ((INTO_BASE, reading.base, reading.tuned), (INTO_TUNED, reading.tuned, reading.base))


def _by_condition(pair: Pair, count: int, measure: Callable[[Pair, int, Condition], pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    from mechvit.analysis.statistics.tidy_tables import labelled

    frames = [labelled(measure(pair, count, each), {"condition": each.key}) for each in pair.one_image]
    return pd.concat(frames, ignore_index=True)


def _place(pair: Pair, count: int, condition: Condition) -> pd.DataFrame:
    from mechvit import analysis

    reading = pair.readings[0]
    found = analysis.shortest_run(
        reading.base,
        reading.tuned,
        pair.first(count, pair.readings[0].head),
        condition,
        share=pair.recovered,
        progress="Shortest run of blocks",
        **pair.bootstrap_of_images,
        **pair.asked,
    )
    first, last = found.place or (-1, -1)
    return found.to_frame().assign(place_first=first, place_last=last, reason=found.reason)


def _patching(pair: Pair, count: int, condition: Condition) -> pd.DataFrame:
    import pandas as pd

    from mechvit import analysis

    frames = []
    for direction, receiver, giver in _directions(pair):
        found = analysis.patch_models(
            receiver,
            giver,
            pair.first(count, pair.readings[0].head),
            condition,
            kinds=KINDS,
            progress=f"Patching, {direction}",
            **pair.asked,
        )
        frames.append(found.summary(**pair.bootstrap).assign(direction=direction))
    return pd.concat(frames, ignore_index=True)


def _smallest_set(pair: Pair, count: int, condition: Condition) -> pd.DataFrame:
    """Return the smallest set of branches, with the number of all in the column `of`; no rows if there is no gap."""
    import pandas as pd

    from mechvit import analysis
    from mechvit.analysis.weights.smallest_set import NoGap

    reading = pair.readings[0]
    config = analysis.SmallestSetConfig(share=pair.recovered, quantity="divergence", **pair.bootstrap_of_images)
    try:
        found = analysis.smallest_set(
            reading.base,
            reading.tuned,
            pair.first(count, reading.head),
            condition,
            config=config,
            progress="Smallest set",
            **pair.asked,
        )
    except NoGap:
        return pd.DataFrame(columns=["step", "groups", "images", "of"])
    return found.to_frame().assign(of=len(analysis.part_groups(reading.base, "branches")))
