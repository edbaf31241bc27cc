"""Exchanges of weights and activations between two models, and steering: which part carries what differs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mechvit.data.corruption_spec import CLEAN, Condition

if TYPE_CHECKING:
    import datasets
    import pandas as pd

    from mechvit.analysis import Direction, Patching, Steering
    from mechvit.models import HookedViT

Tables = dict[str, "pd.DataFrame"]
INTO_BASE, INTO_TUNED, CLEAN_INTO_CORRUPTED = "tuned into base", "base into tuned", "clean into corrupted"
"""Directions of an exchange: the tuned model's part into the base, the reverse, and, of activations, the clean image's
into the corrupted one's within the base."""
ALPHAS = (-0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
"""Points on the line from the base's weights to the tuned model's."""
SCALES = (1.0, 2.0, 4.0)
"""Multiples of a steering direction."""
CONTROLS = 2
"""Number of random directions of the same length per direction."""


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """A base and a tuned model with heads of the same classes, and the images on which they are measured."""

    base: HookedViT
    tuned: HookedViT
    images: datasets.Dataset
    seed: int
    """Seed of the conditions' noise, and of all draws."""
    batch_size: int | None = None
    """Images per forward pass; None takes each analysis's default."""
    bootstrap: Mapping[str, Any]
    """Arguments resamples, level and seed of every interval."""

    @property
    def models(self) -> dict[str, HookedViT]:
        """Both models by name."""
        return {"base": self.base, "tuned": self.tuned}

    @property
    def asked(self) -> dict[str, Any]:
        """Arguments that every streamed analysis takes."""
        return {"batch_size": self.batch_size, "seed": self.seed}

    @property
    def bootstrap_of_images(self) -> dict[str, Any]:
        """Arguments resamples and level, where an analysis takes the seed itself."""
        return {name: value for name, value in self.bootstrap.items() if name != "seed"}

    @property
    def steered_hooks(self) -> list[str]:
        """Hook points at which the base is steered: the residual stream after every other block."""
        return [f"blocks.{layer}.hook_resid_post" for layer in range(0, self.base.cfg.n_layers, 2)]


def swaps(pair: Exchange, conditions: Sequence[Condition], settings: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Swap weights in both directions of `settings`, which holds what `swap_weights` takes: parts, cumulative.

    Returns:
        direction, and the columns of `Swaps.summary`.
    """
    import pandas as pd

    from mechvit import analysis

    found = analysis.swap_both_ways(
        pair.base,
        pair.tuned,
        pair.images,
        conditions,
        into_base=settings[INTO_BASE],
        into_tuned=settings[INTO_TUNED],
        progress="Swapping weights",
        **pair.asked,
    )
    ways = zip((INTO_BASE, INTO_TUNED), found, strict=True)
    frames = [way.summary(**pair.bootstrap).assign(direction=direction) for direction, way in ways]
    return pd.concat(frames, ignore_index=True)


def patched(pair: Exchange, condition: Condition, kinds: Mapping[str, Sequence[str]]) -> dict[str, Patching]:
    """Patch the `kinds` of components of each direction, at all tokens."""
    from mechvit import analysis

    ways = {
        INTO_BASE: (pair.base, pair.tuned, condition),
        INTO_TUNED: (pair.tuned, pair.base, condition),
        CLEAN_INTO_CORRUPTED: (pair.base, pair.base, CLEAN),
    }
    found = {}
    for direction, chosen in kinds.items():
        receiver, giver, other = ways[direction]
        found[direction] = analysis.patch_models(
            receiver,
            giver,
            pair.images,
            condition,
            giver_corruption=other,
            kinds=chosen,
            progress=f"Patching, {direction}",
            **pair.asked,
        )
    return found


def patching_table(found: Collection[tuple[str, Patching]], bootstrap: Mapping[str, Any]) -> pd.DataFrame:
    """Return the effects of patching by direction: the columns of `Patching.summary`, and direction."""
    import pandas as pd

    frames = [way.summary(**bootstrap).assign(direction=direction) for direction, way in found]
    return pd.concat(frames, ignore_index=True)


def interpolation(pair: Exchange, conditions: Sequence[Condition]) -> pd.DataFrame:
    """Measure models on the line between the weights: the columns of `Interpolation.summary`."""
    from mechvit import analysis

    line = analysis.interpolate_weights(
        pair.base, pair.tuned, pair.images, conditions, alphas=ALPHAS, progress="Interpolation", **pair.asked
    )
    return line.summary(**pair.bootstrap)


def smallest_set(pair: Exchange, condition: Condition, **settings: Any) -> pd.DataFrame:
    """Find the smallest set of branches whose weights recover the gap.

    Args:
        pair: the models and their images.
        condition: the condition under which the gap is measured.
        settings: those of `SmallestSetConfig` that are not the defaults.

    Returns:
        the columns of `SmallestSet.to_frame`, and `of`, the number of all branches; no rows if there is no gap.
    """
    import pandas as pd

    from mechvit import analysis
    from mechvit.analysis.weights.smallest_set import NoGap

    config = analysis.SmallestSetConfig(**settings, **pair.bootstrap_of_images)
    try:
        found = analysis.smallest_set(
            pair.base, pair.tuned, pair.images, condition, config=config, progress="Smallest set", **pair.asked
        )
    except NoGap:
        return pd.DataFrame(columns=["step", "groups", "images", "of"])
    return found.to_frame().assign(of=len(analysis.part_groups(pair.base, "branches")))


def place(pair: Exchange, condition: Condition, share: float) -> pd.DataFrame:
    """Find the shortest run of blocks that recovers a share of the difference in both directions.

    Returns:
        chosen and confirmed runs as `ShortestRun.to_frame`, with place_first and place_last (-1 for no single place)
        and reason.
    """
    from mechvit import analysis

    found = analysis.shortest_run(
        pair.base,
        pair.tuned,
        pair.images,
        condition,
        share=share,
        progress="Shortest run of blocks",
        **pair.bootstrap_of_images,
        **pair.asked,
    )
    first, last = found.place or (-1, -1)
    return found.to_frame().assign(place_first=first, place_last=last, reason=found.reason)


def steered(pair: Exchange, condition: Condition, directions: Sequence[Direction]) -> Steering:
    """Steer the base along directions, and random ones of their lengths, and compare it with the tuned model."""
    from mechvit import analysis

    return analysis.steer(
        pair.base,
        pair.tuned,
        pair.images,
        [condition],
        directions,
        scales=SCALES,
        controls=CONTROLS,
        progress="Steering",
        **pair.asked,
    )
