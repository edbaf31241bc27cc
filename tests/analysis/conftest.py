"""Images in memory and independent float64 readings of the tiny model, for the tests of analyses."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from mechvit.data.batches import ImageBatch, iter_batches
from mechvit.data.corruptions import corrupt
from mechvit.data.pixels import normalize

if TYPE_CHECKING:
    from mechvit import HookedViT


@pytest.fixture(scope="session")
def batch(tiny_images) -> ImageBatch:
    """All 24 tiny images, with ids that are not their positions."""
    whole = next(iter_batches(tiny_images, batch_size=24))
    return ImageBatch(whole.images, whole.labels, whole.image_ids + 100)


@pytest.fixture(scope="session")
def hf_pass(tiny_hf, tiny_processor, batch):
    """Corruption key -> Hugging Face's (logits, hidden states, attentions) in eager attention."""

    def run(key: str) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
        pixels = normalize(corrupt(batch.images, key, batch.image_ids, seed=0), tiny_processor)
        before = tiny_hf.config._attn_implementation
        tiny_hf.set_attn_implementation("eager")
        try:
            with torch.no_grad():
                out = tiny_hf(pixels, output_hidden_states=True, output_attentions=True)
        finally:
            tiny_hf.set_attn_implementation(before)
        return out.logits, out.hidden_states, out.attentions

    return run


PLANTED_LAYER = 1
"""The block whose MLP alone differs between the two models of `planted`."""


@pytest.fixture
def planted(tiny_model, batch) -> tuple[HookedViT, HookedViT, ImageBatch]:
    """A base model, a tuned one that differs in `blocks.1.mlp` alone, and images labelled as the tuned model sees them
    under gaussian_noise_2: it is right on all of them there, the base model on some."""
    tuned = copy.deepcopy(tiny_model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in tuned.blocks[PLANTED_LAYER].mlp.parameters():
            parameter.add_(0.7 * torch.randn(parameter.shape, generator=generator))
        noisy = corrupt(batch.images, "gaussian_noise_2", batch.image_ids, seed=0)
        labels = tuned(normalize(noisy, tuned.image_processor)).argmax(-1)
    return tiny_model, tuned, ImageBatch(batch.images, labels, batch.image_ids)
