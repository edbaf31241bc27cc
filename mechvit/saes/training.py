"""Training SAEs in lockstep on one stream of activations, and publishing each as stock sae-lens opens it."""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from mechvit.data.spec import CLEAN, PAPER_CORRUPTIONS, Corruption

from .config import SAEConfig
from .fast import reconstruct
from .learner import Learner, build, start_from_data
from .store import ImageActivationsStore, hook_name

if TYPE_CHECKING:
    import datasets
    import pandas as pd

    from mechvit.models import HookedViT

HELD_OUT_EPOCH = 1_000_000
"""The epoch number of held-out and calibration streams: their corruptions are the same at every check."""


def train_saes(
    model: HookedViT,
    images: datasets.Dataset,
    validation_images: datasets.Dataset,
    out: str | os.PathLike[str],
    *,
    corruptions: Collection[Corruption] = PAPER_CORRUPTIONS,
    config: SAEConfig | None = None,
    progress: str | None = "SAEs",
) -> dict[str, Path]:
    """Train one SAE of each architecture on a model's residuals of clean and corrupted images, and publish them.

    sae-lens's store gives the activations, its `SAETrainer` takes every step. All SAEs see the same batches, so that
    the ViT runs once. After each epoch explained variance is measured on held-out images; an SAE that has not improved
    for `config.patience` epochs stops, and its best epoch is published: the scaling of the activations folded into the
    weights, batchtopk's threshold set on training images.

    Args:
        model: any HookedViT with an image processor.
        images: prepared or raw, the training images.
        validation_images: held-out images that choose the epoch; corrupted alike.
        out: a folder, written beside and renamed: `ARCHITECTURE/` as `sae_lens.SAE.load_from_disk` opens it, and
            `history.parquet` (see `read_history`).
        corruptions: what the images that do not stay clean get, each equally often.
        config: the paper's by default.
        progress: the label of the progress bar; None shows none.

    Returns:
        architecture -> its published folder.

    Raises:
        ValueError: too few images for one batch, a layer that the model lacks, activations that are not finite.

    Source: the paper's section 4.4; BatchTopK arXiv:2412.06410.
    """
    config = config or SAEConfig()
    corruptions = tuple(c for c in corruptions if c != CLEAN)
    streams = _Streams(model, images, validation_images, corruptions, config)
    with torch.random.fork_rng(devices=[model.cfg.device] if model.cfg.device.type == "cuda" else []):
        sample = streams.sample()
        scale = math.sqrt(model.cfg.d_model) / float(sample.norm(dim=-1).mean())
        learners = []
        for name in config.architectures:
            torch.manual_seed(config.seed)  # an SAE's start does not depend on which others are trained beside it
            learners.append(build(name, model.cfg.d_model, streams.epoch(0).n_batches, config, model.cfg.device))
            start_from_data(learners[-1], sample, scale)
        history = _train(learners, streams, config, progress)
        final = Path(out)
        beside = final.with_name(final.name + ".partial")
        shutil.rmtree(beside, ignore_errors=True)
        for learner in learners:
            _publish(learner, scale, streams, beside / learner.architecture)
    history.to_parquet(beside / "history.parquet", index=False)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(beside, final)
    return {name: final / name for name in config.architectures}


def read_history(out: str | os.PathLike[str]) -> pd.DataFrame:
    """The training of the SAEs in a folder of `train_saes`, one row a check and metric.

    Returns:
        architecture, step, tokens (seen in training), epoch, metric, value. The metrics are explained_variance, l0 and
        loss (mean squared error on scaled activations) on held-out tokens, dead_fraction (latents that have not fired
        for `dead_after_epochs`), and for a vanilla SAE l1_coefficient.

    Raises:
        ValueError: the folder has no history.
    """
    import pandas as pd

    path = Path(out) / "history.parquet"
    if not path.is_file():
        raise ValueError(f"{path} does not exist; give a folder that train_saes wrote")
    return pd.read_parquet(path)


@dataclasses.dataclass(frozen=True)
class _Streams:
    """The activations that training, checks and calibration read."""

    model: HookedViT
    images: datasets.Dataset
    validation_images: datasets.Dataset
    corruptions: tuple[Corruption, ...]
    config: SAEConfig

    def epoch(self, number: int) -> ImageActivationsStore:
        """The mixed training tokens of one epoch."""
        return ImageActivationsStore(
            self.model, self.images, corruptions=self.corruptions, config=self.config, epoch=number
        )

    def in_order(self, images: datasets.Dataset) -> Iterator[Float[Tensor, "token d_model"]]:
        """Every token of these images, unmixed, batch by batch of images."""
        tokens = dataclasses.replace(self.config, train_batch_size_tokens=1)
        store = ImageActivationsStore(
            self.model, images, corruptions=self.corruptions, config=tokens, epoch=HELD_OUT_EPOCH, shuffle=False
        )
        return store._iterate_filtered_activations()

    def calibration(self) -> Iterator[Float[Tensor, "token d_model"]]:
        """The tokens of the first training images."""
        return self.in_order(self.images.select(range(min(self.config.calibration_images, len(self.images)))))

    def sample(self) -> Float[Tensor, "token d_model"]:
        """Training tokens to start from, at most about four batches of them."""
        found, wanted = [], 4 * self.config.train_batch_size_tokens
        for tokens in self.calibration():
            found.append(tokens)
            if sum(map(len, found)) >= wanted:
                break
        return torch.cat(found)[:wanted]


def _train(learners: list[Learner], streams: _Streams, config: SAEConfig, progress: str | None) -> pd.DataFrame:
    import pandas as pd

    rows: list[tuple[Any, ...]] = []
    n_batches = streams.epoch(0).n_batches
    total = n_batches * config.epochs
    with tqdm(total=total, desc=progress, unit="batch", disable=progress is None, leave=False) as bar:
        for epoch in range(config.epochs):
            active = [learner for learner in learners if not learner.stopped]
            if not active:
                break
            torch.manual_seed(config.seed * 1_000_003 + epoch)
            for batch in streams.epoch(epoch):
                for learner in active:
                    learner.step(batch)
                bar.update()
            shown = {}
            for learner in active:
                found = check(learner, streams.in_order(streams.validation_images))
                learner.remember(epoch, found["explained_variance"], found["l0"])
                step = learner.trainer.n_training_steps
                at = (learner.architecture, step, learner.trainer.n_training_samples, epoch)
                rows += [(*at, metric, value) for metric, value in found.items()]
                shown[learner.architecture] = (
                    f"EV {found['explained_variance']:.3f}, L0 {found['l0']:.0f}, dead {found['dead_fraction']:.0%}"
                )
            bar.set_postfix(shown)
    return pd.DataFrame(rows, columns=["architecture", "step", "tokens", "epoch", "metric", "value"])


@torch.no_grad()
def check(learner: Learner, held_out: Iterator[Float[Tensor, "token d_model"]]) -> dict[str, float]:
    """Explained variance per dimension, L0 and mean squared error of an SAE in training, on held-out tokens."""
    from sae_lens.evals import ExplainedVarianceCalculator

    sae, variance = learner.sae, ExplainedVarianceCalculator()
    active = squared = n_tokens = 0.0
    for tokens in held_out:
        x = learner.trainer.activation_scaler(tokens)
        for part in x.split(learner.config.train_batch_size_tokens):
            reconstruction, l0 = reconstruct(sae, part)
            variance.add_batch(reconstruction, part)
            squared += float((reconstruction - part).pow(2).sum())
            active += l0 * len(part)
            n_tokens += len(part)
    found = {
        "explained_variance": variance.compute(),
        "l0": active / n_tokens,
        "loss": squared / n_tokens,
        "dead_fraction": float(learner.trainer.dead_neurons.float().mean()),
    }
    if not all(map(math.isfinite, found.values())):
        raise ValueError(f"the {learner.architecture} SAE diverged ({found}); use a lower lr than {learner.config.lr}")
    return found | ({"l1_coefficient": learner.l1_coefficient} if learner.architecture == "standard" else {})


@torch.no_grad()
def _publish(learner: Learner, scale: float, streams: _Streams, folder: Path) -> None:
    """Write the best epoch's weights as an inference SAE that takes raw activations."""
    config, sae = learner.config, learner.sae
    if learner.best_weights:
        sae.load_state_dict(learner.best_weights)
    else:
        warnings.warn(
            f"the {learner.architecture} SAE's L0 never came down to 1.25 k = {1.25 * config.k:g}: its last epoch is "
            "published; train longer, or give an l1_coefficient",
            stacklevel=4,
        )
    if learner.architecture == "batchtopk":
        sae.topk_threshold.fill_(_threshold(learner, streams.calibration()))
    else:
        sae.cfg.l1_coefficient = learner.l1_coefficient
    sae.fold_activation_norm_scaling_factor(scale)
    metadata = {
        "hook_name": hook_name(streams.model, config.hook_layer),
        "hook_tokens": config.tokens,
        "corruptions": [c.key for c in streams.corruptions],
        "clean_fraction": config.clean_fraction,
        "training_tokens": learner.trainer.n_training_samples,
        "best_epoch": learner.best_epoch,
        "explained_variance": learner.best_score if learner.best_weights else None,
        "activation_scale": scale,
    }
    for name, value in metadata.items():
        setattr(sae.cfg.metadata, name, value)
    sae.save_inference_model(folder)


def _threshold(learner: Learner, tokens: Iterator[Float[Tensor, "token d_model"]]) -> float:
    """The mean, over batches of training tokens, of the smallest pre-activation that the batch's top k x batch keeps.

    sae-lens's own threshold is a moving average of the same that starts at 0 and lags behind by hundreds of steps.
    """
    size = learner.config.train_batch_size_tokens
    smallest: list[float] = []
    for part in torch.cat(list(tokens)).split(size):
        codes = learner.sae.encode(learner.trainer.activation_scaler(part))
        if (codes > 0).any() and (len(part) == size or not smallest):
            smallest.append(float(codes[codes > 0].min()))
    if not smallest:
        raise ValueError("no latent of the batchtopk SAE fires on the calibration images; train it longer")
    return sum(smallest) / len(smallest)
