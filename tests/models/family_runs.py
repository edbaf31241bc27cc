"""Every class of the zoo as a HookedViT, run once and cached."""

from __future__ import annotations

import copy
import functools
from typing import Any

import torch
from hf_zoo import ZOO
from torch import Tensor

from mechvit import HookedViT

LAYERS, HEADS, BATCH = 3, 2, 4
CLASSIFIERS = [name for name, entry in ZOO.items() if "ForImageClassification" in entry.architecture or entry.zero_shot]
BARE = [name for name in ZOO if name not in CLASSIFIERS]
CLS_ONLY = [
    name
    for name in CLASSIFIERS
    if ZOO[name].family in ("vit", "vit_msn", "deit") and "Teacher" not in ZOO[name].architecture
]
CLS_ONLY += ["beit classifier, cls", "data2vec classifier, all positions", "clip zero-shot"]
LABELS = torch.tensor([3, 0, 4, 1])
DTYPES = {torch.float64: 1e-10, torch.float32: 1e-4}


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-10) -> None:
    """Agree to `tolerance` of the largest expected value (of 1, where that is larger)."""
    assert found.shape == expected.shape
    if not found.numel():
        return
    assert (found - expected).abs().max() <= tolerance * expected.abs().max().clamp(min=1)


def draw(size: tuple[int, int] = (32, 32), batch: int = BATCH, dtype: torch.dtype = torch.float64) -> Tensor:
    """Normalised images."""
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(dtype)


def build(name: str, dtype: torch.dtype = torch.float64) -> HookedViT:
    """A new model."""
    return copy.deepcopy(_converted(name, dtype))


@functools.cache
def _converted(name: str, dtype: torch.dtype) -> HookedViT:
    entry = ZOO[name]
    return HookedViT.from_hf(entry(dtype), **entry.zero_shot_head(dtype))


@functools.cache
def run(name: str, dtype: torch.dtype = torch.float64) -> tuple[HookedViT, Tensor, Any]:
    """A model, its logits (or last hidden state) and its cache; shared, and only to be read."""
    model = build(name, dtype)
    with torch.no_grad():
        logits, cache = model.run_with_cache(draw(dtype=dtype))
    return model, logits, cache


def resid(cache: Any, layer: int) -> Tensor:
    """The residual stream that enters block `layer`, or leaves the last."""
    return cache["resid_post", layer - 1] if layer else cache["resid_pre", 0]


def count_tokens(model: HookedViT, size: tuple[int, int] = (32, 32)) -> tuple[int, int]:
    """Prefix tokens and patches of an image, from the checkpoint's config."""
    config = model.hf_config
    kind = config.model_type
    prefix = 0 if kind.startswith(("ijepa", "siglip")) else 2 if kind == "deit" else 1
    return prefix + getattr(config, "num_register_tokens", 0), (size[0] // 8) * (size[1] // 8)
