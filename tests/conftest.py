"""Small random models and images that every test shares."""

from __future__ import annotations

import os
import shutil

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

if not any(os.path.exists(f"/dev/{name}") for name in ("nvidia0", "dxg")):
    os.environ.setdefault(
        "TRITON_INTERPRET", "1"
    )  # kernels are interpreted where there is no GPU; asked at their import

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import datasets
    import transformers

    from mechvit import HookedViT


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Draw the same random numbers in a test and in the fixtures that it builds, whatever ran before it."""
    import torch

    torch.manual_seed(0)
    if item.get_closest_marker("browser") and shutil.which("chromium") is None:
        pytest.skip("needs Debian's chromium on the PATH")


@pytest.fixture(scope="session")
def tiny_hf() -> transformers.ViTForImageClassification:
    """A Hugging Face ViT: 32 px, patch 8, width 32, 3 layers, 2 heads, 5 classes; every weight far from its init."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        id2label=dict(enumerate(["ant", "bee", "cat", "dog", "elk"])),
        label2id={name: i for i, name in enumerate(["ant", "bee", "cat", "dog", "elk"])},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ViTForImageClassification(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.25 if parameter.ndim > 1 else 0.5
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(scope="session")
def tiny_processor() -> transformers.ViTImageProcessorPil:
    """The image processor that goes with `tiny_hf`."""
    from transformers import ViTImageProcessorPil

    return ViTImageProcessorPil(size={"height": 32, "width": 32})


@pytest.fixture
def tiny_model(
    tiny_hf: transformers.ViTForImageClassification, tiny_processor: transformers.ViTImageProcessorPil
) -> HookedViT:
    """`tiny_hf` as a HookedViT with its image processor; made anew for every test."""
    from mechvit import HookedViT

    return HookedViT.from_hf(tiny_hf, image_processor=tiny_processor)


@pytest.fixture(scope="session")
def tiny_images(tiny_processor: transformers.ViTImageProcessorPil) -> datasets.Dataset:
    """24 prepared crops of real photographs (`pixels` uint8 [3, 32, 32]) in 5 classes."""
    from mechvit.data import load_images, prepare

    images = load_images("photos", "test", limit=24, image_size=32)
    names = images.features["label"].names
    renamed = images.map(lambda row: {"label": row["label"] % 5}, keep_in_memory=True, load_from_cache_file=False)
    assert len(names) == 19
    return prepare(renamed, tiny_processor)
