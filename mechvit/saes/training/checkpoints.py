"""Checkpoints from which a training resumes exactly: safetensors and JSON, written atomically.

A training works in `OUT.partial`: `settings.json` identifies it, and `step-N-epoch-E` is the checkpoint after N steps,
in epoch E. A checkpoint is written under a temporary name and renamed, and older ones are removed afterwards: the
newest is always complete. `OUT` itself appears at the end.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from mechvit import files
from mechvit.models.checkpoints.stored_files import read_object, read_tensors

from .learner import Learner

SETTINGS = "settings.json"


@dataclass
class TrainingPosition:
    """Progress of a training."""

    epoch: int = 0
    """Index of the current epoch."""
    batches: int = 0
    """Batches of this epoch already used."""
    step: int = 0
    """Batches used since the start."""
    stream: Any = None
    """The epoch's own `state_dict` (JSON), if it has one."""
    history: list[list[Any]] = field(default_factory=list)
    """One row per check and metric; see `read_history`."""


def save_checkpoint(folder: Path, position: TrainingPosition, learners: list[Learner]) -> None:
    """Write a checkpoint into a training's folder, and remove older ones once it is complete."""
    final = folder / f"step-{position.step:09d}-epoch-{position.epoch:04d}"
    if final.is_dir():  # complete, and of this position
        return
    names = [*(f"{learner.spec.name}.safetensors" for learner in learners), "random.safetensors", "state.json"]
    with files.whole_folder(final, names) as beside:
        state: dict[str, Any] = {"position": asdict(position), "learners": {}}
        for learner in learners:
            tensors, state["learners"][learner.spec.name] = learner_state(learner)
            save_file(tensors, beside / f"{learner.spec.name}.safetensors")
        save_file(random_state(learners[0].sae.device), beside / "random.safetensors")
        files.write_synced(beside / "state.json", (json.dumps(state) + "\n").encode())
    for older in _checkpoints(folder):
        if older != final:
            files.clear(older)


def load_checkpoint(folder: Path, learners: list[Learner]) -> TrainingPosition | None:
    """Restore learners from the newest checkpoint and return its position; without one, change nothing, return None."""
    found = sorted(_checkpoints(folder))
    if not found:
        return None
    state = read_object(found[-1] / "state.json", ("position", "learners"))
    for learner in learners:
        tensors = read_tensors(found[-1] / f"{learner.spec.name}.safetensors")
        restore_learner(learner, tensors, state["learners"][learner.spec.name])
    random = read_tensors(found[-1] / "random.safetensors")
    torch.set_rng_state(random["cpu"])
    device = learners[0].sae.device
    if "cuda" in random and device.type == "cuda":
        torch.cuda.set_rng_state(random["cuda"], device)
    return TrainingPosition(**state["position"])


def _checkpoints(folder: Path) -> Iterator[Path]:
    return (path for path in folder.glob("step-*") if path.suffix != ".partial")


def random_state(device: torch.device) -> dict[str, Tensor]:
    """Return the state of the CPU's random generator, and of the device's if it is a GPU."""
    state = {"cpu": torch.get_rng_state()}
    return state | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else state


_COUNTERS = ("act_freq_scores", "n_forward_passes_since_fired")
_NUMBERS = ("n_training_steps", "n_training_samples", "n_frac_active_samples")
_REMEMBERED = ("best_score", "best_epoch", "best_metrics", "last_metrics", "stale_epochs")


def learner_state(learner: Learner) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return everything that an SAE's next steps depend on, and its best weights: tensors, and the rest as JSON."""
    trainer = learner.trainer
    optimizer = trainer.optimizer.state_dict()
    tensors = {f"weights.{name}": value for name, value in learner.sae.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in learner.best_weights.items()}
    tensors |= {f"counter.{name}": getattr(trainer, name) for name in _COUNTERS}
    for index, moments in optimizer["state"].items():
        tensors |= {f"adam.{index}.{name}": value for name, value in moments.items()}
    rest = {
        "optimizer": optimizer["param_groups"],
        "schedule": trainer.lr_scheduler.state_dict(),
        "coefficients": {name: vars(schedule) for name, schedule in trainer.coefficient_schedulers.items()},
        "numbers": {name: getattr(trainer, name) for name in _NUMBERS},
        "remembered": {name: getattr(learner, name) for name in _REMEMBERED},
        "scale": trainer.activation_scaler.scaling_factor,
        "last_threshold": getattr(learner.sae, "_last_threshold", None),
    }
    return {name: value.detach().contiguous() for name, value in tensors.items()}, rest


@torch.no_grad()
def restore_learner(learner: Learner, tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> None:
    """Restore a learner made by `build` to a state returned by `learner_state`."""

    def below(prefix: str) -> dict[str, Tensor]:
        return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}

    trainer, device = learner.trainer, learner.sae.device
    learner.sae.load_state_dict(below("weights."))
    learner.best_weights = {name: value.to(device) for name, value in below("best.").items()}
    for name in _COUNTERS:
        setattr(trainer, name, tensors[f"counter.{name}"].to(device))
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in below("adam.").items():
        index, _, name = key.partition(".")
        moments.setdefault(int(index), {})[name] = value
    groups = [group | {"betas": tuple(group["betas"])} for group in rest["optimizer"]]
    trainer.optimizer.load_state_dict({"state": moments, "param_groups": groups})
    trainer.lr_scheduler.load_state_dict(rest["schedule"])
    for name, values in rest["coefficients"].items():
        vars(trainer.coefficient_schedulers[name]).update(values)
    for name, value in rest["numbers"].items():
        setattr(trainer, name, value)
    for name, value in rest["remembered"].items():
        setattr(learner, name, value)
    trainer.activation_scaler.scaling_factor = rest["scale"]
    if rest["last_threshold"] is not None:
        learner.sae._last_threshold = rest["last_threshold"]


def changed(there: Any, here: Any, name: str = "") -> list[str]:
    """Return each setting that differs between two JSON values, as `name was A and is B`."""
    if isinstance(there, dict) and isinstance(here, dict):
        keys = dict.fromkeys((*there, *here))
        parts = [changed(there.get(key), here.get(key), f"{name}.{key}" if name else key) for key in keys]
        return [line for part in parts for line in part]
    return [] if there == here else [f"{name} was {json.dumps(there)} and is {json.dumps(here)}"]


def check_settings(folder: Path, settings: Mapping[str, Any]) -> list[str]:
    """Return the differences between these settings and those of the training in a folder.

    Raises:
        ValueError: the folder holds something other than a training.
    """
    path = folder / SETTINGS
    if path.is_file():
        return changed(read_object(path), json.loads(json.dumps(settings)))
    if (folder / "history.parquet").is_file():
        return [f"it has no {SETTINGS}, so that its settings are not known"]
    raise ValueError(f"{folder} exists and is no earlier training of SAEs (it has no {SETTINGS}): give another out")
