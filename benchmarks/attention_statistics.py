"""Cost of every layer's attention entropy over a plain forward pass: time and memory, 37 to 4,097 tokens.

    benchmarks/attention_statistics.py --out runs/benchmarks/attention_statistics
    benchmarks/attention_statistics.py --tokens 197 1370 --no-peers --rounds 12 --out runs/benchmarks/entropy
    benchmarks/attention_statistics.py --tokens 4097 --no-peers --rounds 2 --out runs/benchmarks/entropy_4097  # long
    benchmarks/attention_statistics.py --quick --out runs/benchmarks/quick      # does it run? its ratios mean little

Contenders: a plain forward pass on fused attention; `mechvit.analysis`'s way, as it chooses by size; the same from
queries and keys alone; the same from patterns, layer by layer; all patterns cached, then measured; and Hugging Face
with `output_attentions=True`. They must agree before they are timed. Memory is the peak of one call beyond what was
held before it, over that of the plain forward, as a share of one layer's patterns of the batch.

OUT/result.json holds every time, OUT/table.md the table, OUT/figure.html draws the ratios.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from timing import Contender, Spread

from mechvit.cli.command_line import read, run
from mechvit.experiment.inputs import check_device
from mechvit.files import check_out
from mechvit.settings_checks import COUNT, THREADS, check, check_common, check_some

if TYPE_CHECKING:
    from contenders import Models
    from report import Measure
    from torch import Tensor

PLAIN, CHOSEN, HEADS, PATTERNS = "plain forward", "entropy", "entropy, queries and keys", "entropy, patterns"
CACHED, EAGER = "all patterns cached, then entropy", "Hugging Face output_attentions, then entropy"
SHAPES: dict[int, tuple[str, dict[str, int]]] = {
    37: ("small", {"cpu": 256, "cuda": 4096}),
    197: ("vit_b_16", {"cpu": 8, "cuda": 128}),
    577: ("vit_b_16_577", {"cpu": 4, "cuda": 32}),
    1370: ("vit_b_16_1370", {"cpu": 2, "cuda": 16}),
    4097: ("vit_b_16_4097", {"cpu": 1, "cuda": 4}),
}
"""Tokens -> the model's shape and the images of a batch: few for a CPU, enough to fill a GPU."""
LIMITS: dict[str, dict[int, float]] = {"cpu": {37: 1.10, 197: 1.10, 1370: 1.3}, "cuda": {197: 1.15, 1370: 1.3}}
"""Largest ratio of time to the plain forward's; on CUDA in bfloat16."""
MEMORY_LIMITS = {"cpu": 5.0, "cuda": 1.0}
"""Largest extra peak at 1,370 tokens, percent of one layer's patterns of the batch; on CUDA in bfloat16."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the benchmark."""

    out: str
    """Folder of the result: result.json, table.md, figure.html."""
    tokens: tuple[Literal[37, 197, 577, 1370, 4097], ...] = (37, 197, 577, 1370)
    """Sequence lengths; 37 is a small model (48 px, 6 layers, width 96), the others ViT-B/16 of larger images (577 is
    384 px)."""
    batch_size: int | None = None
    """Images per call; None takes from 256 (37 tokens) to 1 (4,097) on a CPU, and about as much work as fills a GPU."""
    device: str | None = None
    """Device to compute on, as in cuda:0 or cpu; CUDA by default if there is a GPU."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of the weights and the pixels."""
    threads: int = 2
    """Threads of the CPU's operators."""
    rounds: int = 8
    """Number of measurements of every contender; even is better. 1,370 tokens take a minute a round on two cores."""
    peers: bool = True
    """Time the other ways too; without them more rounds take less time."""
    quick: bool = False
    """A tiny model, and two rounds; its ratios are held against no limit."""
    seed: int = 0
    """Seed of the weights, the pixels and the order of the contenders."""
    overwrite: bool = False
    """Replace an earlier result at OUT."""

    def __post_init__(self) -> None:
        check_common(self)
        check_some(self, "tokens")
        check(self, THREADS, "threads")
        check(self, COUNT, "rounds")


def contenders(models: Models, memory_is_short: bool, peers: bool) -> list[Contender]:
    """Return every way to compute the entropies [layer, batch], or ours alone; those that hold all patterns are left
    out if memory is short."""
    import torch

    from mechvit.analysis.attention import capture as reading

    model, pixels = models.hooked, models.pixels
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(model.cfg.n_layers)]

    def entropy(most_within: int | None = None) -> Tensor:
        before = reading.MIXED_TOKENS
        reading.MIXED_TOKENS = before if most_within is None else most_within
        try:
            with reading.entropy_reading(model) as (hooks, found):
                model.run_with_hooks(pixels, fwd_hooks=hooks)
        finally:
            reading.MIXED_TOKENS = before
        return torch.stack(found)

    def by_layer() -> Tensor:
        found: list[Tensor] = []
        read = [(name, lambda pattern, hook: found.append(reading.pattern_entropy(pattern.float()))) for name in names]
        model.run_with_hooks(pixels, fwd_hooks=read)
        return torch.stack(found)

    def of_patterns(patterns: Any) -> Tensor:
        return torch.stack([reading.pattern_entropy(pattern.float()) for pattern in patterns])

    def cached() -> Tensor:
        _, cache = model.run_with_cache(pixels, names_filter=names)
        return of_patterns(cache[name] for name in names)

    def eager() -> Tensor:
        return of_patterns(models.eager(pixels, output_attentions=True).attentions)

    ways: dict[str, Callable[[], Tensor]] = {CHOSEN: entropy}
    if peers:
        ways |= {HEADS: partial(entropy, 0), PATTERNS: by_layer}
    if peers and not memory_is_short:
        ways |= {CACHED: cached, EAGER: eager}
    return [Contender(name=name, call=call, tensors=lambda out: {"entropy": out}) for name, call in ways.items()]


def main(options: Options) -> None:
    """Time each sequence length, print the table and write it."""
    check_out(options.out, "benchmark", overwrite=options.overwrite, flag="--overwrite")
    check_device(options.device)
    import torch
    from contenders import TOLERANCES, check_agreement, make_models
    from report import Beginning, publish
    from timing import time_interleaved

    torch.set_num_threads(options.threads)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    rounds = min(options.rounds, 2) if options.quick else options.rounds
    options, beginning = replace(options, device=device, rounds=rounds), Beginning.now(device)
    kind = "cuda" if device.startswith("cuda") else "cpu"
    judged = not options.quick and (kind == "cpu" or options.dtype == "bfloat16")
    measures, timings, agreement = [], {}, {}
    with torch.inference_mode():
        for tokens in options.tokens[: 1 if options.quick else None]:
            shape, sizes = ("tiny", {kind: 2}) if options.quick else SHAPES[tokens]
            batch = options.batch_size or sizes[kind]
            models = make_models(shape, batch, device, options.dtype, options.seed)
            title = f"{models.hooked.cfg.n_tokens} tokens, batch {batch}"
            ways = contenders(models, memory_is_short=tokens > 2000, peers=options.peers)
            agreement[title] = check_agreement(ways, TOLERANCES[options.dtype])
            plain = Contender(name=PLAIN, call=partial(models.hooked, models.pixels))
            timings[title] = timing = time_interleaved(
                [plain, *ways], rounds=rounds, device=device, seed=options.seed, progress=title
            )
            measures += time_rows(title, timing, LIMITS[kind].get(tokens) if judged else None, judged=judged)
            memory_limit = MEMORY_LIMITS[kind] if tokens == 1370 and judged else None
            measures += memory_rows(title, [plain, *ways], models, timing, memory_limit)
            del models, ways, plain
    publish(
        options,
        beginning,
        title="Cost of the entropy of attention",
        measures=measures,
        timings=timings,
        agreement=agreement,
    )


def time_rows(title: str, timing: Any, limit: float | None, *, judged: bool) -> list[Measure]:
    """Return each way's time over the plain forward's, and the chosen way's over the eager ones'."""
    from report import Measure

    names = [name for name in timing.seconds if name != PLAIN]
    pairs = [(name, PLAIN, limit if name == CHOSEN else None) for name in names]
    pairs += [(CHOSEN, other, 1.0 if judged else None) for other in (CACHED, EAGER) if other in names]
    return [
        Measure(
            part=title,
            contender=name,
            over=over,
            seconds=timing.of(name),
            value=timing.ratio(name, over),
            limit=most,
        )
        for name, over, most in pairs
    ]


def memory_rows(title: str, ways: list[Contender], models: Models, timing: Any, limit: float | None) -> list[Measure]:
    """Return each way's extra peak memory over the plain forward's, in percent of one layer's patterns of the batch."""
    from memory import peak_extra
    from report import Measure

    cfg = models.hooked.cfg
    one_layer = len(models.pixels) * cfg.n_heads * cfg.n_tokens**2 * models.pixels.element_size()
    peaks = {way.name: peak_extra(way.call, str(cfg.device)) for way in ways}
    rows = []
    for way in ways[1:]:
        extra = 100 * (peaks[way.name] - peaks[PLAIN]) / one_layer
        value = Spread(median=extra, lower_quartile=extra, upper_quartile=extra, low=None, high=None, n=1)
        rows.append(
            Measure(
                part=f"{title}, peak memory",
                contender=way.name,
                over=PLAIN,
                seconds=timing.of(way.name),
                value=value,
                unit="% of a layer's patterns",
                limit=limit if way.name == CHOSEN else None,
            )
        )
    return rows


if __name__ == "__main__":
    run(main, read(Options, __doc__))
