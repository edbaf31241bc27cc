"""Fine-tune an image classifier on images with one corruption or a mixture, to a Hugging Face checkpoint.

    mechvit finetune --model runs/photos/models/base \\
        --corruption gaussian_blur_4 --out tuned/gaussian_blur_4
    mechvit finetune --model runs/photos/models/base \\
        --corruption clean gaussian_blur_4 gaussian_noise_4 --out tuned/mixture
    mechvit finetune --model google/vit-base-patch16-224 \\
        --images ILSVRC/imagenet-1k --limit 10000 --validation-limit 1000 \\
        --corruption gaussian_noise_2 --out tuned/gaussian_noise_2
    torchrun --nproc-per-node 4 mechvit finetune --model DIR --images folder:DIR --corruption clean \\
        --config.learning-rate 1e-4 --config.epochs 3 --out tuned/clean

The epoch with the lowest validation loss is kept, or with --config.keep last the last step; OUT/training_log.json
records all epochs.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Literal

from mechvit.cli.options import OutputOptions, PartOptions, images_of, own_first
from mechvit.data.mixture_spec import Mixture
from mechvit.experiment.inputs import (
    check_corruptions,
    check_device,
    corruptions_named,
    local_inputs,
    read_checkpoint,
)
from mechvit.files import check_out
from mechvit.files.reading import read_object
from mechvit.finetuning.config import FinetuneConfig
from mechvit.settings_checks import check_common, check_some
from mechvit.terminal import say


@own_first
@dataclass(frozen=True, kw_only=True)
class Options(PartOptions, OutputOptions):
    """Options of a fine-tuning."""

    model: str
    """Folder or Hub id of a ViTForImageClassification with its image processor."""
    corruption: tuple[str, ...]
    """Condition of every image: FAMILY_LEVEL, as in gaussian_blur_4 (deviation in pixels at the model's input size) or
    gaussian_noise_2 (severity), or clean; or any other condition (docs/conditions.md): pgd_4 attacks the model as it is
    at each step. With several, each image gets one of them in each epoch, all equally often."""
    out: str
    """Folder of the new checkpoint."""
    limit: int | None = None
    """Largest number of training images; None uses the whole part."""
    validation_limit: int | None = None
    """Largest number of images by which the best epoch is selected; None uses the whole part."""
    seed: int = 0
    """Seed of the images' parts and the crops. One seed in all commands keeps tuning and test images apart."""
    device: str | None = None
    """Device to compute on, as in cuda:1 or cpu; CUDA by default if there is a GPU. One GPU is used even if there are
    several; under torchrun, each process uses its own and takes its share of every batch."""
    save_dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Type of the new checkpoint; the old one's by default. Training itself keeps its weights in at least float32."""
    config: FinetuneConfig = field(default_factory=FinetuneConfig)
    """Training settings; the defaults are the paper's."""

    def __post_init__(self) -> None:
        check_common(self)
        check_some(self, "corruption")


def main(options: Options) -> None:
    """Fine-tune, and print the epoch that was kept."""
    members = corruptions_named(options.corruption)
    corruption = members[0] if len(members) == 1 else Mixture(members)
    inputs = local_inputs(options.images, options.model)
    check_device(options.device, processes=True)
    first = os.environ.get("RANK", "0") == "0"  # the process that writes, under torchrun
    if first:
        check_out(options.out, "fine-tuned checkpoint", overwrite=options.overwrite, inputs=inputs, flag="--overwrite")
    from pathlib import Path

    import torch

    from mechvit.finetuning import check_trainable, finetune
    from mechvit.models.processors.image_processor import output_size

    hf_config, processor = read_checkpoint(options.model)
    check_trainable(hf_config, options.model)
    check_corruptions(members, output_size(processor) or 224)
    train, validation = (
        images_of(options, part, hf_config, processor, limit=limit)
        for part, limit in (("finetune", options.limit), ("finetune_validation", options.validation_limit))
    )
    out = finetune(
        options.model,
        train,
        validation,
        options.out,
        corruption=corruption,
        config=options.config,
        save_dtype=None if options.save_dtype is None else getattr(torch, options.save_dtype),
        device=options.device,
        overwrite=options.overwrite,
    )
    if not first:
        return
    log = read_object(Path(out, "training_log.json"), ("epochs", "kept_epoch"))
    last = options.config.keep == "last"
    kept = log["epochs"][-1] if last else next(e for e in log["epochs"] if e["epoch"] == log["kept_epoch"])
    what = f"step {log['kept_step']}, the last," if last else f"epoch {log['kept_epoch']:g} of {len(log['epochs'])}"
    say(
        f"{out}: {what} kept, validation loss {kept['eval_loss']:.3f}, "
        f"accuracy {kept['eval_accuracy']:.3f} on {len(validation)} images"
    )
    if "as_saved" in log:
        rounded = log["as_saved"]
        say(
            f"as saved, in {log['dtype']}: validation loss {rounded['eval_loss']:.3f}, accuracy "
            f"{rounded['eval_accuracy']:.3f} (--save-dtype float32 keeps the weights as they were trained)"
        )
