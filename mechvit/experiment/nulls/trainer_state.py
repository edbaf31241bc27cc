"""The training that Hugging Face's `trainer_state.json` tells of, and checks that its steps can be repeated."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mechvit.files.reading import read_object
from mechvit.settings_checks import SettingError


def state_settings(path: Path, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return steps, planned_steps and batch_size of a trainer's state.

    Args:
        path: the file.
        asked: settings that were given.

    Raises:
        ValueError: the file is damaged; the weights may be those of two steps and none is given; learning rates that
            are not those of the given one falling linearly.
    """
    state = read_object(path, ("global_step", "max_steps"))
    planned, last, best = state["max_steps"], state["global_step"], state.get("best_global_step")
    if not all(isinstance(steps, int) and steps > 0 for steps in (planned, last)):
        raise ValueError(f"{path} must count its steps; got global_step {last!r} and max_steps {planned!r}")
    found: dict[str, Any] = {"planned_steps": planned, "steps": last}
    is_of_last = path.resolve().parent.name == f"checkpoint-{last}"
    if state.get("best_model_checkpoint") and best != last and not is_of_last:
        if asked.get("steps") not in (best, last):
            raise SettingError(
                "steps",
                f"must be {best} or {last}: {path} names step {best} as the best, and does not tell whether its "
                f"weights were loaded at the end ({best}, load_best_model_at_end) or the last ones stayed ({last})",
            )
        found["steps"] = asked["steps"]
    if state.get("train_batch_size") is not None and "batch_size" not in asked:
        found["batch_size"] = state["train_batch_size"]
    if "learning_rate" in asked:
        _check_rates(path, state.get("log_history") or [], asked, planned)
    return found


def check_batches(path: Path, batch_size: int, images: int) -> None:
    """Refuse a trainer's batches that do not make its epochs of these images.

    The state tells the size of a device's batch, and neither how many devices nor how many batches made a step.

    Raises:
        SettingError: names the size of the batch, which then must be given.
    """
    state = read_object(path, ("max_steps",))
    epochs = state.get("num_train_epochs") or 0
    steps = -(-images // batch_size)
    if epochs * steps == state["max_steps"] or -(-state["max_steps"] // steps) == epochs:
        return
    raise SettingError(
        "batch_size",
        f"must be given, the images of a step over all devices: {path} tells of {state['max_steps']:,} steps in "
        f"{epochs} epochs, and these {images:,} images in batches of {batch_size} make {epochs * steps:,} (gradients "
        "were accumulated, several devices shared a step, or these are other images)",
    )


def _check_rates(path: Path, history: list[dict[str, Any]], asked: Mapping[str, Any], planned: int) -> None:
    """Refuse a learning rate whose linear schedule is not the one that was logged."""
    peak, warmup = asked["learning_rate"], round((asked.get("warmup_fraction") or 0.0) * planned)
    for row in history:
        if "learning_rate" not in row or "step" not in row:
            continue
        near = [_linear(peak, warmup, planned, row["step"] + shift) for shift in (-1, 0, 1)]
        if not min(near) * (1 - 1e-6) <= row["learning_rate"] <= max(near) * (1 + 1e-6):
            raise SettingError(
                "learning_rate",
                f"{peak:g}, rising over {warmup} steps and falling linearly to zero at {planned}, is not what {path} "
                f"logs: {row['learning_rate']:g} at step {row['step']}, where it would be {near[1]:g}",
            )


def _linear(peak: float, warmup: int, planned: int, step: int) -> float:
    """Return the learning rate after a number of steps: up to the peak, then down to zero."""
    if step < warmup:
        return peak * max(step, 0) / warmup
    return peak * max(planned - step, 0) / max(planned - warmup, 1)
