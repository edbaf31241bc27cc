"""The recipe of a checkpoint's training: as `finetune` or Hugging Face's trainer recorded it, or as it is given."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mechvit.arguments import checked
from mechvit.data.conditions import as_condition, condition_record, parse_condition
from mechvit.data.corruption_spec import CLEAN, Condition
from mechvit.data.mixture_spec import Mixture
from mechvit.files.reading import read_object
from mechvit.finetuning.config import FinetuneConfig
from mechvit.settings_checks import SettingError, listed

from .trainer_state import state_settings

LOG, STATE, GIVEN, DEFAULT = "training_log.json", "trainer_state.json", "given", "default"
"""Sources of a recipe's settings."""
NEEDED = {
    "corruption": "corruption='CONDITION'",
    "learning_rate": "learning_rate=(RATE)",
    "batch_size": "batch_size=(IMAGES)",
    "epochs": "epochs=(NUMBER)",
}
"""Settings without which no training can be repeated, and how they are given; steps and planned_steps stand for
epochs."""
DEFAULTS: dict[str, Any] = {"weight_decay": 0.0, "warmup_fraction": 0.0, "precision": "fp32"}
"""Settings that are taken where nothing tells them, which is said."""
WORDS = {"corruption": "the condition"}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Training of a checkpoint."""

    corruption: tuple[str, ...]
    """Keys of the conditions that images were shown under; several are a mixture."""
    learning_rate: float
    """AdamW's peak learning rate, which falls linearly to zero."""
    batch_size: int
    """Images per step."""
    epochs: int | None = None
    """Planned passes over the images."""
    planned_steps: int | None = None
    """Steps over which the learning rate falls to zero; None for those of the epochs."""
    steps: int | None = None
    """Steps after which the weights were saved; None for those of `kept_epoch`, or the last of the plan."""
    kept_epoch: float | None = None
    """Epoch after which the weights were saved, where a record tells it and not the steps."""
    weight_decay: float = 0.0
    warmup_fraction: float = 0.0
    precision: str = "fp32"
    seed: int | None = None
    """Seed of the training, where it is known."""
    sources: Mapping[str, str]
    """Setting -> training_log.json, trainer_state.json, given, or default."""
    fingerprints: Mapping[str, str]
    """Condition -> hash of what it did then, of those that their keys do not determine."""

    @property
    def is_plain(self) -> bool:
        """Whether the model was tuned on clean images alone."""
        return self.corruption == (CLEAN.key,)

    def schedule(self, images: int) -> tuple[int, int]:
        """Return the planned steps and those of the saved weights, of a training on this many images.

        Raises:
            SettingError: the weights are of a step beyond the plan.
        """
        each = math.ceil(images / self.batch_size)
        planned = self.planned_steps or (self.epochs or 0) * each
        steps = self.steps or round((self.kept_epoch or 0) * each) or planned
        if steps > planned:
            raise SettingError("steps", f"must be at most the {planned:,} of the whole training; got {steps:,}")
        return planned, steps

    def config(self, images: int, seed: int) -> FinetuneConfig:
        """Return the settings of a training on this many images for exactly as many steps, from another seed."""
        planned, steps = self.schedule(images)
        return FinetuneConfig(
            learning_rate=self.learning_rate,
            epochs=self.epochs or math.ceil(planned * self.batch_size / images),
            batch_size=self.batch_size,
            weight_decay=self.weight_decay,
            warmup_fraction=self.warmup_fraction,
            precision=self.precision,  # type: ignore[arg-type]  # checked there
            seed=seed,
            keep="last",
            planned_steps=planned,
            stop_step=steps,
        )

    def condition(self) -> Condition | Mixture:
        """Return the condition, or the mixture of several.

        Raises:
            ValueError: it is a function or a folder of the user's that was not given or changed since.
        """
        try:
            members = tuple(map(as_condition, self.corruption))
        except ValueError as error:
            raise SettingError(
                "corruption",
                f"must be given as in its training, with the file or the folder that it is of; {error}",
            ) from error
        now = condition_record(members).get("conditions", {})
        if changed := [key for key, was in self.fingerprints.items() if now.get(key, was) != was]:
            raise SettingError("corruption", f"{listed(changed)} does something else than in the training: restore it")
        return members[0] if len(members) == 1 else Mixture(members)

    def to_dict(self) -> dict[str, Any]:
        """Return setting -> value and source, as JSON holds them."""
        known = {each.name: getattr(self, each.name) for each in fields(self) if each.name in self.sources}
        return {name: {"value": value, "source": self.sources[name]} for name, value in known.items()}


@checked
def recipe_of(checkpoint: str | os.PathLike[str], **given: Any) -> Recipe:
    """Read how a checkpoint was trained.

    `training_log.json` beside it, as `finetune` writes it, tells everything. Of Hugging Face's `trainer_state.json` the
    steps and the size of a batch are taken; the learning rates that it logs must be those of a linear schedule. What
    neither tells must be given.

    Args:
        checkpoint: folder of the tuned model; a Hub id has no record.
        given: corruption (keys), learning_rate, batch_size, epochs, steps, weight_decay, warmup_fraction; None for what
            is not given.

    Raises:
        ValueError: what the recipe lacks, by name; a given setting that a record contradicts; a damaged record.
    """
    folder = Path(checkpoint).expanduser()
    asked = {name: value for name, value in given.items() if value is not None}
    if unknown := sorted(asked.keys() - {*NEEDED, *DEFAULTS, "steps", "seed", "planned_steps"}):
        raise ValueError(f"a recipe has no {listed(unknown)}")
    if "corruption" in asked:
        members = tuple(map(parse_condition, asked["corruption"]))
        members = Mixture(members).members if len(members) > 1 else members
        asked["corruption"] = tuple(member.key for member in members)
    log, state = folder / LOG, folder / STATE
    source = LOG if log.is_file() else STATE if state.is_file() else ""
    record = read_object(log, ("kept_epoch",)) if source == LOG else {}
    found = _logged(record) if source == LOG else state_settings(state, asked) if source == STATE else {}
    for name in asked.keys() & found.keys():
        if asked[name] != found[name]:
            raise SettingError(name, f"must be left out: {folder / source} records {found[name]}; got {asked[name]}")
    settings = {**DEFAULTS, **asked, **found}
    missing = [name for name in NEEDED if name not in settings and not (name == "epochs" and "steps" in found)]
    if missing:
        raise ValueError(_lacks(str(checkpoint), source, missing))
    sources = {name: source if name in found else GIVEN if name in asked else DEFAULT for name in settings}
    return Recipe(**settings, sources=sources, fingerprints=record.get("conditions", {}))


def _logged(log: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that `finetune` recorded; logs of earlier versions hold the conditions alone."""
    found: dict[str, Any] = {"corruption": tuple(log.get("members") or (log["corruption"],))}
    recipe = log.get("recipe")
    if recipe is None:
        return found | {"kept_epoch": log["kept_epoch"]}
    known = ("learning_rate", "batch_size", "epochs", "weight_decay", "warmup_fraction", "precision", "seed")
    found |= {name: recipe[name] for name in known}
    each = math.ceil(log["training_images"] / recipe["batch_size"])
    found["planned_steps"] = recipe.get("planned_steps") or recipe["epochs"] * each
    found["steps"] = log.get("kept_step") or round(log["kept_epoch"] * each)
    return found


def _lacks(checkpoint: str, source: str, missing: list[str]) -> str:
    """Return the message on settings that nothing tells."""
    names = listed(WORDS.get(name, name.replace("_", " ")) for name in missing)
    who = f"{checkpoint} records no training (it has no {LOG} and no {STATE})"
    if source:
        who = f"the {source} of {checkpoint} does not tell its training's {names.replace('the ', '')}"
    return f"{who}: give {', '.join(NEEDED[name] for name in missing)}"
