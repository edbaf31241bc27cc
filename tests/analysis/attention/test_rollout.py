from __future__ import annotations

import numpy as np
import pytest
import torch
from hf_zoo import ZOO

from mechvit import HookedViT
from mechvit.analysis import attention_rollout


def rollout_by_loops(patterns: np.ndarray, fusion: str, ratio: float) -> np.ndarray:
    """Abnar and Zuidema's product in float64, [layer, head, query, key] -> [query, key]; one entry at a time."""
    n = patterns.shape[-1]
    rolled = np.eye(n)
    for layer in patterns.astype(np.float64):
        fused = np.array([[getattr(np, fusion)(layer[:, q, k]) for k in range(n)] for q in range(n)])
        lowest = sorted((fused[q, k], q, k) for q in range(n) for k in range(n))[: int(n * n * ratio)]
        for _, q, k in lowest:
            fused[q, k] = 0
        step = np.array([[0.5 * fused[q, k] + 0.5 * (q == k) for k in range(n)] for q in range(n)])
        rolled = np.array([row / sum(row) for row in step]) @ rolled
    return rolled


@pytest.mark.parametrize(("fusion", "ratio"), [("mean", 0.0), ("min", 0.0), ("max", 0.0), ("mean", 0.9), ("max", 0.37)])
@pytest.mark.parametrize(
    "name",
    ["vit classifier", "dinov3 encoder", "siglip vision", "registers classifier", "beit classifier, relative bias"],
)
def test_rollout_matches_loops(name, fusion, ratio):
    model = HookedViT.from_hf(ZOO[name]())
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    _, cache = model.run_with_cache(pixels)
    patterns = torch.stack([cache["pattern", layer] for layer in range(model.cfg.n_layers)], 1).detach().numpy()
    found = attention_rollout(model, pixels, fusion=fusion, discard_ratio=ratio).numpy()
    for image in range(2):
        np.testing.assert_allclose(found[image], rollout_by_loops(patterns[image], fusion, ratio), atol=1e-6)
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)


def test_rollout_refuses_settings(tiny_model):
    pixels = torch.zeros(1, 3, 32, 32)
    with pytest.raises(ValueError, match="fusion must be one of mean, min, max; got 'median'"):
        attention_rollout(tiny_model, pixels, fusion="median")
    with pytest.raises(ValueError, match=r"discard_ratio must be at least 0 and below 1; got 1\.0"):
        attention_rollout(tiny_model, pixels, discard_ratio=1.0)
