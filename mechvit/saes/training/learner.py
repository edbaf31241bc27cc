"""One SAE in training: sae-lens's SAE and `SAETrainer`, a training step, and the state of early stopping."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Float
from torch import Tensor

from mechvit.saes import distributed as parallel
from mechvit.saes.config import SAESpec, TrainConfig

from .architectures import make_sae
from .sparse_codes import Codes

if TYPE_CHECKING:
    from sae_lens import TrainingSAE
    from sae_lens.saes.sae import TrainStepOutput
    from sae_lens.training.sae_trainer import SAETrainer

STEERING_RATE = 0.02
"""Growth per step of the logarithm of an adjusted sparsity coefficient when L0 is e times its target or more."""


@dataclass
class Learner:
    """An SAE with its trainer and the state of early stopping."""

    spec: SAESpec
    trainer: SAETrainer
    config: TrainConfig
    columns: slice = field(default_factory=lambda: slice(None))
    """Columns of its hook point in a batch."""
    best_score: float = -math.inf
    best_epoch: int = -1
    best_metrics: dict[str, float] = field(default_factory=dict)
    last_metrics: dict[str, float] = field(default_factory=dict)
    stale_epochs: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)

    @property
    def sae(self) -> TrainingSAE:
        """The SAE being trained, on scaled activations."""
        return self.trainer.sae

    @property
    def stopped(self) -> bool:
        """Whether early stopping ended this SAE's training."""
        return self.stale_epochs >= self.config.patience

    @property
    def penalty(self) -> str | None:
        """Name of the sparsity coefficient, `l1` or `l0`; None for an architecture without one."""
        return next(iter(self.trainer.coefficient_schedulers), None)

    @property
    def coefficient(self) -> float:
        """Current sparsity coefficient; NaN for an architecture without one."""
        return math.nan if self.penalty is None else self.trainer.get_coefficients()[self.penalty]

    def set_coefficient(self, value: float) -> None:
        """Set the sparsity coefficient for the next steps."""
        assert self.penalty is not None
        schedule = self.trainer.coefficient_schedulers[self.penalty]
        schedule.final_value = schedule.current_value = value

    def own(self, batch: Float[Tensor, "token columns"]) -> Float[Tensor, "token d_in"]:
        """Return this SAE's columns of a batch, raw, on its device and in its type."""
        return batch[:, self.columns].to(self.sae.device, self.sae.dtype)

    def step(self, batch: Float[Tensor, "token columns"]) -> TrainStepOutput:
        """Take one step of sae-lens's trainer, and adjust the sparsity coefficient if it is steered.

        Args:
            batch: the columns of all hook points and the tokens of all processes, each of which takes its share.
        """
        trainer = self.trainer
        trainer.maybe_reset_sparsity()
        output = trainer.step(self.own(batch[parallel.share(len(batch))]))
        trainer.n_training_steps += 1
        trainer.n_training_samples = trainer.n_training_steps * len(batch)
        parallel.alive_anywhere(trainer.n_forward_passes_since_fired)
        if self.spec.steered:
            active = parallel.summed(count_active(output.feature_acts), self.sae.device)
            excess = math.log(max(active, 1) / (self.spec.k * len(batch)))
            self.set_coefficient(self.coefficient * math.exp(STEERING_RATE * max(-1.0, min(1.0, excess))))
        return output

    def remember(self, epoch: int, metrics: dict[str, float]) -> None:
        """Keep the current weights if they are the best so far; otherwise count the epoch as stale.

        An SAE that is not yet sparse enough explains more variance and is no candidate: if a penalty aims at k, only
        epochs with L0 <= 1.25 k count.

        Args:
            metrics: results of the check, with `explained_variance` and `l0`.
        """
        self.last_metrics = metrics
        if self.spec.aims_at_k and metrics["l0"] > 1.25 * self.spec.k:
            return
        if metrics["explained_variance"] > self.best_score:
            self.best_score, self.best_epoch, self.stale_epochs = metrics["explained_variance"], epoch, 0
            self.best_metrics = metrics
            self.best_weights = {name: value.clone() for name, value in self.sae.state_dict().items()}
        else:
            self.stale_epochs += 1


def count_active(codes: Tensor | Codes) -> int:
    """Count the non-zero entries of codes, dense or sparse."""
    return int((codes.values() if codes.is_sparse else cast(Tensor, codes)).count_nonzero())


def build(
    spec: SAESpec, d_in: int, steps_per_epoch: int, config: TrainConfig, device: torch.device, columns: slice
) -> Learner:
    """Make an SAE and its `SAETrainer`, with random weights until `start_from_data`."""
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    steps = steps_per_epoch * config.epochs
    warm_up = min(round(config.warm_up_fraction * steps), steps - 1)  # the cosine needs at least one step
    sae = make_sae(spec, d_in, config, round(config.l1_warm_up_fraction * steps), device)
    trainer_config = SAETrainerConfig(
        total_training_samples=steps * config.train_batch_size_tokens,
        train_batch_size_samples=config.train_batch_size_tokens,
        lr=spec.lr,
        lr_end=config.lr_end,
        lr_scheduler_name="cosineannealing" if config.lr_schedule == "cosine" else "constant",
        lr_warm_up_steps=warm_up,
        lr_decay_steps=steps - warm_up if config.lr_schedule == "linear" else 0,
        dead_feature_window=max(1, round(config.dead_after_epochs * steps_per_epoch)),
        feature_sampling_window=steps + 1,
        device=str(device),
        autocast=config.autocast,
    )
    return Learner(spec, SAETrainer(trainer_config, sae, iter(())), config, columns)
