"""Rates of caching the penultimate residual, by HookedViT and its peers, to device, host and disk.

    benchmarks/cache_activations.py --out runs/benchmarks/cache_activations                   # ViT-B/16, batch 8
    benchmarks/cache_activations.py --device cuda --dtype bfloat16 --batch-size 256 --out runs/benchmarks/cache_cuda
    benchmarks/cache_activations.py --shape vit_s_16 --no-captured --out runs/benchmarks/cache_s
    benchmarks/cache_activations.py --quick --out runs/benchmarks/quick     # does it run? its ratios mean little

The floor is Hugging Face's own forward pass, cut by hand after the last layer but one. Its peers run as their users run
them: `output_hidden_states`, a plain torch hook, transformer-lens's TransformerBridge, and nnsight where it is
installed. All must agree before they are timed; what each stores is the residual [batch, token, d_model]. To host
memory and to disk (a file a batch), the floor and HookedViT go the same way: on CUDA by
`mechvit.kernels.cache_write.to_host`, four batches a call, each copied while the next is computed.

The share of the matrix peak is the floor's or HookedViT's floating-point operations a second over those of one large
square product of the same dtype in the same rounds. The share of the copy peak is that of `mechvit.kernels.cache_write`
over a plain copy of as many bytes; on CUDA of 1 GiB. Both are done ten times in a measurement there.

OUT/result.json holds every time, OUT/table.md the table, OUT/figure.html draws the ratios.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from cache_contenders import (
    CAPTURED,
    COPY,
    DISK,
    EAGER,
    FLOOR,
    FLOOR_DISK,
    FLOOR_HOST,
    HOST,
    PRODUCT,
    SIDE,
    WRITE,
    contenders,
    peaks,
)
from timing import Timing, spread

from mechvit.cli.command_line import read, run
from mechvit.experiment.inputs import check_device
from mechvit.files import check_out
from mechvit.settings_checks import COUNT, THREADS, check, check_common

if TYPE_CHECKING:
    from contenders import Models
    from report import Measure

LIMITS = {"cpu": {EAGER: 1.02}, "cuda": {EAGER: 1.03, CAPTURED: 0.85}}
"""Largest time over the floor's, at ViT-B/16; on CUDA in bfloat16."""
PEAKS = {"cpu": {}, "cuda": {EAGER: 50.0, WRITE: 70.0}}
"""Smallest share of the matrix peak, and of the copy peak, percent."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the benchmark."""

    out: str
    """Folder of the result: result.json, table.md, figure.html."""
    shape: Literal["vit_s_16", "vit_b_16", "vit_l_16"] = "vit_b_16"
    """ViT-S, ViT-B or ViT-L with patches of 16 pixels at 224 pixels."""
    device: str | None = None
    """Device to compute on, as in cuda:0 or cpu; CUDA by default if there is a GPU."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of the weights and the pixels."""
    threads: int = 2
    """Threads of the CPU's operators."""
    rounds: int = 12
    """Number of measurements of every contender; even is better."""
    batch_size: int = 8
    """Images per call; 8 is a CPU's, and a GPU needs hundreds."""
    captured: bool = True
    """Compile the forward pass too (a minute and more on a CPU)."""
    quick: bool = False
    """A tiny model and two rounds; its ratios are held against no limit."""
    seed: int = 0
    """Seed of the weights, the pixels and the order of the contenders."""
    overwrite: bool = False
    """Replace an earlier result at OUT."""

    def __post_init__(self) -> None:
        check_common(self)
        check(self, THREADS, "threads")
        check(self, COUNT, "rounds")


def floating_point_operations(models: Models) -> float:
    """Return the operations of the patches' and the first n - 1 layers' products: 2 per entry and term of its sum."""
    cfg, batch = models.hooked.cfg, len(models.pixels)
    linear = 4 * cfg.d_model**2 + 2 * cfg.d_model * cfg.d_mlp
    attention = 2 * cfg.n_tokens * cfg.d_model
    layers = (cfg.n_layers - 1) * cfg.n_tokens * (linear + attention)
    patches = cfg.grid[0] * cfg.grid[1] * cfg.n_channels * cfg.patch_size**2 * cfg.d_model
    return 2.0 * batch * (layers + patches)


def rows(timing: Timing, models: Models, title: str, *, judged: bool) -> list[Measure]:
    """Return ratios to the floor, rates, and shares of the peaks."""
    from report import Measure

    pixels, cfg = models.pixels, models.hooked.cfg
    kind = pixels.device.type
    limits, least = (LIMITS[kind], PEAKS[kind]) if judged else ({}, {})
    ways = [name for name in timing.seconds if name not in (PRODUCT, COPY, WRITE)]
    found = [Measure.ratio(title, timing, name, FLOOR, limits.get(name)) for name in ways if name != FLOOR]
    found += [Measure.ratio(title, timing, name, over) for name, over in ((HOST, FLOOR_HOST), (DISK, FLOOR_DISK))]
    size = pixels.element_size()
    kept = len(pixels) * cfg.n_tokens * cfg.d_model * size
    for name in ways:
        for unit, amount in (("images/s", float(len(pixels))), ("MB/s kept", kept / 1e6)):
            value = spread([amount / seconds for seconds in timing.seconds[name]])
            found.append(Measure(part=title, contender=name, over="", seconds=timing.of(name), value=value, unit=unit))
    work = floating_point_operations(models) / (2.0 * SIDE[kind] ** 3)
    shares = []
    for name in (n for n in (FLOOR, EAGER, CAPTURED) if n in ways):
        pairs = zip(timing.seconds[name], timing.seconds[PRODUCT], strict=True)
        values = [100 * work * product / seconds for seconds, product in pairs]
        shares.append((name, PRODUCT, values, "% of the matrix peak"))
    pairs = zip(timing.seconds[WRITE], timing.seconds[COPY], strict=True)
    shares.append((WRITE, COPY, [100 * copied / written for written, copied in pairs], "% of the copy peak"))
    return found + [
        Measure(
            part=title,
            contender=name,
            over=over,
            seconds=timing.of(name),
            value=spread(values),
            unit=unit,
            at_least=least.get(name),
        )
        for name, over, values, unit in shares
    ]


def main(options: Options) -> None:
    """Time everything, print the table and write it."""
    check_out(options.out, "benchmark", overwrite=options.overwrite, flag="--overwrite")
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
    judged = shape == "vit_b_16" and (device == "cpu" or options.dtype == "bfloat16")
    publish(
        options,
        beginning,
        title="Caching activations",
        measures=rows(timing, models, title, judged=judged),
        timings={title: timing},
        agreement={title: agreement},
    )


if __name__ == "__main__":
    run(main, read(Options, __doc__))
