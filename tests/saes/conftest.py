"""Synthetic activations, stock and sparse SAEs of equal weights, and a reference model, for the tests of SAEs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from evaluation_saes import CHOSEN, CONDITIONS
from memory_streams import MemoryStreams
from sae_lens import (
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    StandardTrainingSAE,
    StandardTrainingSAEConfig,
)
from sae_lens.saes.sae import TrainStepInput, TrainStepOutput
from torch import Tensor

from mechvit.data import ImageBatch, corrupt, iter_batches
from mechvit.saes.training.sparse_step import FastBatchTopKTrainingSAE, FastStandardTrainingSAE

CLASSES = {
    "standard": (StandardTrainingSAEConfig, StandardTrainingSAE, FastStandardTrainingSAE),
    "batchtopk": (BatchTopKTrainingSAEConfig, BatchTopKTrainingSAE, FastBatchTopKTrainingSAE),
}


def _redraw(sae: Any, rare: float) -> None:
    """Draw for every weight a value far from its start: decoder norms from 0.2 to 3, biases of both kinds."""
    generator = torch.Generator().manual_seed(5)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    d_in, d_sae = sae.W_enc.shape
    decoder = normal(d_sae, d_in)
    norms = 0.2 + 2.8 * torch.rand(d_sae, 1, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        sae.W_enc.copy_(normal(d_in, d_sae) / d_in**0.5)
        sae.W_dec.copy_(decoder / decoder.norm(dim=1, keepdim=True) * norms)
        sae.b_enc.copy_(0.3 * normal(d_sae) - rare)
        sae.b_dec.copy_(2 * normal(d_in))


@pytest.fixture(scope="session")
def make_pair() -> Callable[..., tuple[Any, Any]]:
    """Make (sparse, stock) SAEs of equal weights.

    `rare` is subtracted from every b_enc: the larger, the fewer entries are positive.
    """

    def make(
        architecture: str,
        dtype: str = "float64",
        stock_dtype: str = "float64",
        d_in: int = 12,
        d_sae: int = 96,
        rare: float = 0.0,
        **settings: Any,
    ) -> tuple[Any, Any]:
        config, stock, fast = CLASSES[architecture]
        if architecture == "batchtopk":
            settings = {"k": 5} | settings
        pair = []
        for cls, precision in ((fast, dtype), (stock, stock_dtype)):
            sae = cls(config(d_in=d_in, d_sae=d_sae, dtype=precision, **settings))
            _redraw(sae, rare)
            pair.append(sae)
        return pair[0], pair[1]

    return make


@pytest.fixture(scope="session")
def pixels(tiny_images, tiny_processor):
    """Condition -> each image corrupted alone and normalised by Hugging Face's own processor."""
    out = {}
    for key in CONDITIONS:
        images = []
        for row in tiny_images.with_format("numpy"):
            image = torch.from_numpy(np.array(row["pixels"]))[None].float() / 255
            image = corrupt(image, key, torch.tensor([int(row["image_id"])]), seed=3)
            images.append(tiny_processor(image[0].numpy(), do_resize=False, do_rescale=False)["pixel_values"][0])
        out[key] = torch.from_numpy(np.stack(images))
    return out


@pytest.fixture(scope="session")
def hf_logits(tiny_hf, pixels):
    """Hugging Face's model, with the output of one layer changed by `change`: (logits, that layer's own output)."""
    blocks = [module for module in tiny_hf.modules() if type(module).__name__ == "ViTLayer"]

    def run(key, layer=1, tokens="all", change=None):
        seen = []

        def hook(module, inputs, output):
            hidden = output[0] if isinstance(output, tuple) else output
            seen.append(hidden.clone())
            if change is not None:
                hidden = hidden.clone()
                hidden[:, CHOSEN[tokens]] = change(hidden[:, CHOSEN[tokens]])
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        handle = blocks[layer].register_forward_hook(hook)
        try:
            with torch.no_grad():
                return tiny_hf(pixels[key]).logits, seen[0]
        finally:
            handle.remove()

    return run


@pytest.fixture(scope="session")
def batch(tiny_images, hf_logits) -> ImageBatch:
    """The images with the clean model's own predictions as labels, but for every fourth."""
    whole = next(iter_batches(tiny_images, batch_size=24))
    labels = hf_logits("clean")[0].argmax(-1)
    labels[::4] = (labels[::4] + 1) % 5
    return ImageBatch(whole.images, labels, whole.image_ids)


@pytest.fixture(scope="session")
def tokens() -> Callable[..., Tensor]:
    """Draw [n, d] activations that are sums of three of 24 directions, about a mean that is not zero."""

    def draw(n: int = 300, d: int = 12, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
        directions = torch.randn(24, d, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
        generator = torch.Generator().manual_seed(seed)
        which = torch.rand(n, 24, generator=generator).topk(3).indices
        size = 0.5 + torch.rand(n, 3, generator=generator, dtype=torch.float64)
        noise = 0.1 * torch.randn(n, d, generator=generator, dtype=torch.float64)
        return (1 + (size[..., None] * directions[which]).sum(1) + noise).to(dtype)

    return draw


@pytest.fixture(scope="session")
def forward_backward() -> Callable[..., tuple[TrainStepOutput, dict[str, Tensor]]]:
    """Run an SAE's training forward pass and backward: the output and every parameter's gradient."""

    def run(
        sae: Any, x: Tensor, dead: Tensor | None = None, l1: float = 0.7
    ) -> tuple[TrainStepOutput, dict[str, Tensor]]:
        sae.zero_grad()
        out = sae.training_forward_pass(
            TrainStepInput(
                sae_in=x, coefficients={"l1": l1}, dead_neuron_mask=dead, n_training_steps=0, is_logging_step=False
            )
        )
        out.loss.backward()
        return out, {name: parameter.grad.clone() for name, parameter in sae.named_parameters()}

    return run


@pytest.fixture(scope="session")
def make_streams(tokens: Callable[..., Tensor]) -> Callable[..., MemoryStreams]:
    """Make streams of drawn activations: one hook point of width 12 unless `widths` says otherwise."""

    def make(batch: int = 128, steps: int = 40, **widths: int) -> MemoryStreams:
        return MemoryStreams(tokens, widths or {"resid": 12}, batch, steps)

    return make
