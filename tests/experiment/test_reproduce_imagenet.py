"""The experiment on a checkpoint and images of one's own, as on ImageNet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_runs import tables, tiny

from mechvit.experiment import PRESETS, ExperimentConfig, Rules, reproduce
from mechvit.finetuning import FinetuneConfig
from mechvit.saes import SAEConfig


def save_checkpoint(folder: Path, *, size: int, classes: list[str], **shape: int) -> None:
    """A ViT of random weights with its image processor."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

    torch.manual_seed(0)
    config = ViTConfig(image_size=size, id2label=dict(enumerate(classes)), **shape)
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": size, "width": size}).save_pretrained(folder)


def save_photographs(folder: Path, names: list[str], count: int) -> None:
    """Crops of real photographs as files, one sub-folder a class."""
    from mechvit.data.sources.photos import photograph

    rng = np.random.default_rng(0)
    for name in names:
        (folder / name).mkdir(parents=True)
        image = photograph(name)
        for i in range(count):
            left, top = rng.integers(image.width - 100), rng.integers(image.height - 100)
            Image.fromarray(np.asarray(image)[top : top + 100, left : left + 100]).save(folder / name / f"{i}.png")


NAMES = ["astronaut", "coffee", "chelsea"]


@pytest.mark.long
def test_imagenet_path_on_a_checkpoint_and_a_folder(tmp_path):
    save_checkpoint(
        tmp_path / "model",
        size=32,
        classes=[*NAMES, "other"],
        patch_size=8,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    save_photographs(tmp_path / "images", NAMES, 20)
    small = tiny(tmp_path)
    config = replace(
        PRESETS["imagenet"],
        out=str(tmp_path / "run"),
        model=str(tmp_path / "model"),
        limit=24,
        device="cpu",
        images=f"folder:{tmp_path / 'images'}",
        corruptions=small.corruptions[1:],
        finetuning=small.finetuning,
        saes=small.saes,
        rules=small.rules,
    )
    report = reproduce(config, say=lambda line: None)
    assert report.is_file()
    performance = tables(tmp_path / "run")["performance"]
    assert set(performance["label"]) == {0, 1, 2}
    assert performance["image_id"].nunique() == 12, "a fifth of 60"


@pytest.mark.slow
def test_imagenet_path_on_a_vit_b_16(tmp_path):
    """The paper's own shapes: ViT-B/16 at 224 px and SAEs of 24,576 latents, on a few photographs."""
    save_checkpoint(tmp_path / "model", size=224, classes=NAMES)
    save_photographs(tmp_path / "images", NAMES, 12)
    config = replace(
        PRESETS["imagenet"],
        out=str(tmp_path / "run"),
        model=str(tmp_path / "model"),
        limit=6,
        device="cpu",
        images=f"folder:{tmp_path / 'images'}",
        corruptions=("gaussian_blur_4", "gaussian_noise_4"),
        finetuning=FinetuneConfig(epochs=1, batch_size=4),
        saes=SAEConfig(epochs=1, train_batch_size_tokens=512),
        rules=Rules(resamples=50),
    )
    assert reproduce(config, say=lambda line: None).is_file()
    quality = tables(tmp_path / "run")["sae_quality"]
    assert np.isfinite(quality.loc[quality["metric"] == "l0", "value"]).all()
    lens = tables(tmp_path / "run")["lens"]
    assert lens["layer"].max() == 12


def test_own_images_need_a_model():
    with pytest.raises(ValueError, match="model must be given with images of your own"):
        ExperimentConfig(images="folder:somewhere")


def test_model_without_an_image_processor_is_refused(tmp_path, tiny_hf):
    tiny_hf.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="has no image processor"):
        reproduce(tiny(tmp_path / "run", model=str(tmp_path / "model")), say=lambda line: None)
