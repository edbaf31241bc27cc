"""The training loop: steps in lockstep, metrics, checkpoints, and a check on held-out tokens after each epoch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mechvit.saes import distributed as parallel
from mechvit.saes.activations.streams import ActivationStreams
from mechvit.saes.config import TrainConfig
from mechvit.terminal import progress_bar

from .checkpoints import TrainingPosition, save_checkpoint
from .learner import Learner, count_active
from .sparse_step import reconstruct
from .training_log import Logs

if TYPE_CHECKING:
    from sae_lens.saes.sae import TrainStepOutput
    from tqdm import tqdm

_SHOWN = 3
"""Number of SAEs whose metrics the progress bar shows."""


@dataclass
class Loop:
    """One training, from any position to its end."""

    learners: list[Learner]
    streams: ActivationStreams
    config: TrainConfig
    folder: Path
    """Folder of the checkpoints."""
    logs: Logs | None
    """None on all processes except the first."""
    checkpoint_every: int
    log_every: int

    def run(self, position: TrainingPosition, progress: str | None) -> None:
        """Train to the end and update `position` with the progress and the measurements."""
        steps = self.streams.steps_per_epoch(self.config.train_batch_size_tokens)
        hidden = progress is None or self.logs is None
        with progress_bar(
            label=None if hidden else progress,
            total=steps * self.config.epochs,
            initial=position.step,
            unit="batch",
            leave=False,
        ) as bar:
            while position.epoch < self.config.epochs:
                active = [learner for learner in self.learners if not learner.stopped]
                if not active:
                    break
                self._epoch(position, active, steps, bar)
                self._check(position, active)
                position.epoch, position.batches, position.stream = position.epoch + 1, 0, None
                self._save(position)

    def _epoch(self, position: TrainingPosition, active: list[Learner], steps: int, bar: tqdm) -> None:
        """Take the remaining steps of an epoch."""
        stream, batches = _resumed(self.streams.epoch(position.epoch), position)
        for batch in batches:
            if len(batch) != self.config.train_batch_size_tokens:
                raise ValueError(
                    f"the streams must give batches of train_batch_size_tokens = "
                    f"{self.config.train_batch_size_tokens}; got {len(batch)}"
                )
            logged = (position.step + 1) % self.log_every == 0
            shown = []
            for learner in active:
                output = learner.step(batch)
                if logged:
                    found = running(learner, output)
                    shown.append(_short(learner, found))
                    self._write(learner, position.epoch, "train", found)
            position.step, position.batches = position.step + 1, position.batches + 1
            bar.update()
            if logged:
                bar.set_postfix_str("; ".join(shown[:_SHOWN]) + ("; …" if len(shown) > _SHOWN else ""))
            if position.step % self.checkpoint_every == 0 and position.batches < steps:
                position.stream = stream.state_dict() if hasattr(stream, "state_dict") else None
                self._save(position)
        assert position.batches == steps, f"the stream gave {position.batches} batches instead of {steps}"

    def _check(self, position: TrainingPosition, active: list[Learner]) -> None:
        """Measure on held-out tokens, update early stopping, and record the metrics."""
        found = parallel.from_first(check(active, self.streams.held_out()))
        for learner, metrics in zip(active, found, strict=True):
            learner.remember(position.epoch, metrics)
            trainer = learner.trainer
            at = [learner.spec.name, trainer.n_training_steps, trainer.n_training_samples, position.epoch]
            position.history += [[*at, metric, value] for metric, value in metrics.items()]
            self._write(learner, position.epoch, "held_out", metrics)

    def _write(self, learner: Learner, epoch: int, split: str, metrics: dict[str, float]) -> None:
        if self.logs is None:
            return
        trainer = learner.trainer
        at = (learner.spec.name, trainer.n_training_steps, trainer.n_training_samples, epoch, split)
        self.logs.write((*at, metric, value) for metric, value in metrics.items())

    def _save(self, position: TrainingPosition) -> None:
        if self.logs is not None:
            save_checkpoint(self.folder, position, self.learners)


def _resumed(stream: Iterable[Tensor], position: TrainingPosition) -> tuple[Any, Iterator[Tensor]]:
    """Return an epoch's stream, and an iterator over its batches from the position on."""
    if position.stream is not None:
        stream.load_state_dict(position.stream)  # type: ignore[attr-defined]
        return stream, iter(stream)
    return stream, islice(stream, position.batches, None)


@torch.no_grad()
def running(learner: Learner, output: TrainStepOutput) -> dict[str, float]:
    """Return the metrics of one training batch (this process's share): cheap, and noisier than a check."""
    x, x_hat = output.sae_in.float(), output.sae_out.float()
    unexplained = (x_hat - x).square().sum() / (x - x.mean(0)).square().sum()
    found = {
        "explained_variance": 1 - float(unexplained),
        "l0": count_active(output.feature_acts) / len(x),
        "dead_fraction": float(learner.trainer.dead_neurons.float().mean()),
        "loss": float(output.loss),
        "lr": learner.trainer.optimizer.param_groups[0]["lr"],
    }
    return found | _coefficient(learner)


@torch.no_grad()
def check(learners: list[Learner], held_out: Iterator[Float[Tensor, "token columns"]]) -> list[dict[str, float]]:
    """Compute explained variance, L0 and mean squared error of SAEs in training, in one pass over held-out tokens.

    Raises:
        ValueError: an SAE has diverged, or there are no tokens.
    """
    from sae_lens.evals import ExplainedVarianceCalculator

    for learner in learners:
        learner.sae.eval()
    variances = [ExplainedVarianceCalculator() for _ in learners]
    active, squared, n_tokens = [0.0] * len(learners), [0.0] * len(learners), 0
    for tokens in held_out:
        n_tokens += len(tokens)
        for i, learner in enumerate(learners):
            scaled = learner.trainer.activation_scaler(learner.own(tokens))
            for part in scaled.split(learner.config.train_batch_size_tokens):
                reconstruction, l0 = reconstruct(learner.sae, part)
                variances[i].add_batch(reconstruction, part)
                squared[i] += float((reconstruction - part).pow(2).sum())
                active[i] += l0 * len(part)
    if not n_tokens:
        raise ValueError("there are no held-out tokens to check the SAEs on")
    found = []
    for i, learner in enumerate(learners):
        metrics = {
            "explained_variance": variances[i].compute(),
            "l0": active[i] / n_tokens,
            "loss": squared[i] / n_tokens,
            "dead_fraction": float(learner.trainer.dead_neurons.float().mean()),
        }
        if not all(map(math.isfinite, metrics.values())):
            raise ValueError(f"the {learner.spec.name} SAE diverged ({metrics}); use a lower lr than {learner.spec.lr}")
        found.append(metrics | _coefficient(learner))
    return found


def _coefficient(learner: Learner) -> dict[str, float]:
    return {} if learner.penalty is None else {f"{learner.penalty}_coefficient": learner.coefficient}


def _short(learner: Learner, found: dict[str, float]) -> str:
    dead = round(found["dead_fraction"] * learner.sae.cfg.d_sae)
    return f"{learner.spec.name} EV {found['explained_variance']:.3f}, L0 {found['l0']:.0f}, {dead} dead"
