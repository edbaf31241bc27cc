"""Contenders of the cache benchmark: caches whose rows hold their number, ways to read them, and quality of mixing."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.stats import entropy

from mechvit.files import begin, write_json
from mechvit.saes.activation_cache import CachedActivations, Plan, ShuffleOptions
from mechvit.saes.activation_cache.manifest import DTYPES, MANIFEST_FILE
from mechvit.saes.activation_cache.shards import ACTIVATIONS, checksums_of, read_header, write_shard
from mechvit.saes.activation_cache.shuffled_epoch import allows_direct

if TYPE_CHECKING:
    import datasets

BLOCK = 8 << 20


def make_cache(folder: Path, *, n_bytes: int, tokens: int, widths: tuple[int, ...], shard_bytes: int) -> Path:
    """Write a bfloat16 cache of about `n_bytes`; a row's first three columns are its number's digits in base 256.

    The other columns are random numbers, the same in every shard.
    """
    hooks = {f"hook_{i}": width for i, width in enumerate(widths)}
    n_images = max(n_bytes // (2 * tokens * sum(widths)), 1)
    plan = Plan(
        model_name="none",
        checkpoint_hash="0" * 64,
        hooks=hooks,
        tokens="all",
        tokens_per_image=tokens,
        dtype="bfloat16",
        corruptions=(),
        clean_fraction=1.0,
        seed=0,
        data_fingerprint="0" * 16,
        n_images=n_images,
        batch_size=1,
        images_per_shard=max(shard_bytes // (2 * tokens * max(widths)), 1),
    )
    begin(folder, "cached activations")
    noise = {h: torch.randn(plan.rows_of(0), w, generator=torch.Generator().manual_seed(0)) for h, w in hooks.items()}
    stored = {hook: values.to(DTYPES[plan.dtype]) for hook, values in noise.items()}
    shards = []
    for index in range(plan.n_shards):
        numbers = torch.arange(plan.rows_of(index)) + index * plan.rows_per_shard
        for rows in stored.values():
            rows[: len(numbers), :3] = torch.stack([numbers % 256, numbers // 256 % 256, numbers // 65536], dim=1)
        ids = torch.tensor(plan.images_of(index))
        images = {"image_id": ids, "label": ids * 0, "corruption": ids * 0 - 1}
        write_shard(folder, plan, index, {h: rows[: len(numbers)].clone() for h, rows in stored.items()}, images)
        shards.append({"sha256": checksums_of(folder / plan.shard(index))})
    write_json(folder / MANIFEST_FILE, {"plan": plan.to_json(), "n_rows": plan.n_rows, "shards": shards})
    return folder


def files(cache: CachedActivations) -> list[Path]:
    """Return the files of all hook points, in order."""
    return [cache.path(index, hook) for index in range(cache.plan.n_shards) for hook in cache.widths]


@contextlib.contextmanager
def uncached(cache: CachedActivations) -> Iterator[None]:
    """Make the system forget the files, so that every contender reads from the disk."""
    for path in files(cache):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    yield


def read_sequentially(cache: CachedActivations) -> int:
    """Read all files from front to back into one piece of memory, and do nothing with them: the disk's own rate.

    Past the operating system's cache where that is possible, since it does not always forget what it is asked to.
    """
    memory, n_bytes = np.frombuffer(mmap.mmap(-1, BLOCK), dtype=np.uint8), 0
    direct = os.O_DIRECT if allows_direct(files(cache)[0]) else 0
    for path in files(cache):
        descriptor = os.open(path, os.O_RDONLY | direct)
        n_bytes += sum(os.preadv(descriptor, [memory.data], at) for at in range(0, path.stat().st_size, BLOCK))
        os.close(descriptor)
    return n_bytes


def read_random_rows(cache: CachedActivations, n_rows: int, batch_size: int) -> int:
    """Read rows one by one in a uniformly random order, and put them together to float32 batches."""
    plan = cache.plan
    headers = {path: read_header(path, ACTIVATIONS).start for path in files(cache)}
    with contextlib.ExitStack() as stack:
        opened = {path: stack.enter_context(open(path, "rb", buffering=0)) for path in headers}
        order = np.random.default_rng(0).permutation(plan.n_rows)[:n_rows]
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size].tolist()
            for hook, width in plan.hooks.items():
                memory = np.empty((len(rows), 2 * width), dtype=np.uint8)
                for place, row in enumerate(rows):
                    path = cache.path(row // plan.rows_per_shard, hook)
                    at = headers[path] + row % plan.rows_per_shard * 2 * width
                    os.preadv(opened[path].fileno(), [memory[place].data], at)
                torch.from_numpy(memory).view(torch.bfloat16).float()
    return len(order)


def read_epoch(cache: CachedActivations, **settings: Any) -> int:
    """Read one shuffled epoch and return the number of rows."""
    return sum(len(batch) for batch in cache.epoch(0, ShuffleOptions(seed=0, **settings)))


def mixing(cache: CachedActivations, **settings: Any) -> dict[str, list[float]]:
    """Return entropies over images and over shards of up to 500 batches, relative to uniformly random batches.

    Raises:
        ValueError: a row comes twice, or is none of the cache's.
    """
    plan, found = cache.plan, []
    for batch in cache.epoch(0, ShuffleOptions(seed=0, **settings)):
        found.append((batch[:, :3].double() @ torch.tensor([1.0, 256.0, 65536.0], dtype=torch.float64)).long().numpy())
    seen = np.unique(np.concatenate(found))
    if len(seen) != len(found) * len(found[0]) or seen[0] < 0 or seen[-1] >= plan.n_rows:
        raise ValueError("an epoch must give each row once; this one does not, so its times mean nothing")
    groups: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "images": lambda rows: rows // plan.tokens_per_image,
        "shards": lambda rows: rows // plan.rows_per_shard,
    }
    rng, result = np.random.default_rng(0), {}
    found = found[:: -(-len(found) // 500)]
    uniform = [rng.choice(plan.n_rows, len(found[0]), replace=False, shuffle=False) for _ in range(20)]
    for name, group in groups.items():
        expected = float(np.mean(_entropies([group(rows) for rows in uniform])))
        result[name] = [value / expected if expected else 1.0 for value in _entropies([group(rows) for rows in found])]
    return result


def _entropies(batches: Sequence[np.ndarray]) -> list[float]:
    return [float(entropy(np.unique(batch, return_counts=True)[1])) for batch in batches]


def random_images(n_images: int, size: int) -> datasets.Dataset:
    """Return prepared images of random pixels."""
    import datasets

    features = datasets.Features(
        {
            "pixels": datasets.Array3D(shape=(3, size, size), dtype="uint8"),
            "label": datasets.Value("int64"),
            "image_id": datasets.Value("int64"),
        }
    )
    pixels = np.random.default_rng(0).integers(0, 256, (n_images, 3, size, size), dtype=np.uint8)
    ids = list(range(n_images))
    return datasets.Dataset.from_dict({"pixels": pixels, "label": ids, "image_id": ids}, features=features)
