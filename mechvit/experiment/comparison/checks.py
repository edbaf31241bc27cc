"""Checks of a comparison before anything is measured: names of the models, conditions and SAEs that do not fit."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mechvit.settings_checks import SettingError

from .config import CompareConfig
from .dictionaries import opened, training_parts
from .pair import Pair

if TYPE_CHECKING:
    from mechvit.models import HookedViT


def short_names(checkpoints: Collection[str]) -> dict[str, str]:
    """Name each folder (or Hub id) by its last part, and those that share theirs by as many parts as they need.

    A name is part of paths below the run's folder, so that it is never a path itself: parts are joined by hyphens.

    Raises:
        SettingError: two are the same folder.
    """
    places = {each: Path(os.path.abspath(Path(each).expanduser())) for each in checkpoints}
    if len(set(places.values())) < len(checkpoints):
        raise SettingError("models", f"must name each once; got {', '.join(checkpoints)}")
    parts = {each: [part for part in place.parts if part != place.anchor] for each, place in places.items()}
    names: dict[str, str] = {}
    for depth in range(1, max(map(len, parts.values())) + 1):
        tails = {each: "-".join(own[-depth:]) for each, own in parts.items() if each not in names}
        taken = [*tails.values(), *names.values()]
        names |= {each: tail for each, tail in tails.items() if tail and taken.count(tail) == 1}
    for each in checkpoints:
        names.setdefault(each, f"model-{len(names)}")  # as /a-b/c and /a/b/c
    return {names[each]: each for each in checkpoints}


def check_conditions(pair: Pair) -> None:
    """Refuse conditions that the images or the models do not allow.

    Raises:
        ValueError: an image has no partner, a model is too small for a corruption, or an attack has no head.
    """
    from mechvit.data.conditions import Attack, PairedImages
    from mechvit.data.partners import check_partners
    from mechvit.experiment.inputs import check_corruptions

    check_corruptions(pair.asked_for, max(model.cfg.image_size for model in pair.models.values()))
    for condition in pair.asked_for:
        if isinstance(condition, PairedImages):
            check_partners(condition, pair.images)
        if isinstance(condition, Attack) and not pair.choice.heads:
            raise SettingError("conditions", f"must name no attack where no head is used; got {condition.key}")


def check_dictionaries(pair: Pair, config: CompareConfig, folders: Mapping[str, Path]) -> None:
    """Refuse SAEs that do not fit their models, or a training for which there are too few images.

    Args:
        pair: the models and their images.
        config: settings of the comparison.
        folders: "base" and "tuned" -> folder of the SAE; empty for a training.

    Raises:
        ValueError: names the SAE or the setting.
    """
    from mechvit.saes.hook_site import sae_site

    if len(pair.images) < 2:
        raise SettingError("saes", "need at least 2 images: one half trains SAEs, the other measures them; got 1")
    for place, folder in folders.items():
        sae_site(pair.models[place], opened(folder, str(pair.base.cfg.device))[1], f"the SAE {folder}")
    if not folders:
        for model in pair.models.values():
            _check_training(model, pair, config)


def _check_training(model: HookedViT, pair: Pair, config: CompareConfig) -> None:
    from mechvit.saes.activations import ImageStreams

    training, validation = training_parts(pair.fitted_on)
    streams = ImageStreams(model, training, validation, corruptions=config.conditions, config=config.sae_training)
    config.sae_training.saes(streams.widths)
