"""Swapping weights between two models part by part, to locate a fine-tuning's gain."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from mechvit.analysis.inputs import Images
from mechvit.analysis.interventions.model_pair import check_weights_fit, giver_pixels
from mechvit.analysis.interventions.recovery import GIVER, RECEIVER
from mechvit.analysis.interventions.runner import Found, Key, effects, outcome_frame, run_interventions
from mechvit.analysis.statistics.bootstrap import LEVEL, RESAMPLES
from mechvit.analysis.statistics.results import Result
from mechvit.arguments import checked
from mechvit.data.corruption_spec import Condition
from mechvit.models.layers.hook_state import is_watched

from .model_parts import Unit, groups_named, model_parts, part_groups, shared_parts, weights_of, weights_replaced

if TYPE_CHECKING:
    import pandas as pd

    from mechvit.models import HookedViT


class Swap(NamedTuple):
    """The giver's weights that the receiver runs with."""

    kind: str
    """Kind: `single` is one part; `first` and `last` are the first or the last k of all parts."""
    part: str
    """The part, or the one added at step k; empty at k = 0."""
    k: int
    """Number of parts taken from the giver."""


@dataclass(frozen=True, repr=False)
class Swaps(Result):
    """Outcomes of each swap, per image and corruption."""

    outcomes: Found[Swap]
    """(corruption, swap) -> outcomes of the receiver with those weights of the giver."""
    references: Found[str]
    """(corruption, "receiver" or "giver") -> outcomes of the unchanged model, scored with the foils of both."""
    shared: tuple[str, ...] = ()
    """Parts that both models have in common (a grafted head), which are not swapped unless they are named."""

    def to_frame(self) -> pd.DataFrame:
        """Return rows by image, corruption and swap: corruption, kind, part, k, and the columns of `Outcomes`."""
        return outcome_frame(self.outcomes, Swap._asdict)

    def reference_frame(self) -> pd.DataFrame:
        """Return rows by image, corruption and model: corruption, condition, and the columns of `Outcomes`."""
        return outcome_frame(self.references, lambda condition: {"condition": condition})

    def summary(self, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0) -> pd.DataFrame:
        """Compute means, changes and recovered shares by (corruption, kind, part, k), as `effects`.

        A recovered share of 0 is the unchanged receiver, 1 the giver. Without labels the divergence alone is measured.
        """
        return effects(
            self.to_frame(), self.reference_frame(), by=Swap._fields, resamples=resamples, level=level, seed=seed
        )


@checked
def swap_weights(
    receiver: HookedViT,
    giver: HookedViT,
    images: Images,
    corruptions: Collection[Condition | str],
    *,
    parts: Sequence[str] | None = None,
    cumulative: Unit | None = "blocks",
    batch_size: int | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> Swaps:
    """Run the receiver with one part's weights of the giver, and with growing sets of parts from either end.

    With the base as the receiver and the tuned model as the giver, a high recovered share means that a part's change
    suffices for the gain; with the two exchanged, that the gain needs it. No model is copied, and none is left changed.

    Args:
        receiver, giver: two models of the same config, of which one was trained from the other; models without a head
            in common take one (`mechvit.models.graft_head`, `mechvit.analysis.with_probe`).
        images: a `datasets.Dataset` (prepared or raw) or an `ImageBatch`; labels are the models' own class ids,
            negative for images without one.
        corruptions: those to apply, including `clean` if it is wanted.
        parts: parts to swap one at a time, as in `blocks.3`, `blocks.3.attn`, `blocks.3.ln2+mlp`, `embed`, `head`; None
            takes every block and every part (see `model_parts`).
        cumulative: the unit in which the first k and the last k are swapped together, k from 0 to all; None skips this.
        batch_size, seed, progress: as in `evaluate`.

    Raises:
        ValueError: models of different configs, an unknown part, nothing to swap, and as `evaluate`.

    Source: arXiv:1902.01996 (one layer's weights set back to an earlier checkpoint's); grafting of a tuned model's
    weights onto the base, arXiv:2302.06600.
    """
    check_weights_fit(receiver, giver, "swapping weights")
    mixes = _mixes(receiver, giver, parts, cumulative)
    found = run_interventions(
        receiver,
        images,
        corruptions,
        lambda pixels: mixed_logits(receiver, giver, pixels, mixes),
        batch_size=batch_size,
        seed=seed,
        progress=progress,
    )
    return _swaps(found, shared_parts(receiver, giver))


@checked
def swap_both_ways(
    base: HookedViT,
    tuned: HookedViT,
    images: Images,
    corruptions: Collection[Condition | str],
    *,
    into_base: Mapping[str, Any] | None = None,
    into_tuned: Mapping[str, Any] | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> tuple[Swaps, Swaps]:
    """Swap weights in both directions: `swap_weights(base, tuned, ...)` and `swap_weights(tuned, base, ...)` in fewer
    passes.

    Both models run once for both directions, and so does every set of weights that both ask for: the base with the
    tuned model's first k blocks is the tuned model with the base's others.

    Args:
        base, tuned: as receiver and giver in `swap_weights`, and the reverse.
        images, corruptions, batch_size, seed, progress: as in `swap_weights`.
        into_base, into_tuned: parts and cumulative, as in `swap_weights`, of each direction.

    Returns:
        the tuned model's weights in the base, and the base's in the tuned model.

    Raises:
        ValueError: as `swap_weights`.
    """
    check_weights_fit(base, tuned, "swapping weights")
    mixes = _mixes(base, tuned, **{"parts": None, "cumulative": "blocks", **(into_base or {})})
    back = _mixes(tuned, base, **{"parts": None, "cumulative": "blocks", **(into_tuned or {})})
    reverse = {Back(key): chosen for key, chosen in back.items()}
    found = run_interventions(
        base,
        images,
        corruptions,
        lambda pixels: mixed_logits(base, tuned, pixels, mixes, reverse),
        giver_of=lambda key: Back(GIVER) if isinstance(key, Back) else GIVER,
        batch_size=batch_size,
        seed=seed,
        progress=progress,
    )
    shared = shared_parts(base, tuned)
    own = {(c, key): outcomes for (c, key), outcomes in found.items() if not isinstance(key, Back)}
    theirs = {(c, key.of): outcomes for (c, key), outcomes in found.items() if isinstance(key, Back)}
    return _swaps(own, shared), _swaps(theirs, shared)


class Back(NamedTuple):
    """An intervention in the other direction: on the giver, with the receiver's parts."""

    of: Any

    def __str__(self) -> str:
        return f"{self.of} in the other direction"


def _mixes(
    receiver: HookedViT, giver: HookedViT, parts: Sequence[str] | None, cumulative: Unit | None
) -> dict[Swap | str, frozenset[str]]:
    """Return the parts that each swap takes, and those of both models unchanged."""
    shared = shared_parts(receiver, giver)
    groups = groups_named(receiver, parts) if parts is not None else _but(_every_group(receiver), shared)
    swaps: dict[Swap | str, frozenset[str]] = {
        Swap("single", name, 1): frozenset(group) for name, group in groups.items()
    }
    if cumulative is not None:
        swaps |= _from_either_end(_but(part_groups(receiver, cumulative), shared))
    return {RECEIVER: frozenset(), GIVER: frozenset(model_parts(receiver)), **swaps}


def _swaps(found: Mapping[tuple[str, Any], Any], shared: tuple[str, ...]) -> Swaps:
    return Swaps(
        {(c, swap): found[c, swap] for c, swap in found if isinstance(swap, Swap)},
        {(c, name): found[c, name] for c, name in found if not isinstance(name, Swap)},
        shared,
    )


def _but(groups: Mapping[str, tuple[str, ...]], shared: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    return {name: parts for name, parts in groups.items() if not set(parts) <= set(shared)}


def _every_group(model: HookedViT) -> dict[str, tuple[str, ...]]:
    return part_groups(model, "blocks") | part_groups(model, "parts")


def _from_either_end(groups: Mapping[str, tuple[str, ...]]) -> dict[Swap | str, frozenset[str]]:
    """Return the first k and the last k groups, for every k."""
    found: dict[Swap | str, frozenset[str]] = {}
    for kind, names in (("first", list(groups)), ("last", list(groups)[::-1])):
        for k in range(len(names) + 1):
            chosen = frozenset(part for name in names[:k] for part in groups[name])
            found[Swap(kind, names[k - 1] if k else "", k)] = chosen
    return found


def mixed_logits(
    receiver: HookedViT,
    giver: HookedViT,
    pixels: Float[Tensor, "batch 3 height width"],
    mixes: Mapping[Key, frozenset[str]],
    back: Mapping[Key, frozenset[str]] | None = None,
) -> dict[Key, Float[Tensor, "batch class"]]:
    """Run the receiver with each of several sets of parts from the giver.

    A mix equals one of the two models up to some block, and starts from that model's residual stream there; both
    streams advance block by block, so that only two are held. The results equal those of whole forward passes, bit for
    bit.

    Args:
        mixes: name -> the parts (as in `model_parts`) taken from the giver.
        back: name -> the parts that the giver takes from the receiver, in the other direction. Those whose weights are
            a mix's are not run again, unless hooks could tell the models apart.

    Returns:
        the logits of every mix, in the order of `mixes`, and then of `back`.
    """
    n_layers, parts = receiver.cfg.n_layers, model_parts(receiver)
    models, shown = {False: receiver, True: giver}, {False: pixels, True: giver_pixels(receiver, giver, pixels)}
    twins = _twins(receiver, giver, mixes, back or {})
    starts: dict[tuple[bool, int], list[tuple[Key, bool, frozenset[str]]]] = {}
    for backwards, asked in ((False, mixes), (True, back or {})):
        for key in (key for key in asked if key not in twins):
            from_other, layer = _shared_with(asked[key], parts, n_layers)
            starts.setdefault((from_other != backwards, layer), []).append((key, backwards, asked[key]))
    needed = {side: max((layer for s, layer in starts if s == side), default=-1) for side in (True, False)}
    resids = {side: models[side](shown[side], stop_at_layer=0) for side in models if needed[side] >= 0}
    found: dict[Key, Tensor] = {}
    for layer in range(n_layers + 1):
        for side, resid in resids.items():
            for key, backwards, chosen in starts.get((side, layer), []):
                with weights_replaced(models[backwards], weights_of(models[not backwards], chosen)):
                    found[key] = models[backwards](resid, start_at_layer=layer)
        resids = {
            side: models[side].blocks[layer](resid, models[side].place(receiver.cfg.grid))
            for side, resid in resids.items()
            if layer < needed[side]
        }
    return {key: found[twins.get(key, key)] for key in (*mixes, *(back or {}))}


def _twins(
    receiver: HookedViT, giver: HookedViT, mixes: Mapping[Key, frozenset[str]], back: Mapping[Key, frozenset[str]]
) -> dict[Key, Key]:
    """Return those in the other direction whose weights are a mix's, with that mix; none where a hook is attached."""
    if any(is_watched(point) for model in (receiver, giver) for point in model.hook_dict.values()):
        return {}
    alike = frozenset(shared_parts(receiver, giver))
    apart = frozenset(model_parts(receiver)) - alike
    of = {chosen - alike: key for key, chosen in mixes.items()}
    return {key: of[apart - chosen] for key, chosen in back.items() if apart - chosen in of}


def _shared_with(chosen: frozenset[str], parts: Mapping[str, object], n_layers: int) -> tuple[bool, int]:
    """Return whether a mix begins like the giver, and the first block that is not wholly that model's."""
    from_giver = "embed" in chosen
    for layer in range(n_layers):
        own = [part for part in parts if part.startswith(f"blocks.{layer}.")]
        if any((part in chosen) != from_giver for part in own):
            return from_giver, layer
    return from_giver, n_layers
