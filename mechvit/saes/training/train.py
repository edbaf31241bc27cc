"""Training of SAEs in lockstep on one stream of activations, and publication of each in sae-lens's format."""

from __future__ import annotations

import math
import os
import shutil
import sys
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mechvit import files
from mechvit.arguments import checked
from mechvit.data.corruption_spec import PAPER_CORRUPTIONS, Condition
from mechvit.models.devices import device_named
from mechvit.models.interrupts import random_numbers_kept
from mechvit.saes import distributed as parallel
from mechvit.saes.activations.streams import ActivationStreams, ImageStreams
from mechvit.saes.config import SAEConfig, TrainConfig
from mechvit.settings_checks import COUNT, check_number
from mechvit.terminal import say

from .checkpoints import SETTINGS, TrainingPosition, check_settings, load_checkpoint
from .initialisation import start_from_data
from .learner import Learner, build
from .loop import Loop
from .publishing import publish, settle
from .training_log import LOGGERS, Logs, check_loggers

if TYPE_CHECKING:
    import datasets
    import pandas as pd

    from mechvit.models import HookedViT

KIND = "SAEs"
HISTORY = ["architecture", "step", "tokens", "epoch", "metric", "value"]


@checked
def train_saes(
    model: HookedViT,
    images: datasets.Dataset,
    validation_images: datasets.Dataset,
    out: str | os.PathLike[str],
    *,
    corruptions: Collection[Condition | str] = PAPER_CORRUPTIONS,
    config: SAEConfig | None = None,
    **options: Any,
) -> dict[str, Path]:
    """Train SAEs on a model's activations of clean and corrupted images, computed when they are needed.

    sae-lens's store provides the activations, and its `SAETrainer` takes every step. All SAEs receive the same batches,
    so that the ViT runs once.

    Args:
        model: any HookedViT with an image processor.
        images: training images, prepared or raw.
        validation_images: held-out images by which the best epoch is selected, corrupted in the same way.
        out: output folder; see `train_on`.
        corruptions: corruptions of the images that do not stay clean, each applied equally often.
        config: settings of the streams and the training; the paper's by default.
        options: further arguments of `train_on`.

    Returns:
        the published folder of each SAE, by name: the architecture and the settings that a sweep varies.

    Raises:
        ValueError: the images are too few for one batch, the model lacks a hook point, activations are not finite
            (names the images), and everything that `train_on` refuses.

    Source: the paper's section 4.4; BatchTopK arXiv:2412.06410.
    """
    config = config or SAEConfig()
    streams = ImageStreams(model, images, validation_images, corruptions=corruptions, config=config)
    return train_on(streams, out, config=config, **options)


@checked
def train_on(
    streams: ActivationStreams,
    out: str | os.PathLike[str],
    *,
    config: TrainConfig,
    device: torch.device | str | None = None,
    inputs: Collection[str | os.PathLike[str]] = (),
    overwrite: bool = False,
    checkpoint_every: int = 1000,
    log_every: int = 20,
    loggers: Collection[str] = (),
    progress: str | None = "SAEs",
) -> dict[str, Path]:
    """Train every SAE of a configuration on one stream of activations, and publish them.

    After each epoch, explained variance is measured on held-out tokens; an SAE that has not improved for
    `config.patience` epochs stops, and its best epoch is published, with the scaling of the activations folded into the
    weights and the threshold of batchtopk and matryoshka_batchtopk set on training tokens.

    A training that was killed resumes from its last checkpoint when called again with the same settings, with identical
    results on the same machine with as many threads and processes; a finished one is not repeated. Under torchrun,
    inside `mechvit.saes.distributed.processes()`, it is one training on all processes, which must share a file system.

    Args:
        streams: `ImageStreams` or another source of activations.
        out: output folder, with a folder `NAME` for each SAE that `sae_lens.SAE.load_from_disk` opens, with a model
            card; `history.parquet` (see `read_history`), `metrics.csv` and `settings.json`. It appears at the end;
            until then the training is in `OUT.partial`, where metrics.csv grows.
        config: settings of the SAEs and their training.
        device: device to train on; that of the activations when None.
        inputs: files and folders that the streams are read from, which `out` must not overlap.
        overwrite: whether to replace a training with other settings.
        checkpoint_every: steps between checkpoints; there is another at the end of every epoch.
        log_every: steps between two logged training batches, and between updates of the progress bar's metrics.
        loggers: `wandb`, `tensorboard`, which receive the metrics in addition to metrics.csv.
        progress: the label of the progress bar; None shows none.

    Returns:
        the published folder of each SAE, by name.

    Raises:
        ValueError: a setting is invalid, an earlier training has other settings (each is named), activations do not
            vary, or an SAE diverged.
    """
    check_number("checkpoint_every", checkpoint_every, COUNT)
    check_number("log_every", log_every, COUNT)
    check_loggers(loggers)
    specs = config.saes(streams.widths)
    size, final = config.train_batch_size_tokens, files.out_folder(out, inputs)
    if size % parallel.size():
        raise ValueError(f"train_batch_size_tokens must be a multiple of the {parallel.size()} processes; got {size}")
    about = {name: value for name, value in streams.about().items() if name != "model_name"}  # the model may have moved
    settings = {"config": asdict(config), "streams": about | {"widths": streams.widths}}
    folder, writes = files.partial(final), parallel.rank() == 0
    with ExitStack() as held:
        if writes:
            held.enter_context(files.Lock(final))
        if not parallel.from_first(_finished(final, folder, settings, overwrite) if writes else None):
            _train(streams, config, folder, final, device, settings, (checkpoint_every, log_every), loggers, progress)
        parallel.wait()
    return {spec.name: Path(out) / spec.name for spec in specs}


def _train(
    streams: ActivationStreams,
    config: TrainConfig,
    folder: Path,
    final: Path,
    device: torch.device | str | None,
    settings: dict[str, Any],
    every: tuple[int, int],
    loggers: Collection[str],
    progress: str | None,
) -> None:
    """Train from the last checkpoint in `folder`, or from the start, and publish to `final`; see `train_on`."""
    writes, size = parallel.rank() == 0, config.train_batch_size_tokens
    with random_numbers_kept():
        sample = _sample(streams, 4 * size)
        where = sample.device if device is None else device_named(device)
        with random_numbers_kept([where] if where.type == "cuda" else []):
            learners = _start(streams, config, sample, where)
            position = load_checkpoint(folder, learners) or TrainingPosition()
            logs = Logs(folder, position.step, loggers, settings) if writes else None
            loop = Loop(learners, streams, config, folder, logs, *every)
            loop.run(position, progress)
            settle(learners, streams)
            if writes:
                _finish(loop, position, final)


@checked
def read_history(out: str | os.PathLike[str]) -> pd.DataFrame:
    """Return the training history of the SAEs in a folder of `train_saes`, one row per check and metric.

    Returns:
        architecture (the SAE's name), step, tokens (seen in training), epoch, metric, value. The metrics are
        explained_variance, l0 and loss (mean squared error on scaled activations) on held-out tokens, dead_fraction
        (latents that have not fired for `dead_after_epochs`), and l1_coefficient or l0_coefficient of an SAE with a
        penalty.

    Raises:
        ValueError: the folder has no history.
    """
    import pandas as pd

    path = Path(out) / "history.parquet"
    if not path.is_file():
        raise ValueError(f"{path} does not exist; give a folder that train_saes wrote")
    return pd.read_parquet(path)


def _finished(final: Path, folder: Path, settings: dict[str, Any], overwrite: bool) -> bool:
    """Return whether the training is done; otherwise prepare `folder` for it to start or resume.

    Raises:
        ValueError: there is a training with other settings, or something other than a training.
    """
    files.recover(final)
    files.adopt(final, KIND)
    files.adopt(folder, KIND)
    if not (folder / SETTINGS).is_file():  # killed before it began
        files.check_replaceable(folder, KIND)
        files.remove(folder)
    for path in (final, folder):
        if not path.is_dir() or files.is_empty(path):
            continue
        differences = check_settings(path, settings)
        if differences and not overwrite:
            raise ValueError(
                f"{path} holds a training with other settings: {'; '.join(differences)}. Give another out, or "
                "overwrite to replace it"
            )
        if differences:
            files.check_replaceable(path, KIND)
        if differences and path == folder:
            files.remove(folder)
        if path == final and not differences:
            if folder.is_dir() and not check_settings(folder, settings):
                _tidy(folder)  # killed while tidying up
            return True
    if files.read_marker(folder) is None:
        files.begin(folder, KIND)
    files.write_json(folder / SETTINGS, settings)
    return False


def _tidy(folder: Path) -> None:
    """Remove what remains of a training's working folder, except files that it did not write."""
    if kept := files.remove(folder):
        say(f"{folder} is left, with files that mechvit did not write: {', '.join(kept)}", file=sys.stderr)


def _sample(streams: ActivationStreams, wanted: int) -> Float[Tensor, "token columns"]:
    """Return up to `wanted` training tokens for the initialisation."""
    found: list[Tensor] = []
    for tokens in streams.calibration():
        found.append(tokens)
        if sum(map(len, found)) >= wanted:
            break
    return torch.cat(found)[:wanted]


def _start(streams: ActivationStreams, config: TrainConfig, sample: Tensor, device: torch.device) -> list[Learner]:
    """Return every SAE in its state before the first step."""
    steps, ends, columns = streams.steps_per_epoch(config.train_batch_size_tokens), 0, {}
    for name, width in streams.widths.items():
        columns[name] = slice(ends, ends + width)
        ends += width
    learners = []
    for spec in config.saes(streams.widths):
        own, d_in = columns[spec.hook_name], streams.widths[spec.hook_name]
        seed_generators(config.seed, device)  # an SAE's start does not depend on the other SAEs
        learner = build(spec, d_in, steps, config, device, own)
        x = sample[:, own].to(device, torch.float32)
        start_from_data(learner, x, math.sqrt(d_in) / float(x.norm(dim=-1).mean()))
        parallel.share_training(learner.sae)
        learners.append(learner)
    return learners


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed the CPU's generator and this GPU's; `torch.manual_seed` would seed all GPUs, which others may be using."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def _finish(loop: Loop, position: TrainingPosition, final: Path) -> None:
    """Publish into the training's folder, rename the result to `final`, and remove the rest."""
    import pandas as pd

    ready = loop.folder / files.READY
    files.note(ready, under=True)
    files.remove(ready)
    files.begin(ready, KIND)
    for learner in loop.learners:
        publish(learner, loop.streams, ready / learner.spec.name)
    files.write_table(ready / "history.parquet", pd.DataFrame(position.history, columns=HISTORY))
    assert loop.logs is not None
    loop.logs.close()
    for name in ("metrics.csv", SETTINGS):
        files.write_bytes(ready / name, (loop.folder / name).read_bytes())
    for name in LOGGERS:
        if (loop.folder / name).is_dir():
            with files.library_writes(ready):
                shutil.copytree(loop.folder / name, ready / name, symlinks=True)
    files.swap(ready, final)
    _tidy(loop.folder)
