"""The whole experiment on a tiny scale, and its tables, for the tests that run it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from mechvit.experiment import ExperimentConfig, ImageCounts, Rules
from mechvit.finetuning import FinetuneConfig, ViTShape
from mechvit.saes import SAEConfig


def tiny(out: Path, **changes: object) -> ExperimentConfig:
    """Two corruptions, a ViT of 2 layers and width 16 on 32 px photographs."""
    quick = FinetuneConfig(learning_rate=1e-3, epochs=1, batch_size=32)
    config = ExperimentConfig(
        out=str(out),
        corruptions=("gaussian_blur_2", "gaussian_noise_4"),
        device="cpu",
        counts=ImageCounts(
            train=95,
            validation=38,
            finetune=57,
            finetune_validation=19,
            sae=38,
            sae_validation=19,
            test=38,
            attention=19,
            isolation=24,
        ),
        related=("box_blur_2", "shot_noise_3"),
        shape=ViTShape(image_size=32, d_model=16, n_layers=2, n_heads=2, d_mlp=32),
        base=quick,
        finetuning=quick,
        saes=SAEConfig(epochs=1, k=4, expansion_factor=4, train_batch_size_tokens=128, images_per_batch=16),
        rules=Rules(resamples=50),
    )
    return replace(config, **changes)


def tables(run: Path) -> dict[str, pd.DataFrame]:
    return {path.stem: pd.read_parquet(path) for path in sorted((run / "tables").glob("*.parquet"))}
