"""Caching the penultimate residual: images and bytes a second, by HookedViT and its peers, to device, host and disk.

    benchmarks/cache_activations.py --out runs/benchmarks/cache_activations                   # ViT-B/16, batch 8
    benchmarks/cache_activations.py --device cuda --dtype bfloat16 --batch-size 256 --out runs/benchmarks/cache_cuda
    benchmarks/cache_activations.py --shape vit_s_16 --no-captured --out runs/benchmarks/cache_s
    benchmarks/cache_activations.py --quick --out runs/benchmarks/quick     # does it run? its ratios mean little

The floor is Hugging Face's own forward pass, cut by hand after the last layer but one. Its peers run as their users run
them: `output_hidden_states`, a plain torch hook, transformer-lens's TransformerBridge, and nnsight where it is
installed. All must agree before they are timed; what each stores is the residual [batch, token, d_model].

The share of the matrix peak is the floor's or HookedViT's floating-point operations a second over those of one large
square product of the same dtype in the same rounds. The share of the copy peak is that of `mechvit.kernels.cache_write`
over a plain copy of as many bytes.

OUT/result.json holds every time, OUT/table.md the table, OUT/figure.html draws the ratios.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro
from timing import Contender, Timing, spread

from mechvit.experiment.command_line import check_device, check_out, run

if TYPE_CHECKING:
    from contenders import Models
    from report import Measure
    from torch import Tensor

FLOOR, STATES, HOOK = (
    "Hugging Face, first n - 1 layers",
    "Hugging Face, output_hidden_states",
    "Hugging Face, torch hook",
)
EAGER, CAPTURED = "HookedViT, stop_at_layer", "HookedViT, compile_cache"
BRIDGE, NNSIGHT = "TransformerBridge, stop_at_layer", "nnsight, stop"
HOST, DISK = "HookedViT, to host memory", "HookedViT, to disk"
PRODUCT, COPY, WRITE = "matrix product", "copy", "cache_write"
LIMITS = {"cpu": {EAGER: 1.02}, "cuda": {EAGER: 1.03, CAPTURED: 0.85}}
"""Largest time over the floor's, at ViT-B/16."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The settings of one benchmark."""

    out: str
    """Folder of the result: result.json, table.md, figure.html."""
    shape: Literal["vit_s_16", "vit_b_16", "vit_l_16"] = "vit_b_16"
    """ViT-S, ViT-B or ViT-L with patches of 16 pixels at 224 pixels."""
    device: str | None = None
    """Where to compute, as in cuda:0 or cpu; by default CUDA where there is one."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the weights and the pixels."""
    threads: int = 2
    """Threads of the CPU's operators."""
    rounds: int = 12
    """Times that every contender is measured; even is better."""
    batch_size: int = 8
    """Images a call; 8 is a CPU's, and a GPU needs hundreds."""
    captured: bool = True
    """Compile the forward pass too (a minute and more on a CPU)."""
    quick: bool = False
    """A tiny model and two rounds; its ratios are held against no limit."""
    seed: int = 0
    """Of the weights, the pixels and the order of the contenders."""
    overwrite: bool = False
    """Replace an earlier result at OUT."""

    def __post_init__(self) -> None:
        if min(self.threads, self.rounds, self.batch_size) < 1:
            raise ValueError(
                "threads, rounds and batch_size must be at least 1; got "
                f"{self.threads}, {self.rounds} and {self.batch_size}"
            )


def contenders(models: Models, batch_size: int, captured: bool, folder: str) -> list[Contender]:
    """Every way to the residual that enters the last block."""
    import torch

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

    host = torch.empty(
        (batch_size, model.cfg.n_tokens, model.cfg.d_model), dtype=pixels.dtype, pin_memory=pixels.is_cuda
    )

    def to_host() -> Tensor:
        return host.copy_(eager())

    def to_disk() -> Tensor:
        from safetensors.torch import save_file

        resid = eager().cpu().contiguous()
        beside = Path(folder) / "batch.partial"
        save_file({"resid": resid}, beside)
        os.replace(beside, Path(folder) / "batch.safetensors")
        return resid

    ways: dict[str, Callable[[], Tensor]] = {FLOOR: floor, STATES: states, HOOK: hook, EAGER: eager}
    if captured:
        compiled = model.compile_cache(name, stop_at_layer=stop, batch_size=batch_size)
        compiled(pixels)
        if compiled.compiled:  # else a warning has said why
            ways[CAPTURED] = lambda: compiled(pixels)[name]
    ways |= peers(models, stop, name, folder)
    ways |= {HOST: to_host, DISK: to_disk}
    return [
        Contender(name=way, call=call, tensors=lambda out: {"resid": out.to(pixels.device)})
        for way, call in ways.items()
    ]


def peers(models: Models, stop: int, name: str, folder: str) -> dict[str, Callable[[], Tensor]]:
    """transformer-lens's bridge, and nnsight where it is installed, on copies of the model."""
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
    if importlib.util.find_spec("nnsight") is not None:
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
    """A square matrix product, a copy, and the cache write of as many bytes."""
    import torch

    from mechvit.kernels.cache_write import write_rows

    pixels, cfg = models.pixels, models.hooked.cfg
    side = 8192 if pixels.is_cuda else 1536
    a, b = (torch.randn(side, side, device=pixels.device).to(pixels.dtype) for _ in range(2))
    resid = torch.randn(max(len(pixels), 64), cfg.n_tokens, cfg.d_model, device=pixels.device).to(pixels.dtype)
    rows = resid.flatten(0, 1)
    into, slots = torch.empty_like(rows), torch.randperm(len(rows), device=pixels.device)
    return [
        Contender(name=PRODUCT, call=lambda: a @ b),
        Contender(name=COPY, call=lambda: into.copy_(rows)),
        Contender(name=WRITE, call=lambda: write_rows(into, resid, slots)),
    ]


def floating_point_operations(models: Models) -> float:
    """Of the patches and the first n - 1 layers, products alone: 2 an entry of a product and term of its sum."""
    cfg, batch = models.hooked.cfg, len(models.pixels)
    linear = 4 * cfg.d_model**2 + 2 * cfg.d_model * cfg.d_mlp
    attention = 2 * cfg.n_tokens * cfg.d_model
    layers = (cfg.n_layers - 1) * cfg.n_tokens * (linear + attention)
    patches = cfg.grid[0] * cfg.grid[1] * cfg.n_channels * cfg.patch_size**2 * cfg.d_model
    return 2.0 * batch * (layers + patches)


def rows(timing: Timing, models: Models, kind: str, title: str, *, judged: bool) -> list[Measure]:
    """Give ratios to the floor, rates, and shares of the peaks."""
    from report import Measure

    pixels, cfg = models.pixels, models.hooked.cfg
    ways = [name for name in timing.seconds if name not in (PRODUCT, COPY, WRITE)]
    found = [
        Measure(
            part=title,
            contender=name,
            over=FLOOR,
            seconds=timing.of(name),
            value=timing.ratio(name, FLOOR),
            limit=LIMITS[kind].get(name) if judged else None,
        )
        for name in ways
        if name != FLOOR
    ]
    size = pixels.element_size()
    kept = len(pixels) * cfg.n_tokens * cfg.d_model * size
    for name in ways:
        for unit, amount in (("images/s", float(len(pixels))), ("MB/s kept", kept / 1e6)):
            value = spread([amount / seconds for seconds in timing.seconds[name]])
            found.append(Measure(part=title, contender=name, over="", seconds=timing.of(name), value=value, unit=unit))
    side = 8192 if pixels.is_cuda else 1536
    work = floating_point_operations(models) / (2.0 * side**3)
    for name in (n for n in (FLOOR, EAGER, CAPTURED) if n in ways):
        pairs = zip(timing.seconds[name], timing.seconds[PRODUCT], strict=True)
        value = spread([100 * work * product / seconds for seconds, product in pairs])
        unit = "% of the matrix peak"
        found.append(Measure(part=title, contender=name, over=PRODUCT, seconds=timing.of(name), value=value, unit=unit))
    pairs = zip(timing.seconds[WRITE], timing.seconds[COPY], strict=True)
    value = spread([100 * copied / written for written, copied in pairs])
    unit = "% of the copy peak"
    found.append(Measure(part=title, contender=WRITE, over=COPY, seconds=timing.of(WRITE), value=value, unit=unit))
    return found


def main(options: Options) -> None:
    """Time everything, print the table and write it."""
    check_out(options.out, options.overwrite, "result.json")
    check_device(options.device)
    import torch
    from contenders import TOLERANCES, check_agreement, make_models
    from report import Beginning, publish
    from timing import time_interleaved

    torch.set_num_threads(options.threads)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    rounds = min(options.rounds, 2) if options.quick else options.rounds
    shape = "tiny" if options.quick else options.shape
    options, beginning = replace(options, device=device, rounds=rounds), Beginning.now(device)
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        models = make_models(shape, options.batch_size, device, options.dtype, options.seed)
        title = f"penultimate residual, {shape}, batch {options.batch_size}"
        ways = contenders(models, options.batch_size, options.captured, folder)
        agreement = check_agreement(ways, TOLERANCES[options.dtype])
        timing = time_interleaved(
            [*ways, *peaks(models)], rounds=rounds, device=device, seed=options.seed, progress=title
        )
    kind = "cuda" if device.startswith("cuda") else "cpu"
    publish(
        options,
        beginning,
        title="Caching activations",
        measures=rows(timing, models, kind, title, judged=shape == "vit_b_16"),
        timings={title: timing},
        agreement={title: agreement},
    )


if __name__ == "__main__":
    run(main, tyro.cli(Options, description=__doc__))
