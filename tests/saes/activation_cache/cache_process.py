"""One process of a cache's writing, killed (SIGKILL) when it begins its n-th shard: `... MODEL OUT [RANK N]`.

Run by torchrun, or alone.
"""

from __future__ import annotations

import os
import signal
import sys

import torch
from cache_contents import CORRUPTIONS, HOOKS

from mechvit import HookedViT
from mechvit.data import load_images
from mechvit.saes.activation_cache import CacheConfig, cache_activations, writer
from mechvit.saes.activation_cache.shards import write_shard


def main(folder: str, out: str, killed_rank: int = -1, killed_at: int = 0) -> None:
    if "WORLD_SIZE" in os.environ:
        torch.distributed.init_process_group("gloo")
    rank, begun = int(os.environ.get("RANK", "0")), []

    def write(cache, plan, index, *made):
        begun.append(index)
        if rank == killed_rank and len(begun) == killed_at:
            (cache / f"{plan.shard(index)}.partial").mkdir()  # in the midst of it
            (cache / f"{plan.shard(index)}.partial/images.safetensors").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        write_shard(cache, plan, index, *made)

    writer.write_shard = write
    model = HookedViT.from_pretrained(folder, device="cpu")
    images = load_images("photos", "sae", limit=38, image_size=32)
    config = CacheConfig(hooks=HOOKS, corruptions=CORRUPTIONS, seed=3, batch_size=4, shard_bytes=1)
    cache = cache_activations(model, images, out, config, progress=None)
    print(f"rank {rank} made {begun} of {cache.plan.n_shards}", flush=True)


main(*sys.argv[1:3], *map(int, sys.argv[3:]))
