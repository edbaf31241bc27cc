"""Training callbacks: keeping the best epoch, and a progress bar."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import ProgressCallback, TrainerCallback

from mechvit.terminal import printable

from .config import TrainingFailed


class KeepBest(TrainerCallback):
    """Callback that keeps the weights of the epoch with the lowest validation loss in memory, and stops after
    `patience` worse ones.

    `load_best_model_at_end` would use a checkpoint on disk, but `transformers` 5 reads that checkpoint's keys, written
    in the old layout, into a model of the new one: it warns, and the last epoch's weights stay.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.best_loss = float("inf")
        self.best_epoch = 0.0
        self.weights: dict[str, Tensor] = {}
        self.worse = 0

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        loss = kwargs["metrics"]["eval_loss"]
        if loss < self.best_loss:
            self.best_loss, self.best_epoch, self.worse = loss, state.epoch, 0
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
