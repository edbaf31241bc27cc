"""Checks of the two models of a recipe, before anything is trained, and the heads of the nulls."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mechvit.data.sources.class_folders import fingerprint_folder
from mechvit.settings_checks import SettingError

from .config import ONLY_SEEDS, NullsConfig
from .recipe import Recipe


def check_kind(config: NullsConfig, recipe: Recipe, *, own_head: bool) -> None:
    """Refuse nulls tuned on clean images where that tuning is the treatment itself.

    Raises:
        SettingError: names the kind that there is instead.
    """
    if config.kind == "seeds":
        return
    if not own_head:
        raise SettingError("kind", f"must be seeds, since {config.like} has other classes than the base: {ONLY_SEEDS}")
    if recipe.is_plain:
        raise SettingError("kind", f"must be seeds, since {config.like} was tuned on clean images: {ONLY_SEEDS}")


def read_pair(config: NullsConfig) -> tuple[Any, Any, bool]:
    """Read the base's image processor and the tuned model's config, and say whether the base has its classes.

    Raises:
        ValueError: a model cannot be read or trained, or the two process pixels differently.
    """
    from mechvit.data import config_classes
    from mechvit.experiment.inputs import read_checkpoint
    from mechvit.finetuning import check_trainable
    from mechvit.models.processors.preprocessing import described, differences

    (base, processor), (tuned, other) = read_checkpoint(config.base), read_checkpoint(config.like)
    check_trainable(tuned, config.like)
    differing = differences(processor, other)
    if found := described(differing.resizing | differing.scale):
        raise SettingError(
            "like",
            f"{config.like} takes other pixels than the base ({found}): a training from the base cannot be repeated; "
            "give the base that it was tuned from",
        )
    own_head = base.architectures == tuned.architectures and config_classes(base) == config_classes(tuned)
    if own_head:
        check_trainable(base, config.base)
    return processor, tuned, own_head


def check_kin(config: NullsConfig) -> None:
    """Refuse two models of which neither was trained from the other.

    Raises:
        SettingError: gives the reason.
    """
    from mechvit.analysis import kinship
    from mechvit.experiment.inputs import load_model

    found = kinship(load_model(config.base, config.device), load_model(config.like, config.device))
    if not found.is_kin:
        raise SettingError("base", f"must be the model that {config.like} was tuned from; {found.reason}")


def identity(checkpoint: str) -> dict[str, str | None]:
    """Return what tells a checkpoint from any other: a hash of its files, or its commit on the Hub."""
    from mechvit.models.checkpoints.revisions import hub_revision

    local = Path(checkpoint).expanduser()
    if local.is_dir():
        return {"content": fingerprint_folder(local)}
    return {"name": os.fspath(checkpoint), "revision": hub_revision(checkpoint)}
