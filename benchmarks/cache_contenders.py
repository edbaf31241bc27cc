"""All ways to compute and store the residual that enters the last block, and the peak rates they are compared with."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timing import Contender

from mechvit.terminal import say

if TYPE_CHECKING:
    from contenders import Models
    from torch import Tensor

FLOOR, STATES, HOOK = (
    "Hugging Face, first n - 1 layers",
    "Hugging Face, output_hidden_states",
    "Hugging Face, torch hook",
)
EAGER, CAPTURED = "HookedViT, stop_at_layer", "HookedViT, compile_cache"
BRIDGE, NNSIGHT = "TransformerBridge, stop_at_layer", "nnsight, stop"
HOST, DISK = "HookedViT, to host memory", "HookedViT, to disk"
FLOOR_HOST, FLOOR_DISK = f"{FLOOR}, to host memory", f"{FLOOR}, to disk"
PRODUCT, COPY, WRITE = "matrix product", "copy", "cache_write"
BATCHES = {"cpu": 1, "cuda": 4}
"""Batches per call to host or disk: on CUDA each is copied while the next is computed."""
COPIED = {"cpu": 0, "cuda": 2**30}
"""Smallest number of bytes copied: more than a GPU's cache, and far longer than a launch."""
CALLS = {"cpu": 1, "cuda": 10}
"""Repetitions of a peak's work in one measurement."""
SIDE = {"cpu": 1536, "cuda": 8192}
"""Side of the square matrices."""


def contenders(models: Models, batch_size: int, captured: bool, folder: str) -> list[Contender]:
    """Return every way to the residual that enters the last block; each call's time is that of one batch."""
    model, hf_model, pixels = models.hooked, models.sdpa, models.pixels
    stop = model.cfg.n_layers - 1
    name = f"blocks.{stop - 1}.hook_resid_post"

    def floor() -> Tensor:
        resid = hf_model.vit.embeddings(pixels)
        for layer in hf_model.vit.layers[:stop]:
            resid = layer(resid)
        return resid

    def states() -> Tensor:
        return hf_model(pixels, output_hidden_states=True).hidden_states[stop]

    def hook() -> Tensor:
        found: list[Tensor] = []
        handle = hf_model.vit.layers[stop - 1].register_forward_hook(lambda module, args, out: found.append(out))
        try:
            hf_model(pixels)
        finally:
            handle.remove()
        return found[0]

    def eager() -> Tensor:
        return model.run_with_cache(pixels, names_filter=name, stop_at_layer=stop)[1][name]

    ways: dict[str, Callable[[], Tensor]] = {FLOOR: floor, STATES: states, HOOK: hook, EAGER: eager}
    if captured:
        compiled = model.compile_cache(name, stop_at_layer=stop, batch_size=batch_size)
        compiled(pixels)
        if compiled.compiled:  # else a warning has said why
            ways[CAPTURED] = lambda: compiled(pixels)[name]
    ways |= peers(models, stop, name, folder)
    batches, kept = BATCHES[pixels.device.type], keepers(models, folder)
    far = {
        name: streamed(way, keep, batches)
        for keep, names in zip(kept, ((FLOOR_HOST, HOST), (FLOOR_DISK, DISK)), strict=True)
        for name, way in zip(names, (floor, eager), strict=True)
    }
    return [
        Contender(
            name=way,
            call=call,
            tensors=lambda out: {"resid": out.to(pixels.device)},
            times=batches if way in far else 1,
        )
        for way, call in (ways | far).items()
    ]


def streamed(way: Callable[[], Tensor], keep: Callable[[Tensor], Tensor], batches: int) -> Callable[[], Tensor]:
    """Return a function that computes batches, each copied to the host and stored while the next is computed."""
    from mechvit.kernels.cache_write import to_host

    def call() -> Tensor:
        for batch in to_host({"resid": way()} for _ in range(batches)):
            last = keep(batch["resid"])
        return last

    return call


def keepers(models: Models, folder: str) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """Return two functions: one copies a batch into existing host memory, the other writes it to a file."""
    import torch

    cfg, pixels = models.hooked.cfg, models.pixels
    host = torch.empty((len(pixels), cfg.n_tokens, cfg.d_model), dtype=pixels.dtype)

    def to_disk(resid: Tensor) -> Tensor:
        from safetensors.torch import save_file

        beside = Path(folder) / "batch.partial"
        save_file({"resid": resid.contiguous()}, beside)
        os.replace(beside, Path(folder) / "batch.safetensors")
        return resid

    return host.copy_, to_disk


def peers(models: Models, stop: int, name: str, folder: str) -> dict[str, Callable[[], Tensor]]:
    """Return transformer-lens's bridge and, if installed, nnsight, on copies of the model."""
    import copy

    from transformer_lens.model_bridge import TransformerBridge

    pixels, found, twin = models.pixels, {}, copy.deepcopy(models.again)
    twin.config.architectures = [type(twin).__name__]  # the bridge looks for its adapter there
    twin.config.save_pretrained(folder)  # and asks the hub otherwise
    bridge: Any = TransformerBridge.boot_transformers(
        folder, hf_model=twin, device=str(pixels.device), dtype=pixels.dtype
    )

    def bridged() -> Tensor:
        return bridge.run_with_cache(pixels, names_filter=name, stop_at_layer=stop)[1][name]

    found[BRIDGE] = bridged
    if importlib.util.find_spec("nnsight") is None:
        say("left out: nnsight is not installed (pip install 'mechvit[benchmarks]')")
        return found
    from nnsight import NNsight

    traced: Any = NNsight(copy.deepcopy(models.again))

    def sighted() -> Tensor:
        with traced.trace(pixels) as tracer:
            saved = traced.vit.layers[stop - 1].output.save()
            tracer.stop()
        return saved[0] if isinstance(saved, tuple) else saved

    found[NNSIGHT] = sighted
    return found


def peaks(models: Models) -> list[Contender]:
    """Return a square matrix product, a copy, and the cache write of as many bytes."""
    import torch

    from mechvit.kernels.cache_write import write_rows

    pixels, cfg = models.pixels, models.hooked.cfg
    device, dtype, kind = pixels.device, pixels.dtype, pixels.device.type
    a, b = (torch.randn(SIDE[kind], SIDE[kind], device=device).to(dtype) for _ in range(2))
    enough = -(-COPIED[kind] // (cfg.n_tokens * cfg.d_model * pixels.element_size()))
    resid = torch.randn(max(len(pixels), 64, enough), cfg.n_tokens, cfg.d_model, dtype=dtype, device=device)
    rows = resid.flatten(0, 1)
    into, slots = torch.empty_like(rows), torch.randperm(len(rows), device=device)
    works: dict[str, Callable[[], object]] = {
        PRODUCT: lambda: a @ b,
        COPY: lambda: into.copy_(rows),
        WRITE: lambda: write_rows(into, resid, slots),
    }
    return [Contender(name=name, call=repeated(work, CALLS[kind]), times=CALLS[kind]) for name, work in works.items()]


def repeated(work: Callable[[], object], times: int) -> Callable[[], None]:
    """Return a function that does the work several times, which a GPU does without a pause."""

    def call() -> None:
        for _ in range(times):
            work()

    return call
