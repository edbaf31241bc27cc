"""Training callbacks: the step whose weights are kept, and a progress bar."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import ProgressCallback, TrainerCallback

from mechvit.terminal import printable

from .config import TrainingFailed


class Keep(TrainerCallback):
    """Callback that chooses the step of a training whose weights are saved."""

    kept_epoch: float = 0.0
    """Epoch of the weights that `restore` leaves in the model, with a fraction within an epoch."""
    kept_step: int = 0
    """Their step."""

    def restore(self, model: torch.nn.Module) -> None:
        """Put the chosen weights into the model; without an override those of the last step stay there.

        Raises:
            TrainingFailed: they are not finite.
        """
        if not all(weight.isfinite().all() for weight in model.state_dict().values()):
            raise TrainingFailed("the weights are not finite after the last step: lower the learning rate, or use fp32")


class KeepLast(Keep):
    """Callback that keeps the weights of the last step, after ending the training at `stop_step` if that is given."""

    def __init__(self, stop_step: int | None = None) -> None:
        self.stop_step = stop_step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.stop_step is not None and state.global_step >= self.stop_step:
            control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.kept_epoch, self.kept_step = state.epoch, state.global_step


class KeepNearest(Keep):
    """Callback that keeps the weights at which a quantity of the model, which grows from 0, is nearest to a target.

    The quantity is measured at steps that lie closer together as it nears the target, and the training ends once it is
    reached; where it never is, the nearest is the furthest point.

    Args:
        measure: returns the quantity of a model.
        target: value to reach, above 0.
        longest: largest number of steps between two measurements.
    """

    def __init__(self, measure: Callable[[torch.nn.Module], float], target: float, longest: int) -> None:
        self.measure, self.target, self.longest = measure, target, longest
        self.measured: list[tuple[int, float]] = [(0, 0.0)]
        """Steps, and the quantity after them."""
        self.value = 0.0
        """The quantity of the weights that are kept."""
        self.weights: dict[str, Tensor] = {}
        self._next = 1

    @property
    def reached(self) -> bool:
        """Whether the quantity came up to the target."""
        return self.measured[-1][1] >= self.target

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step = state.global_step
        if step < self._next and step < state.max_steps:
            return
        value = self.measure(kwargs["model"])
        if not self.weights or abs(value - self.target) < abs(self.value - self.target):
            self.value, self.kept_step, self.kept_epoch = value, step, state.epoch
            self.weights = {k: v.detach().cpu().clone() for k, v in kwargs["model"].state_dict().items()}
        before, earlier = self.measured[-1]
        self.measured.append((step, value))
        slope = (value - earlier) / (step - before)
        ahead = (self.target - value) / slope / 2 if slope > 0 else self.longest
        self._next = step + max(1, int(min(ahead, self.longest)))
        control.should_training_stop = self.reached

    def restore(self, model: torch.nn.Module) -> None:
        """Copy the nearest weights into the model, and check them as `Keep.restore` does."""
        model.load_state_dict(self.weights)
        super().restore(model)


class KeepBest(Keep):
    """Callback that keeps the weights of the epoch with the lowest validation loss in memory, and stops after
    `patience` worse ones.

    `load_best_model_at_end` would use a checkpoint on disk, but `transformers` 5 reads that checkpoint's keys, written
    in the old layout, into a model of the new one: it warns, and the last epoch's weights stay.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.best_loss = float("inf")
        self.weights: dict[str, Tensor] = {}
        self.worse = 0

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        loss = kwargs["metrics"]["eval_loss"]
        if loss < self.best_loss:
            self.best_loss, self.worse = loss, 0
            self.kept_epoch, self.kept_step = state.epoch, state.global_step
            self.weights = {k: v.detach().cpu().clone() for k, v in kwargs["model"].state_dict().items()}
        else:
            self.worse += 1
            control.should_training_stop = self.worse >= self.patience

    def restore(self, model: torch.nn.Module) -> None:
        """Copy the best epoch's weights into the model.

        Raises:
            TrainingFailed: the validation loss was never finite, so that no epoch could be kept.
        """
        if not self.weights:
            raise TrainingFailed(
                "the validation loss was not finite in any epoch: lower the learning rate, or use fp32"
            )
        model.load_state_dict(self.weights)


class TrainingBar(ProgressCallback):
    """The trainer's progress bar with a label and the last epoch's metrics, without a printed line per epoch."""

    def __init__(self, label: str) -> None:
        super().__init__()
        self.label = label

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        if self.training_bar is not None:
            self.training_bar.set_description(printable(self.label))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if self.training_bar is not None and logs and "eval_accuracy" in logs:
            self.training_bar.set_postfix(
                validation_loss=f"{logs['eval_loss']:.3f}", validation_accuracy=f"{logs['eval_accuracy']:.3f}"
            )

    def on_prediction_step(
        self, args: Any, state: Any, control: Any, eval_dataloader: Any = None, **kwargs: Any
    ) -> None:
        return
