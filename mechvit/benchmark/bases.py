"""Bases of the benchmark, trained from scratch on the embedded photographs, and their clean tunings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechvit import files
from mechvit.finetuning import FinetuneConfig, finetune

if TYPE_CHECKING:
    import datasets

    from .config import BenchmarkPlan

CLASSES = {"vit": ("ViTConfig", "ViTForImageClassification"), "ijepa": ("IJepaConfig", "IJepaForImageClassification")}
"""Shape -> the classes of transformers."""
BASE_RATE, TUNE_RATE = 2e-3, 2e-4
"""Learning rates."""
TEST = "test"


def images_of(plan: BenchmarkPlan) -> dict[str, datasets.Dataset]:
    """Return crops of the photographs, resized for the bases: train, finetune and test."""
    from mechvit.data import load_images, prepare

    counts = {"train": plan.train, "finetune": plan.tune, TEST: plan.test}
    processor = _processor(plan)
    return {
        part: prepare(load_images("photos", part, limit=count, image_size=plan.image_size), processor)
        for part, count in counts.items()
    }


def train_base(plan: BenchmarkPlan, shape: str, seed: int, images: datasets.Dataset, out: Path) -> None:
    """Train a base from new weights, on clean images."""
    import torch
    import transformers

    from mechvit.models.interrupts import random_numbers_kept

    names = dict(enumerate(images.features["label"].names))
    config, model = (getattr(transformers, name) for name in CLASSES[shape])
    settings = config(
        image_size=plan.image_size,
        patch_size=8,
        hidden_size=plan.d_model,
        num_hidden_layers=plan.n_layers,
        num_attention_heads=plan.n_heads,
        intermediate_size=plan.d_mlp,
        id2label=names,
        label2id={name: index for index, name in names.items()},
    )
    start = out.with_name(f"{out.name}_new")
    with random_numbers_kept(), files.library_writes(start):
        torch.manual_seed(seed)
        model(settings).save_pretrained(start)
        _processor(plan).save_pretrained(start)
    _train(start, images, out, BASE_RATE, plan.base_epochs, seed)


def tune_clean(plan: BenchmarkPlan, base: Path, seed: int, images: datasets.Dataset, out: Path) -> None:
    """Fine-tune a base on clean images."""
    _train(base, images, out, TUNE_RATE, plan.tune_epochs, seed)


def _train(start: Path, images: datasets.Dataset, out: Path, rate: float, epochs: int, seed: int) -> None:
    config = FinetuneConfig(learning_rate=rate, epochs=epochs, batch_size=32, seed=seed, keep="last")
    finetune(start, images, None, out, config=config, device="cpu", overwrite=True, progress=False)


def _processor(plan: BenchmarkPlan) -> Any:
    from transformers import ViTImageProcessorPil

    return ViTImageProcessorPil(size={"height": plan.image_size, "width": plan.image_size})
