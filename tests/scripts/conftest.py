"""Checkpoints and SAEs that the scripts' tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from script_calls import call

from mechvit.data import load_images

CORRUPTIONS = ("gaussian_blur_2", "gaussian_noise_4")


@pytest.fixture(scope="session")
def checkpoints(tiny_hf, tiny_processor, tmp_path_factory) -> dict[str, str]:
    """A random ViT of the photographs' 19 classes as `base`, and one with every weight moved, as if tuned on blur 2."""
    from transformers import ViTConfig, ViTForImageClassification

    classes = load_images("photos", "test", limit=19, image_size=32).features["label"].names
    config = ViTConfig.from_dict(tiny_hf.config.to_dict() | {"id2label": dict(enumerate(classes)), "label2id": None})
    folder, saved = tmp_path_factory.mktemp("models"), {}
    model = ViTForImageClassification(config)
    for seed, (name, moved) in enumerate({"base": 0.25, "gaussian_blur_2": 0.35}.items()):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(moved * torch.randn(parameter.shape, generator=generator))
        model.save_pretrained(folder / name)
        tiny_processor.save_pretrained(folder / name)
        saved[name] = str(folder / name)
    return saved


@pytest.fixture(scope="session")
def saes(checkpoints, tmp_path_factory) -> Path:
    """The folder that train_sae.py leaves after one short epoch."""
    from mechvit.saes import SAEConfig

    out = tmp_path_factory.mktemp("saes") / "base"
    config = SAEConfig(epochs=1, k=4, expansion_factor=4, train_batch_size_tokens=128, images_per_batch=16)
    call(
        "train_sae",
        model=checkpoints["base"],
        out=str(out),
        corruptions=CORRUPTIONS,
        limit=38,
        validation_limit=19,
        config=config,
    )
    return out


@pytest.fixture(scope="session")
def checkpoint(checkpoints) -> str:
    """One of them."""
    return checkpoints["base"]
