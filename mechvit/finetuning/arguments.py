"""Settings of the trainer, and its device: the one asked for, or under torchrun one GPU per process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from mechvit.files import end_with_parent
from mechvit.models.devices import device_of_process
from mechvit.settings_checks import SettingError

from .config import FinetuneConfig

if TYPE_CHECKING:
    from transformers import TrainingArguments

PATIENCE = 7 * 24 * 3600
"""Seconds that torchrun's processes wait for each other (the first one also writes the checkpoint)."""


def training_arguments(
    config: FinetuneConfig, folder: Path, device: torch.device | str | None, progress: bool, *, validates: bool = True
) -> TrainingArguments:
    """Return the trainer's settings.

    On its own the trainer uses every visible GPU, with as many batches per step (`DataParallel`), and always the first
    one if restricted to one. Here it uses the requested device. Under torchrun each process uses its own GPU and its
    share of a batch.

    Args:
        config: settings of the training.
        folder: folder that the trainer may write to.
        device: a name such as cuda:1 or cpu; None takes CUDA where available.
        progress: show the trainer's progress bar.
        validates: whether there are validation images, on which every epoch ends.

    Raises:
        SettingError: a batch that the processes cannot share equally, or a device that they cannot share.
    """
    from transformers import TrainingArguments

    processes, where = int(os.environ.get("WORLD_SIZE", "1")), device_of_process(device)
    if processes > 1:
        end_with_parent()
    if config.batch_size % processes:
        raise SettingError(
            "batch_size", f"must be a multiple of the {processes} processes, which share it; got {config.batch_size}"
        )
    with torch.cuda.device(where) if where.type == "cuda" and processes == 1 else nullcontext():  # it selects GPU 0
        arguments = TrainingArguments(
            output_dir=str(folder),
            num_train_epochs=config.epochs,
            max_steps=config.planned_steps or -1,
            per_device_train_batch_size=config.batch_size // processes,
            per_device_eval_batch_size=4 * config.batch_size // processes,
            learning_rate=config.learning_rate,
            lr_scheduler_type="linear",
            warmup_steps=config.warmup_fraction,
            weight_decay=config.weight_decay,
            bf16=config.precision == "bf16",
            fp16=config.precision == "fp16",
            use_cpu=where.type == "cpu",
            ddp_timeout=PATIENCE,
            eval_strategy="epoch" if validates else "no",
            logging_strategy="epoch",
            save_strategy="no",
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            label_names=["labels"],
            report_to="none",
            seed=config.seed,
            disable_tqdm=not progress,
        )
    if processes == 1:
        keep_to(arguments, where)
    return arguments


def keep_to(arguments: TrainingArguments, device: torch.device) -> None:
    """Restrict the trainer, and accelerate under it, to this device."""
    vars(arguments).update(_n_gpu=int(device.type == "cuda"), _setup_devices=device)  # cached by `arguments.device`
    assert arguments.distributed_state is not None
    arguments.distributed_state.device = device


def first_process() -> bool:
    """Return whether this process writes: the first of torchrun's, or the only one."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def in_step() -> Iterator[None]:
    """Synchronise torchrun's processes at the end of a training that begins in the context, and end their group."""
    joined = dist.is_available() and dist.is_initialized()
    try:
        yield
        if dist.is_available() and dist.is_initialized():
            dist.barrier()
    finally:
        if dist.is_available() and dist.is_initialized() and not joined:
            dist.destroy_process_group()


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Make cuDNN convolve in float32, not TF32, so that losses equal those of the saved checkpoint."""
    cudnn: Any = torch.backends.cudnn
    switch, name, exact = (
        (cudnn.conv, "fp32_precision", "ieee") if hasattr(cudnn, "conv") else (cudnn, "allow_tf32", False)
    )
    before = getattr(switch, name)
    setattr(switch, name, exact)
    try:
        yield
    finally:
        setattr(switch, name, before)
