"""Images in memory and independent float64 readings of the tiny model, for the tests of analyses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mechvit.data.batches import ImageBatch, iter_batches
from mechvit.data.corruptions import corrupt
from mechvit.data.pixels import normalize


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
