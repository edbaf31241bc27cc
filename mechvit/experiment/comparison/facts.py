"""Facts about the models of a comparison, and about a pair of them, for its report."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from .pair import Pair
from .rounding import equal_when_rounded, precision, roundings

if TYPE_CHECKING:
    from mechvit.models import HookedViT


def model_facts(name: str, checkpoint: str, model: HookedViT) -> dict[str, Any]:
    """Return name, checkpoint, commit, class, shape, classes, stored dtype, the coarsest
    dtype that holds the weights exactly, and their hash.
    """
    from mechvit.experiment.inputs import read_checkpoint
    from mechvit.models.checkpoints.fingerprint import checkpoint_hash
    from mechvit.models.checkpoints.revisions import hub_revision

    cfg = model.cfg
    stored = getattr(read_checkpoint(checkpoint)[0], "dtype", None)  # as written: the loaded one is of this run's dtype
    return {
        "name": name,
        "checkpoint": checkpoint,
        "revision": hub_revision(checkpoint),
        "architecture": cfg.architecture,
        "n_layers": cfg.n_layers,
        "d_model": cfg.d_model,
        "image_size": cfg.image_size,
        "patch_size": cfg.patch_size,
        "n_classes": cfg.n_classes,
        "stored_dtype": str(stored).removeprefix("torch."),
        "precision": precision(model),
        "hash": checkpoint_hash(model),
    }


def pair_facts(pair: Pair, identical: bool, dtype: str) -> dict[str, Any]:
    """Return heads, kinship, differing processors, labels and groups of a pair, and two sentences that tell them.

    Args:
        pair: both models.
        identical: whether all their weights are equal.
        dtype: the one in which they compute.
    """
    from mechvit.models.processors.preprocessing import described, differences

    differing, kin = differences(pair.base.image_processor, pair.tuned.image_processor), pair.kin
    return {
        "heads": list(pair.choice.heads),
        "head_reason": pair.choice.reason,
        "kinship": {"value": number(kin.value), "bound": number(kin.bound), "reason": kin.reason}
        | {"is_kin": kin.is_kin},
        "identical": identical,
        "equal_when_rounded": equal_when_rounded(pair),
        "rounds": not identical and bool(roundings(pair, dtype)),
        "pixels": described(differing.resizing | differing.scale),
        "labelled": pair.labelled,
        "groups": list(pair.groups),
        "said": f"{pair.choice.sentence} {kin.reason[0].upper()}{kin.reason[1:]}.",
    }


def number(value: float) -> float | None:
    """Return a number as JSON holds it: None for NaN."""
    return None if math.isnan(value) else value
