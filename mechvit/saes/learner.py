"""One SAE in training: sae-lens's SAE and `SAETrainer`, their start from data, a step, a held-out check."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from .config import SAEConfig

if TYPE_CHECKING:
    from sae_lens import TrainingSAE
    from sae_lens.training.sae_trainer import SAETrainer

STEERING_RATE = 0.02
"""By how much the steered L1 coefficient grows in one step when L0 is e times its target or more."""

_LATENTS = 1024
"""Latents whose pre-activations on all starting tokens are held at a time."""


@dataclass
class Learner:
    """An SAE with its trainer and what early stopping remembers."""

    architecture: str
    trainer: SAETrainer
    config: SAEConfig
    best_score: float = -math.inf
    best_epoch: int = -1
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
    def steered(self) -> bool:
        """Whether the sparsity coefficient follows L0."""
        return self.architecture == "standard" and self.config.l1_coefficient is None

    @property
    def l1_coefficient(self) -> float:
        """The present sparsity coefficient; NaN for an architecture without one."""
        return self.trainer.get_coefficients().get("l1", math.nan)

    def step(self, batch: Float[Tensor, "token d_model"]) -> None:
        """One step of sae-lens's trainer, and of the sparsity coefficient where it is steered."""
        self.trainer.maybe_reset_sparsity()
        output = self.trainer.step(batch)
        self.trainer.n_training_steps += 1
        if self.steered:
            codes = output.feature_acts
            active = codes.values().count_nonzero() if codes.is_sparse else codes.count_nonzero()
            excess = math.log(max(int(active), 1) / (self.config.k * len(batch)))
            self.set_l1(self.l1_coefficient * math.exp(STEERING_RATE * max(-1.0, min(1.0, excess))))

    def set_l1(self, value: float) -> None:
        """Use this sparsity coefficient from the next step on."""
        schedule = self.trainer.coefficient_schedulers["l1"]
        schedule.final_value = schedule.current_value = value

    def remember(self, epoch: int, explained_variance: float, l0: float) -> None:
        """Keep these weights if they are the best so far, and count the epoch as stale if they are not.

        A vanilla SAE that has not yet come down to its sparsity explains more and is no candidate: while its L0 is
        steered, an epoch counts from L0 <= 1.25 k on.
        """
        if self.steered and l0 > 1.25 * self.config.k:
            return
        if explained_variance > self.best_score:
            self.best_score, self.best_epoch, self.stale_epochs = explained_variance, epoch, 0
            self.best_weights = {name: value.clone() for name, value in self.sae.state_dict().items()}
        else:
            self.stale_epochs += 1


def build(architecture: str, d_in: int, steps_per_epoch: int, config: SAEConfig, device: torch.device) -> Learner:
    """Make the SAE and its `SAETrainer`, random until `start_from_data`.

    Raises:
        ValueError: more active latents are asked for than there are.
    """
    from sae_lens import (
        BatchTopKTrainingSAE,
        BatchTopKTrainingSAEConfig,
        StandardTrainingSAE,
        StandardTrainingSAEConfig,
    )
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    from .fast import FastBatchTopKTrainingSAE, FastStandardTrainingSAE

    if config.k > config.expansion_factor * d_in:
        raise ValueError(f"k must be at most the {config.expansion_factor * d_in} latents of the SAE; got {config.k}")
    steps = steps_per_epoch * config.epochs
    warm_up = min(round(config.warm_up_fraction * steps), steps - 1)  # the cosine needs a step
    common: dict[str, Any] = {
        "d_in": d_in,
        "d_sae": config.expansion_factor * d_in,
        "device": str(device),
        "normalize_activations": "expected_average_only_in",
    }
    sae: TrainingSAE
    if architecture == "standard":
        fixed = config.l1_coefficient is not None
        l1 = config.l1_coefficient if fixed else 1.0
        settings = StandardTrainingSAEConfig(**common, l1_coefficient=l1, l1_warm_up_steps=warm_up if fixed else 0)
        sae = (FastStandardTrainingSAE if config.fast else StandardTrainingSAE)(settings)
    else:
        settings = BatchTopKTrainingSAEConfig(**common, k=config.k, aux_loss_coefficient=config.aux_loss_coefficient)
        sae = (FastBatchTopKTrainingSAE if config.fast else BatchTopKTrainingSAE)(settings)
    trainer_config = SAETrainerConfig(
        total_training_samples=steps * config.train_batch_size_tokens,
        train_batch_size_samples=config.train_batch_size_tokens,
        lr=config.lr,
        lr_end=config.lr_end,
        lr_scheduler_name="cosineannealing",
        lr_warm_up_steps=warm_up,
        dead_feature_window=max(1, round(config.dead_after_epochs * steps_per_epoch)),
        feature_sampling_window=steps + 1,
        device=str(device),
        autocast=config.autocast,
    )
    return Learner(architecture, SAETrainer(trainer_config, sae, iter(())), config)


@torch.no_grad()
def start_from_data(learner: Learner, x: Float[Tensor, "token d_model"], scale: float) -> None:
    """Start from data: b_dec is the mean, the encoder's size makes the first reconstruction the best of its direction.

    The vanilla SAE also starts at the target sparsity: each latent's bias lets it fire on a share k / d_sae of the
    tokens. `x` is raw; `scale` is what brings its mean norm to sqrt(d_model).

    Raises:
        ValueError: no latent fires, because the activations are all the same.
    """
    from .fast import reconstruct

    sae, k = learner.sae, learner.config.k
    learner.trainer.activation_scaler.scaling_factor = scale
    x = x * scale
    sae.b_dec.data = x.mean(0)
    centred = x - sae.b_dec
    sae.W_dec.data /= sae.W_dec.norm(dim=-1, keepdim=True)
    sae.W_enc.data = sae.W_dec.T.clone().contiguous()
    if learner.architecture == "standard":
        rank = max(1, round(k / sae.cfg.d_sae * len(x)))
        for latents in torch.arange(sae.cfg.d_sae, device=x.device).split(_LATENTS):
            pre = centred @ sae.W_enc[:, latents]
            sae.b_enc.data[latents] = -pre.topk(min(rank + 1, len(x)), dim=0).values[-2:].mean(0)
    along = length = 0.0
    for part in x.split(learner.config.train_batch_size_tokens):
        first = reconstruct(sae, part)[0] - sae.b_dec
        along += float((first * (part - sae.b_dec)).sum())
        length += float(first.pow(2).sum())
    if not along > 0:
        raise ValueError(f"no latent fires on the {len(x)} tokens to start from: the activations do not vary")
    sae.W_enc.data *= along / length
    sae.b_enc.data *= along / length
