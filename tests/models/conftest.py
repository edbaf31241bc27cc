"""Hugging Face ViTs of any small shape, with every weight far from its initial value, and images for them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hf_zoo import ZOO
from torch import Tensor

SHAPE: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "id2label": dict(enumerate(["ant", "bee", "cat", "dog", "elk"])),
    "label2id": {name: i for i, name in enumerate(["ant", "bee", "cat", "dog", "elk"])},
}


@pytest.fixture(scope="session")
def make_hf() -> Callable[..., Any]:
    """Make a Hugging Face model by class name, with keyword changes to SHAPE."""

    def make(architecture: str = "ViTForImageClassification", *, pooler: bool = True, **changes: Any) -> Any:
        config = transformers.ViTConfig(**{**SHAPE, **changes})
        options = {} if pooler else {"add_pooling_layer": False}
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(1)
            model = getattr(transformers, architecture)(config, **options).eval()
            for parameter in model.parameters():
                scale = 0.2 if parameter.ndim > 1 else 0.4
                parameter.add_(scale * torch.randn(parameter.shape))
        return model

    return make


@pytest.fixture(scope="session")
def pixels() -> Tensor:
    """Four normalised images, [4, 3, 32, 32]."""
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="session")
def labels() -> Tensor:
    return torch.tensor([3, 0, 4, 1])


@pytest.fixture(scope="session")
def run_hf() -> Callable[..., Any]:
    """Run a Hugging Face model in eval mode and give its output with all hidden states (and patterns, if eager)."""

    def run(hf_model: Any, pixels: Tensor, attention: str = "sdpa") -> Any:
        before = hf_model.config._attn_implementation
        hf_model.set_attn_implementation(attention)
        try:
            with torch.no_grad():
                return hf_model(pixels, output_hidden_states=True, output_attentions=attention == "eager")
        finally:
            hf_model.set_attn_implementation(before)

    return run


@pytest.fixture(scope="session")
def whole_checkpoint(tmp_path_factory) -> Path:
    """A ViT's folder with its image processor, to be read alone."""
    folder = tmp_path_factory.mktemp("whole")
    ZOO["vit classifier"]().save_pretrained(folder)
    transformers.ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture
def saved_checkpoint(whole_checkpoint, tmp_path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(whole_checkpoint, tmp_path / "checkpoint"))
