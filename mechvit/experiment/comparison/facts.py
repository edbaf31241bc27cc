"""Facts about a model for a comparison's report."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from .rounding import precision

if TYPE_CHECKING:
    from mechvit.models import HookedViT


def model_facts(name: str, checkpoint: str, model: HookedViT) -> dict[str, Any]:
    """Return name, checkpoint, commit, class, shape, classes, stored dtype, the coarsest
    dtype that holds the weights exactly, and their hash.
    """
    from mechvit.models.checkpoints.fingerprint import checkpoint_hash
    from mechvit.models.checkpoints.revisions import hub_revision

    cfg = model.cfg
    stored = getattr(model.hf_config, "dtype", None)
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


def number(value: float) -> float | None:
    """Return a number as JSON holds it: None for NaN."""
    return None if math.isnan(value) else value
