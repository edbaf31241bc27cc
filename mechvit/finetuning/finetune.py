"""Training by `transformers.Trainer` on images that a condition is applied to batch by batch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from mechvit.analysis.condition_images import check_conditions
from mechvit.arguments import checked
from mechvit.data import CLEAN, Condition, Mixture, config_classes
from mechvit.data.conditions import condition_record
from mechvit.data.image_origin import image_revisions
from mechvit.data.training_images import record_training_images
from mechvit.files import library_writes, new_folder, write_json
from mechvit.models.config import no_softmax
from mechvit.models.families import find_family
from mechvit.models.processors.image_processor import read_image_processor

from .config import FinetuneConfig, ViTShape
from .new_heads import with_new_head
from .shown_images import check_images, collator_of

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedModel

    from .callbacks import Keep

CHECKPOINT = "fine-tuned checkpoint"
UNTRAINABLE: dict[str, str] = {
    "DeiTForImageClassificationWithTeacher": "transformers gives it no loss; use a DeiTForImageClassification",
    "Siglip2ForImageClassification": "it takes images cut into patches; use a SiglipForImageClassification",
}
"""Classifiers that `transformers.Trainer` cannot train on ordinary images -> the reason."""


@checked
def finetune(
    checkpoint: str | os.PathLike[str],
    train_images: datasets.Dataset,
    validation_images: datasets.Dataset | None,
    out: str | os.PathLike[str],
    *,
    corruption: Condition | Mixture = CLEAN,
    config: FinetuneConfig | None = None,
    head_of: str | os.PathLike[str] | None = None,
    keep: Keep | None = None,
    save_dtype: torch.dtype | None = None,
    device: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Path:
    """Fine-tune an image classifier under a condition and save it as an ordinary Hugging Face checkpoint.

    Args:
        checkpoint: folder or hub id of an image classifier of a supported family, with its image processor.
        train_images: prepared images (`pixels`, `label`, `image_id`; see `mechvit.data.prepare`).
        validation_images: prepared images by which the epoch to keep is chosen, under the same condition; None where
            the config keeps the last step.
        out: folder of the new checkpoint, written beside and renamed, with `training_log.json` (the corruption, the
            config, the kept epoch, and the losses of all epochs) and `training_images.parquet` (ids and hashes of all
            images, so that comparisons can leave them out: `mechvit.data.without_training_images`).
        corruption: any condition, under which every image is shown, with noise fixed by the config's seed and the
            image's id; an attack (`pgd_4`) attacks the model as it is at each step: adversarial training. Of a mixture
            each image gets one member in each epoch, drawn from the seed, its id and the epoch; a validation image
            keeps the first epoch's, so that losses of epochs can be compared.
        config: the paper's by default: AdamW, lr 5e-5 falling linearly, up to 10 epochs, early stopping.
        head_of: a checkpoint tuned from this one, on other classes: a new head of its class and its classes, drawn from
            the config's seed as transformers initialises it, takes the place of this one's (which may have none).
        keep: the callback that chooses the step whose weights are saved; None takes the config's choice.
        save_dtype: dtype of the new checkpoint; None keeps the old. Weights are trained in float32 at least, whatever
            the checkpoint's dtype, since steps of training are lost in half precision; where rounding them at the end
            changes what the model does, `as_saved` in the log says what it is then.
        device: a name such as cuda:1 or cpu; None takes CUDA where available. One device is used, however many are
            visible; under torchrun each process uses its own GPU and its share of every batch.
        overwrite: replace an earlier fine-tuned checkpoint at `out`.
        progress: show the trainer's progress bar.

    Returns:
        `out`.

    Raises:
        ValueError: no trainable classifier, no image processor, weights that are not exactly those of its config (as
            `HookedViT.from_pretrained` checks them), images that are not prepared, have another size than the model
            takes, or labels it lacks; something at `out` that may not be replaced, or one of `out` and `checkpoint`
            inside the other.
    """
    from mechvit.models.checkpoints.checkpoint_config import read_hf_config
    from mechvit.models.checkpoints.loading import load_hf_model

    from .arguments import exact_convolutions, in_step

    check_trainable(read_hf_config(head_of or checkpoint), os.fspath(head_of or checkpoint))
    processor = read_image_processor(checkpoint)
    if processor is None:
        raise ValueError(f"{checkpoint} has no image processor (preprocessor_config.json); save one beside the model")
    model = load_hf_model(checkpoint)
    config, save_dtype = config or FinetuneConfig(), save_dtype or model.dtype
    if head_of is not None:
        model = with_new_head(model, read_hf_config(head_of), config.seed)
    model = model.to(torch.promote_types(model.dtype, torch.float32))
    inputs = [checkpoint] if os.path.exists(checkpoint) else []
    with in_step(), exact_convolutions(), _written(out, overwrite, inputs) as folder:
        images = train_images, validation_images
        _train(model, processor, *images, folder, corruption, config, save_dtype, device, progress, keep)
    return Path(out)


@checked
def check_trainable(hf_config: Any, where: str) -> str:
    """Return the name of a checkpoint's class if it can be fine-tuned.

    Raises:
        ValueError: the model is of an unsupported kind, has no softmax classifier or contradictory class names, or
            cannot be trained on ordinary images.
    """
    family, architecture = find_family(hf_config.model_type, hf_config.architectures or [], where)
    if architecture in UNTRAINABLE:
        raise ValueError(f"{where}: a {architecture} cannot be fine-tuned: {UNTRAINABLE[architecture]}")
    if not family.architectures[architecture].classifier:
        raise ValueError(
            f"{where}: fine-tuning needs a classification head, and a {architecture} has none; give a checkpoint of a "
            "...ForImageClassification class"
        )
    if (why := no_softmax(hf_config.num_labels, hf_config.problem_type)) is not None:
        raise ValueError(f"{where}: fine-tuning trains a softmax classifier, and this {architecture} is not one: {why}")
    config_classes(hf_config, where)
    return architecture


@checked
def train_from_scratch(
    shape: ViTShape,
    train_images: datasets.Dataset,
    validation_images: datasets.Dataset,
    out: str | os.PathLike[str],
    *,
    config: FinetuneConfig,
    device: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Path:
    """Train a new small ViT on clean images, for an experiment that needs no download.

    Arguments, result and errors are as in `finetune`; initial weights are drawn with the config's seed, and the classes
    are those of the images' `label` column.
    """
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil, set_seed

    from .arguments import exact_convolutions, in_step

    names = train_images.features["label"].names
    set_seed(config.seed)
    model = ViTForImageClassification(
        ViTConfig(
            image_size=shape.image_size,
            patch_size=shape.patch_size,
            hidden_size=shape.d_model,
            num_hidden_layers=shape.n_layers,
            num_attention_heads=shape.n_heads,
            intermediate_size=shape.d_mlp,
            id2label=dict(enumerate(names)),
            label2id={name: index for index, name in enumerate(names)},
        )
    )
    processor = ViTImageProcessorPil(size={"height": shape.image_size, "width": shape.image_size})
    with in_step(), exact_convolutions(), _written(out, overwrite, []) as folder:
        _train(
            model, processor, train_images, validation_images, folder, CLEAN, config, torch.float32, device, progress
        )
    return Path(out)


def _written(
    out: str | os.PathLike[str], overwrite: bool, inputs: Sequence[str | os.PathLike[str]]
) -> AbstractContextManager[Path]:
    """Return the context in which the new checkpoint's folder is written; only the first process writes."""
    from .arguments import first_process

    if not first_process():
        return nullcontext(Path(out))
    return new_folder(out, CHECKPOINT, overwrite=overwrite, inputs=inputs, flag="overwrite")


def _train(
    model: PreTrainedModel,
    processor: Any,
    train_images: datasets.Dataset,
    validation_images: datasets.Dataset | None,
    out: Path,
    corruption: Condition | Mixture,
    config: FinetuneConfig,
    save_dtype: torch.dtype,
    device: str | None,
    progress: bool,
    keep: Keep | None = None,
) -> None:
    """Train, and write the checkpoint into `out`."""
    from transformers import PrinterCallback, ProgressCallback

    from .adversarial import AttackingTrainer, members_of
    from .arguments import first_process, training_arguments
    from .callbacks import KeepBest, KeepLast, TrainingBar
    from .epochs import CountEpochs, EpochRows
    from .rounding import round_weights

    members, parts = members_of(corruption), {"training": train_images}
    if validation_images is not None:
        parts["validation"] = validation_images
    elif keep is None and config.keep == "best":
        raise ValueError("validation_images must be given where the best epoch is kept (keep='last' needs none)")
    for role, images in parts.items():
        check_conditions(members, images)
        check_images(model, processor, images, role)
    arguments = training_arguments(config, out, device, progress, validates=validation_images is not None)
    keep = keep or (KeepLast(config.stop_step) if config.keep == "last" else KeepBest(config.patience))
    rows = train_images.with_format("numpy")
    held_out = None if validation_images is None else validation_images.with_format("numpy")
    mixed = EpochRows(rows) if isinstance(corruption, Mixture) else None
    trainer = AttackingTrainer(
        model=model,
        args=arguments,
        members=members,
        processor=processor,
        attack_seed=config.seed,
        data_collator=collator_of(model, processor, train_images, corruption, arguments.device, config.seed),
        train_dataset=rows if mixed is None else mixed,
        eval_dataset=held_out,
        compute_metrics=_accuracy,
        callbacks=[keep] if mixed is None else [keep, CountEpochs(mixed)],
    )
    # Every epoch's metrics go into the saved log, not to the terminal.
    trainer.remove_callback(PrinterCallback)
    if progress:
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(TrainingBar(out.name.removesuffix(".partial")))
    trainer.train()
    keep.restore(model)
    commit = getattr(model.config, "_commit_hash", None)  # for a base model from the hub
    saved: dict[str, Any] = {} if commit is None else {"base": model.config.name_or_path, "base_revision": commit}
    names = {"training": "image_revisions", "validation": "validation_image_revisions"}
    saved |= {names[role]: commits for role, images in parts.items() if (commits := image_revisions(images))}
    saved |= {"recipe": asdict(config), **{f"{role}_images": len(images) for role, images in parts.items()}}
    saved |= {"dtype": str(round_weights(model, save_dtype)).removeprefix("torch.")}
    if held_out is not None and torch.promote_types(save_dtype, torch.float32) != save_dtype:
        found = trainer.predict(cast(Any, held_out), metric_key_prefix="eval").metrics or {}
        saved["as_saved"] = {key: found[key] for key in ("eval_loss", "eval_accuracy")}
    if not first_process():
        return
    with library_writes(out):
        model.to(getattr(torch, saved["dtype"])).save_pretrained(out)
        processor.save_pretrained(out)
    record_training_images(out, train_images, validation_images)
    _write_log(out / "training_log.json", corruption, saved, trainer.state.log_history, keep)


def _accuracy(prediction: Any) -> dict[str, float]:
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def _write_log(
    path: Path,
    corruption: Condition | Mixture,
    saved: dict[str, Any],
    history: list[dict[str, float]],
    keep: Keep,
) -> None:
    """Write the corruption, the recipe and one row per epoch, without timings, so that equal runs write equal files."""
    members = corruption.members if isinstance(corruption, Mixture) else (corruption,)
    about: dict[str, Any] = {"corruption": corruption.key, "members": [member.key for member in members]}
    about |= {"kept_epoch": keep.kept_epoch, "kept_step": keep.kept_step}
    about |= {**condition_record(members), **saved}
    epochs: dict[float, dict[str, float]] = {}
    for entry in history:
        if "loss" in entry or "eval_loss" in entry:
            row = epochs.setdefault(entry["epoch"], {"epoch": entry["epoch"]})
            row |= {k: entry[k] for k in ("loss", "learning_rate", "eval_loss", "eval_accuracy") if k in entry}
    write_json(path, {**about, "epochs": list(epochs.values())})
