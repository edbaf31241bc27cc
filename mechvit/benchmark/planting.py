"""Planting: a model with one known change, on top of the drift of a clean tuning, among decoys of equal norm."""

from __future__ import annotations

import copy
import math
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechvit.analysis.inputs import Images
from mechvit.analysis.weights.model_parts import model_parts, part_groups
from mechvit.arguments import checked
from mechvit.data.corruption_spec import CLEAN, Condition
from mechvit.models.layers.hook_state import is_watched
from mechvit.settings_checks import COUNT_OR_ZERO, NOT_NEGATIVE, POSITIVE, SEED, check_number

from .decoys import Decoy, attention_decoy, mlp_decoy, norm_of
from .dose import Answers, scale_of_dose
from .edits import EDITS, Edit, Weights, exact
from .no_ops import NO_OPS

if TYPE_CHECKING:
    from mechvit.models import HookedViT

__all__ = ["Decoy", "Planted", "Truth", "plant"]

MOST_CHANGED = 0.5
"""Largest norm of an edit among decoys, as a share of the smallest branch's: all branches change by as much."""
TOLERANCE = 0.05
"""Largest error of a strength that counts as reached, as a share of it."""
ROUNDING = 1e-6
"""Largest divergence (nats) of what changes no function, beside a hundredth of a seed's."""


@dataclass(frozen=True, repr=False)
class Truth:
    """The planted change, its place and its strength."""

    kind: str
    layer: int
    seed: int
    part: str
    """The part that holds the change, as in `blocks.1.mlp` or `blocks.1.ln2`."""
    branch: str
    """The branch that holds it, as in `blocks.1.ln2+mlp`."""
    head: int | None
    """The one head that is changed; None where it is none alone."""
    direction: Float[Tensor, " d_model"] | None
    """Unit vector of the residual stream along which the part writes otherwise; None where there is no single one."""
    changes_function: bool
    """Whether the model computes something else: False for rotations and permutations."""
    strength: float
    """The strength asked for, in units; 0 for what changes no function."""
    reached: float
    """The strength reached, decoys included."""
    divergence: float
    """KL(drift | planted), nats, mean over the images."""
    unit: float
    """Mean KL between two seeds of the same tuning, nats."""
    scale: float
    """Scale of the edit."""
    norm: float
    """Frobenius norm of the edit."""
    decoys: tuple[Decoy, ...]
    """The changes of all other branches, which alter no function."""

    def __repr__(self) -> str:
        decoys = f", {len(self.decoys)} decoys" if self.decoys else ""
        return f"Truth({self.kind} in {self.part}: strength {self.reached:.3g} of {self.strength:g}{decoys})"

    @property
    def is_reached(self) -> bool:
        """Whether the strength is the one that was asked for, within a tenth; False where the edit saturates."""
        return abs(self.reached - self.strength) <= 2 * TOLERANCE * self.strength

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        direction = None if self.direction is None else self.direction.tolist()
        return asdict(self) | {"direction": direction, "decoys": [decoy._asdict() for decoy in self.decoys]}


@dataclass(frozen=True)
class Planted:
    """A model with one known change."""

    model: HookedViT
    truth: Truth

    def __repr__(self) -> str:
        return f"Planted({self.truth!r})"


@checked
@torch.inference_mode(False)
@torch.no_grad()
def plant(
    drift: HookedViT,
    kind: str,
    layer: int,
    strength: float,
    seed: int,
    *,
    images: Images,
    unit: float,
    condition: Condition | str = CLEAN,
    decoys: bool = True,
    batch_size: int | None = None,
) -> Planted:
    """Return a copy of a model with one known change of a stated strength, and the truth about it.

    The strength s is reached by scaling the edit until KL(drift | planted), over the images, is s times that between
    two seeds of one tuning, within 5%; where the edit cannot do it (a permutation, a projection), the strongest that it
    reaches is planted and recorded. With decoys it is at most half as large as the weights of
    the smallest branch. Every other
    branch (ln1 and attention, ln2 and the MLP) of every block is changed by as much, in the Frobenius norm of all its
    tensors together, in ways that alter no function: queries and keys turned together, neurons swapped, and weights
    along what a LayerNorm's output never holds. The norm is equal for branches, not for their single tensors.

    Args:
        drift: the model to change, such as the base tuned on clean images; it is left as it is.
        kind: one that changes the function: `mlp_rank_one`, `head_queries_permuted`, `ln_gains`, `attn_constant`,
            `class_projected_out`; or none: `qk_rotation`, `head_permutation`, `neuron_permutation`.
        layer: the block.
        strength: KL in units; 0 for the kinds that change no function.
        seed: seed of all that is drawn: head, direction, class, LayerNorm, decoys.
        images: a `datasets.Dataset` (prepared or raw) or an `ImageBatch` on which strength is measured; labels are not
            read.
        unit: mean KL between two seeds of the same tuning, nats (`mean_divergence`).
        condition: what the images are shown under.
        decoys: whether the other branches are changed.
        batch_size: as in `mechvit.analysis.evaluate`.

    Raises:
        ValueError: an unknown kind or layer, a strength that does not go with the kind, a model that is no classifier,
            whose weights are processed or that carries hooks, or that the kind or a decoy does not suit.
    """
    edits = EDITS | NO_OPS
    _check(drift, kind, layer, strength, seed, unit)
    answers = Answers(drift, images, condition, batch_size=batch_size, seed=seed)
    state = np.random.SeedSequence([seed, layer, zlib.crc32(kind.encode())]).generate_state(1, np.uint64)
    generator = torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))
    edit = edits[kind](drift, layer, generator, answers.pixels)

    def measure(scale: float) -> float:
        return answers.divergence_with(_fitting(drift, edit.at(scale)))

    most = _largest(drift, edit) if decoys else edit.most
    scale = scale_of_dose(measure, strength * unit, most, TOLERANCE)[0] if strength else 1.0
    weights = edit.at(scale)
    norm = norm_of(weights, {name: exact(drift.get_parameter(name)) for name in weights})
    alone = measure(scale)
    found: tuple[Decoy, ...] = ()
    if decoys:
        found, others = _decoys(drift, edit, norm, generator)
        weights |= others
    reached = answers.divergence_with(_fitting(drift, weights))
    _check_unchanged(abs(reached - alone) if strength else reached, unit, kind)
    truth = Truth(
        kind=kind,
        layer=layer,
        seed=seed,
        part=edit.part,
        branch=_branch_of(drift, edit.part),
        head=edit.head,
        direction=edit.direction,
        changes_function=kind in EDITS,
        strength=float(strength),
        reached=reached / unit,
        divergence=reached,
        unit=float(unit),
        scale=scale,
        norm=norm,
        decoys=found,
    )
    return Planted(_with(drift, weights), truth)


def _check(model: HookedViT, kind: str, layer: int, strength: float, seed: int, unit: float) -> None:
    """Refuse settings that are not understood, and models whose weights cannot be edited as they are."""
    known = [*EDITS, *NO_OPS]
    if kind not in known:
        raise ValueError(f"kind must be one of {', '.join(known)}; got {kind!r}")
    check_number("layer", layer, COUNT_OR_ZERO)
    if layer >= model.cfg.n_layers:
        raise ValueError(f"layer must be a block of the model, 0 to {model.cfg.n_layers - 1}; got {layer}")
    check_number("seed", seed, SEED)
    check_number("unit", unit, POSITIVE)
    check_number("strength", strength, NOT_NEGATIVE)
    if (strength > 0) != (kind in EDITS):
        wanted = "above 0" if kind in EDITS else "0, since it changes no function"
        raise ValueError(f"strength of {kind} must be {wanted}; got {strength:g}")
    if model.cfg.processing:
        raise ValueError(
            f"a change is planted in weights as they were trained; these are processed "
            f"({', '.join(model.cfg.processing)}): load the model without"
        )
    if any(map(is_watched, model.hook_dict.values())):
        raise ValueError("a change is planted in a model without hooks; remove them first (model.reset_hooks())")


def _branch_of(model: HookedViT, part: str) -> str:
    return next(name for name, parts in part_groups(model, "branches").items() if part in parts)


def _largest(model: HookedViT, edit: Edit) -> float:
    """Return the largest scale at which the edit is at most half as large as the weights of every branch."""
    own = {name: values.double() for name, values in model.own_state_dict().items()}
    named = model_parts(model)
    squares = [
        sum(float(own[name].square().sum()) for part in parts for name in named[part])
        for branch, parts in part_groups(model, "branches").items()
        if branch.startswith("blocks.")
    ]
    step = norm_of(edit.at(1.0), edit.at(0.0))
    return min(edit.most, MOST_CHANGED * math.sqrt(min(squares)) / step) if step else edit.most


def _decoys(model: HookedViT, edit: Edit, norm: float, generator: torch.Generator) -> tuple[tuple[Decoy, ...], Weights]:
    """Return a decoy of the edit's norm for every branch but the edit's own, and all their weights."""
    found: list[Decoy] = []
    weights: Weights = {}
    own = _branch_of(model, edit.part)
    for layer in range(model.cfg.n_layers):
        for part, change in (("attn", attention_decoy), ("mlp", mlp_decoy)):
            branch = _branch_of(model, f"blocks.{layer}.{part}")
            if branch != own:
                means, new = change(model, layer, norm, generator)
                before = {name: exact(model.get_parameter(name)) for name in new}
                found.append(Decoy(branch, means, norm_of(new, before)))
                weights |= new
    return tuple(found), weights


def _check_unchanged(divergence: float, unit: float, kind: str) -> None:
    """Refuse a model for which what should change no function changes it.

    Raises:
        ValueError: names the divergence.
    """
    most = max(ROUNDING, unit / 100)
    if not divergence <= most:
        raise ValueError(
            f"rotations, permutations and unseen directions must change no answer; beside {kind} they move KL by "
            f"{divergence:.3g} nats, more than {most:.3g}: this model's blocks are not understood, or its dtype is too "
            "coarse (give it in float32 or float64)"
        )


def _fitting(model: HookedViT, weights: Mapping[str, Tensor]) -> Weights:
    """Convert tensors to the dtype and the device of the model's own."""
    return {name: values.to(model.get_parameter(name)) for name, values in weights.items()}


def _with(model: HookedViT, weights: Mapping[str, Tensor]) -> HookedViT:
    """Return a copy of a model with some other weights, which shares none with it."""
    new = copy.deepcopy(model)
    new.encoder_of = None
    for name, values in weights.items():
        new.get_parameter(name).copy_(values)
    return new
