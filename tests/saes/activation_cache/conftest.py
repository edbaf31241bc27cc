"""Caches whose every value tells where it lies, and the cache of a tiny model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cache_contents import CORRUPTIONS, HOOKS, numbered

from mechvit.files import write_json
from mechvit.saes.activation_cache import CacheConfig, CachedActivations, Plan, cache_activations
from mechvit.saes.activation_cache.manifest import DTYPES, MANIFEST_FILE, PLAN_FILE
from mechvit.saes.activation_cache.shards import checksums_of, write_shard


@pytest.fixture
def numbered_cache(tmp_path) -> Callable[..., CachedActivations]:
    """Write a cache in which every value of row r at hook h is r + h / 4; keyword changes go to the plan."""

    def make(name: str = "cache", widths: tuple[int, ...] = (3, 5), **changes: Any) -> CachedActivations:
        settings = {
            "model_name": "none",
            "checkpoint_hash": "0" * 64,
            "tokens": "all",
            "tokens_per_image": 7,
            "dtype": "float32",
            "corruptions": (),
            "clean_fraction": 1.0,
            "seed": 0,
            "data_fingerprint": "0" * 16,
            "n_images": 53,
            "batch_size": 2,
            "images_per_shard": 8,
        }
        hooks = {f"hook_{i}": width for i, width in enumerate(widths)}
        plan, folder = Plan(**settings | {"hooks": hooks} | changes), tmp_path / name
        folder.mkdir()
        for index in range(plan.n_shards):
            ids = torch.tensor(plan.images_of(index))
            rows = torch.arange(plan.rows_of(index)) + index * plan.rows_per_shard
            stored = {h: numbered(rows, i, w).to(DTYPES[plan.dtype]) for i, (h, w) in enumerate(hooks.items())}
            write_shard(folder, plan, index, stored, {"image_id": ids, "label": ids % 3, "corruption": ids * 0 - 1})
        shards = [{"sha256": checksums_of(folder / plan.shard(index))} for index in range(plan.n_shards)]
        write_json(folder / PLAN_FILE, plan.to_json())
        write_json(folder / MANIFEST_FILE, {"plan": plan.to_json(), "n_rows": plan.n_rows, "shards": shards})
        return CachedActivations(folder, verify=True)

    return make


@pytest.fixture
def make_cache(tiny_model, tiny_images, tmp_path) -> Callable[..., CachedActivations]:
    """Cache the tiny model on the 24 tiny images, four to a batch, two batches to a shard of the wider hook point."""

    def make(out: str | Path = "cache", model=tiny_model, images=tiny_images, **changes: Any) -> CachedActivations:
        settings = {
            "hooks": HOOKS[:1],
            "corruptions": CORRUPTIONS,
            "clean_fraction": 0.4,
            "seed": 3,
            "dtype": "float32",
            "batch_size": 4,
            "shard_bytes": 8 * 17 * 32 * 4,
            "progress": None,
        }
        settings |= changes
        how = {name: settings.pop(name) for name in ("overwrite", "progress") if name in settings}
        return cache_activations(model, images, tmp_path / out, CacheConfig(**settings), **how)

    return make
