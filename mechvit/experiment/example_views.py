"""Example images and attention patterns for the report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from mechvit.analysis.condition_images import shown_to
from mechvit.analysis.finite import check_finite
from mechvit.analysis.inputs import pixel_values
from mechvit.data import CLEAN
from mechvit.data.batches import ImageBatch, iter_batches
from mechvit.views import attention_explorer, patch_lens_view
from mechvit.visualization.attention.pattern_pooling import prefix_names
from mechvit.visualization.style import title_of

from .config import ExperimentConfig
from .sections.views import write_views

if TYPE_CHECKING:
    import datasets

    from mechvit.models import HookedViT

EXPLORER_BYTES = 12_000_000
"""Largest size of the explorer's patterns in the report, whose scripts and figures take another 7 MB."""


@torch.inference_mode()
def make_views(
    folder: Path, models: Mapping[str, HookedViT], images: datasets.Dataset, config: ExperimentConfig
) -> None:
    """Write example images under every corruption, one image's attention in the base and tuned models, and the data of
    the attention explorer and the patch lens.

    Args:
        folder: output folder for `examples.safetensors` (uint8 [3, height, width] by `image_id/corruption`),
            `attention.safetensors` (float16 [layer, head, query, key] by `model/corruption`), a JSON file on each,
            `explorer.json` and `lens.json`.
        models: "base" and the models tuned on each family's strongest level.
        images: the test images; the examples are spread over their classes.
        config: settings of the run.
    """
    chosen = spread(np.asarray(images["label"]), config.example_images)
    batch = next(iter_batches(images.select(chosen), batch_size=len(chosen)))
    names = images.features["label"].names
    pictures = {}
    for corruption in (CLEAN, *config.tuned):
        pixels = shown_to(models["base"], batch, corruption, seed=config.seed).images
        for image_id, image in zip(batch.image_ids.tolist(), pixels, strict=True):
            pictures[f"{image_id}/{corruption.key}"] = (image * 255).round().to(torch.uint8).numpy()
    listed = [
        {"image_id": image_id, "label": names[label]}
        for image_id, label in zip(batch.image_ids.tolist(), batch.labels.tolist(), strict=True)
    ]
    one = batch.take(slice(1))
    patterns = {
        f"{key}/{corruption.key}": attention(model, one, corruption.key, config.seed)
        for key, model in models.items()
        for corruption in (CLEAN, *config.strongest)
        if key == "base" or corruption.key in ("clean", key)
    }
    cfg = models["base"].cfg
    about = {
        **listed[0],
        "grid": list(cfg.grid),
        "n_prefix_tokens": cfg.n_prefix_tokens,
        "prefix": prefix_names(cfg),
        "models": list(models),
        "corruptions": ["clean", *(c.key for c in config.strongest)],
    }
    shown = {title_of(key) if key == "base" else f"{title_of(key, short=True)} tuned": m for key, m in models.items()}
    examples = images.select(chosen)
    explorer = attention_explorer(shown, examples, config.strongest, seed=config.seed, max_bytes=EXPLORER_BYTES)
    lens = patch_lens_view(shown, examples, config.strongest, seed=config.seed)
    arrays, texts = {"examples": pictures, "attention": patterns}, {"examples": listed, "attention": about}
    write_views(folder, arrays, texts, explorer=explorer, lens=lens)


def spread(labels: np.ndarray, count: int) -> list[int]:
    """Return the first image of each of `count` classes, spread over all classes; more images if classes are few."""
    first = [int(np.flatnonzero(labels == label)[0]) for label in np.unique(labels)]
    chosen = [first[i] for i in np.linspace(0, len(first) - 1, min(count, len(first))).round().astype(int)]
    others = [i for i in range(len(labels)) if i not in chosen]
    return chosen + others[: count - len(chosen)]


def attention(model: HookedViT, image: ImageBatch, corruption: str, seed: int) -> np.ndarray:
    """Return every layer's pattern on one image: float16 [layer, head, query, key]."""
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(model.cfg.n_layers)]
    pixels = pixel_values(model, shown_to(model, image.to(model.cfg.device), corruption, seed=seed))
    _, cache = model.run_with_cache(pixels, names_filter=names)
    check_finite("attention weights", [cache[name] for name in names], model, image.image_ids)
    return np.stack([cache[name][0].float().cpu().numpy() for name in names]).astype(np.float16)
