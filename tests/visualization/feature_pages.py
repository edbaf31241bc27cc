"""Feature browsers of random models and SAEs, with names that no page may take for markup."""

from __future__ import annotations

import dataclasses

import torch
from random_saes import make_sae

from mechvit import HookedViT
from mechvit.data import ImageBatch
from mechvit.saes.dashboard.results import Browsing
from mechvit.views import feature_browser

HOSTILE = "</script><script>alert(1)</script>\u2028<img src=x onerror=alert(1)>"
LONG = "long " * 2000
NAMES = (HOSTILE, LONG, "cat", "dog", "elk")
CORRUPTIONS = ("gaussian_blur_1", "gaussian_blur_2", "gaussian_noise_4")
SMALL = Browsing(n_features=20, n_images=4, top_images=3, random_images=1, seed=3)


def hostile_model(tiny_hf, tiny_processor):
    model = HookedViT.from_hf(tiny_hf, image_processor=tiny_processor)
    model.cfg = dataclasses.replace(model.cfg, id2label=dict(enumerate(NAMES)))
    return model


def make_browser(tiny_hf, tiny_processor, tiny_images):
    """Two SAEs of a model and one of another, 48 latents each, some dead."""
    base, tuned = (hostile_model(tiny_hf, tiny_processor) for _ in range(2))
    saes = {
        "base standard": make_sae(hook_tokens="all"),
        HOSTILE: make_sae("jumprelu", seed=1, hook_tokens="all"),
        "tuned": make_sae(seed=2, hook_tokens="all"),
    }
    with torch.no_grad():
        tuned.blocks[0].mlp.W_in.mul_(1.2)
        for sae in saes.values():
            sae.b_enc[:4] = -1e4
            sae.b_enc[4:] -= torch.linspace(0, 6, 44)
    models = (base, base, tuned)
    pairs = {name: (model, sae) for model, (name, sae) in zip(models, saes.items(), strict=True)}
    return feature_browser(pairs, tiny_images, CORRUPTIONS, settings=SMALL, title=HOSTILE)


def large_browser():
    """The budgets' size: 200 latents, 20 images of 224 pixels."""
    saes, images = large_images()
    settings = Browsing(n_features=200, n_images=20, batch_size=16)
    return feature_browser(saes, images, ["gaussian_noise_4"], settings=settings)


def large_images():
    """A small ViT at 224 px with 196 patches, an SAE of 512 latents, and 600 noisy images."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

    torch.manual_seed(0)
    config = ViTConfig(hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_labels=100)
    model = HookedViT.from_hf(ViTForImageClassification(config).eval(), image_processor=ViTImageProcessorPil())
    from sae_lens import StandardSAE, StandardSAEConfig
    from sae_lens.saes.sae import SAEMetadata

    about = SAEMetadata(hook_name="blocks.0.hook_resid_post", hook_tokens="all")
    sae = StandardSAE(StandardSAEConfig(d_in=32, d_sae=512, metadata=about))
    with torch.no_grad():
        sae.W_enc.normal_()
        sae.W_dec.normal_()
        sae.b_enc.fill_(-0.5)
    smooth = torch.nn.functional.interpolate(torch.rand(600, 3, 7, 7), size=(224, 224), mode="bilinear")
    images = smooth.mul_(0.7).add_(torch.rand(smooth.shape).mul_(0.3))
    batch = ImageBatch(images, torch.arange(600) % 100, torch.arange(600))
    return {"one": (model, sae)}, batch
