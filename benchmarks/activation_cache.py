"""What a cache of activations costs to write and to read: against the bare forward pass, the disk, and random rows.

    benchmarks/activation_cache.py --out runs/benchmarks/activation_cache    # 4 GB a part, ViT-B/16
    benchmarks/activation_cache.py --parts all_tokens --scratch /mnt/disk --out runs/benchmarks/activation_cache
    benchmarks/activation_cache.py --quick --out runs/benchmarks/quick       # does it run? its ratios mean little

Reading: all contenders read the same files, which the operating system is asked to forget first, in the same rounds. A
value is the median over the rounds of one time over another in the same round; the naive reader reads some of the rows,
and its time is scaled to all of them. The rows `batches' entropy` tell how well an epoch is mixed: each batch's entropy
over images (or shards) over that of uniformly random batches, where 1 is a perfect shuffle.

Writing: all that `cache_activations` does for each image, over the same model's forward pass up to the same layer on
the same images, ready in memory. What it does once a run (hashing the model, trying one image, opening) has its own
row.

Leave the machine alone while it runs. OUT/result.json holds every time, OUT/table.md the table, OUT/figure.html draws
the ratios. The exit status is 0 whether or not a limit is met.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro
from timing import Contender, Timing

from mechvit.experiment.command_line import check_out, run

if TYPE_CHECKING:
    from report import Measure

SEQUENTIAL, NAIVE, READER, READER_CACHED = (
    "files read front to back",
    "random rows, one by one",
    "shuffled epoch",
    "shuffled epoch, direct=False",
)
FORWARD, WRITER, START = "forward pass to the same layer", "cache_activations", "cache_activations, all there already"
PartName = Literal["all_tokens", "cls", "hooks", "writer"]
SHAPES: dict[str, tuple[str, int, tuple[int, ...]]] = {
    "all_tokens": ("197 tokens, width 768", 197, (768,)),
    "cls": ("class token, width 768", 1, (768,)),
    "hooks": ("65 tokens, three hook points of width 96", 65, (96, 96, 96)),
}
"""The caches that are read: title, tokens an image, widths."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The settings of one benchmark."""

    out: str
    """Folder of the result: result.json, table.md, figure.html."""
    parts: tuple[PartName, ...] = ("all_tokens", "cls", "hooks", "writer")
    """Reading all tokens, class tokens, several hook points; writing."""
    scratch: str | None = None
    """Folder on the disk to be measured; by default the system's for temporary files."""
    megabytes: int = 4000
    """Size of each cache that is read, in millions of bytes."""
    buffer_megabytes: int = 1000
    """Memory for shuffling; less than the cache, or it is shuffled as a whole."""
    batch_size: int = 4096
    """Rows a training batch."""
    naive_rows: int = 20_000
    """Rows that the naive reader reads."""
    images: int = 64
    """Images that are cached, 32 a batch."""
    threads: int = 1
    """Threads of the CPU's operators."""
    rounds: int = 10
    """Times that every contender is measured; even is better."""
    quick: bool = False
    """Caches of 20 MB, a tiny model, and three rounds at most; held against no limit."""
    overwrite: bool = False
    """Replace an earlier result at OUT."""

    def __post_init__(self) -> None:
        sizes = ("megabytes", "buffer_megabytes", "batch_size", "naive_rows", "images", "threads", "rounds")
        if wrong := [name for name in sizes if getattr(self, name) < 1]:
            raise ValueError(f"{', '.join(wrong)} must be at least 1")


def main(options: Options) -> None:
    """Time each part, print the table and write it."""
    check_out(options.out, options.overwrite, "result.json")
    import torch
    from report import Result, about_this_machine, load_average, markdown, write

    if options.quick:
        options = replace(
            options, rounds=min(options.rounds, 3), megabytes=20, buffer_megabytes=5, batch_size=256, naive_rows=500
        )
    torch.set_num_threads(options.threads)
    load, about = load_average(), about_this_machine()
    measures: list[Measure] = []
    timings: dict[str, Timing] = {}
    with tempfile.TemporaryDirectory(dir=options.scratch, prefix="activation-cache-") as folder:
        for part in options.parts:
            found = writing(options, Path(folder)) if part == "writer" else reading(part, options, Path(folder))
            title, timings_of_part, rows = found
            timings[title], measures = timings_of_part, measures + rows
    result = Result(
        title="What a cache of activations costs",
        settings={k: v for k, v in asdict(options).items() if k not in ("out", "overwrite", "scratch")},
        measures=tuple(measures),
        timings=timings,
        agreement={},
        load=(load, load_average()),
        **about,
    )
    written = write(result, options.out, overwrite=options.overwrite)
    print(f"\n{markdown(result)}\n{written}: {', '.join(sorted(path.name for path in written.iterdir()))}")


def reading(part: str, options: Options, scratch: Path) -> tuple[str, Timing, list[Measure]]:
    """Time the readers on one cache, and measure how well its epochs are mixed."""
    import cache_contenders as ways
    from report import Measure
    from timing import spread, time_interleaved

    from mechvit.saes.cached import CachedActivations

    title, tokens, widths = SHAPES[part]
    n_bytes, shard_bytes = options.megabytes * 10**6, min(256, options.megabytes // 10) * 10**6
    folder = ways.make_cache(scratch / part, n_bytes=n_bytes, tokens=tokens, widths=widths, shard_bytes=shard_bytes)
    cache = CachedActivations(folder)
    settings = {"batch_size": options.batch_size, "buffer_bytes": options.buffer_megabytes * 10**6}
    naive_rows = min(options.naive_rows, cache.n_rows)

    def contender(name: str, call: Callable[[], int]) -> Contender:
        return Contender(name=name, call=call, context=lambda: ways.uncached(cache))

    measured = time_interleaved(
        [
            contender(SEQUENTIAL, lambda: ways.read_sequentially(cache)),
            contender(READER, lambda: ways.read_epoch(cache, **settings)),
            contender(READER_CACHED, lambda: ways.read_epoch(cache, direct=False, **settings)),
            contender(NAIVE, lambda: ways.read_random_rows(cache, naive_rows, options.batch_size)),
        ],
        rounds=options.rounds,
        progress=title,
    )
    naive = tuple(seconds * cache.n_rows / naive_rows for seconds in measured.seconds[NAIVE])
    timing = Timing(seconds={**measured.seconds, NAIVE: naive})
    limits: Sequence[tuple[str, str, float | None]] = (
        (READER, SEQUENTIAL, 1 / 0.6),
        (READER_CACHED, SEQUENTIAL, None),
        (READER, NAIVE, 1 / 10),
    )
    rows = [
        Measure(
            part=title,
            contender=name,
            over=over,
            seconds=timing.of(name),
            value=timing.ratio(name, over),
            limit=None if options.quick else limit,
        )
        for name, over, limit in limits
    ]
    for group, values in ways.mixing(cache, **settings).items():
        rows.append(
            Measure(
                part=title,
                contender=f"{READER}: batches' entropy over {group}",
                over="uniformly random batches",
                seconds=timing.of(READER),
                value=spread(values),
                unit="of theirs",
            )
        )
    return title, timing, rows


def writing(options: Options, scratch: Path) -> tuple[str, Timing, list[Measure]]:
    """Time the writer against the bare forward pass."""
    import cache_contenders as ways
    import torch
    from contenders import make_models
    from report import Measure
    from timing import time_interleaved
    from transformers import ViTImageProcessorPil

    from mechvit.data import iter_batches, normalize
    from mechvit.saes.cached import Plan, cache_activations, writer

    model = make_models("tiny" if options.quick else "vit_b_16", 1, "cpu", "float32", 0).hooked
    size, stop = model.cfg.image_size, model.cfg.n_layers - 1
    model.image_processor = ViTImageProcessorPil(size={"height": size, "width": size})
    images = ways.random_images(options.images, size)
    hooks = (f"blocks.{stop - 1}.hook_resid_post",)
    ready = [normalize(batch.images, model.image_processor) for batch in iter_batches(images, batch_size=32)]
    done = scratch / "done"
    plan: Plan = cache_activations(model, images, done, hooks=hooks, batch_size=32, progress=None).plan
    fresh: list[Path] = []

    @contextmanager
    def new_folder() -> Iterator[None]:
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            fresh.append(Path(folder))
            yield

    def forward() -> None:
        with torch.no_grad():
            for pixels in ready:
                model(pixels, stop_at_layer=stop)

    title = f"writing, {'tiny' if options.quick else 'ViT-B/16'}"
    timing = time_interleaved(
        [
            Contender(name=FORWARD, call=forward),
            Contender(
                name=WRITER,
                call=lambda: writer._write_missing(model, images, fresh[-1], plan, range(plan.n_shards), None),
                context=new_folder,
            ),
            Contender(
                name=START,
                call=lambda: cache_activations(model, images, done, hooks=hooks, batch_size=32, progress=None),
            ),
        ],
        rounds=options.rounds,
        progress=title,
    )
    rows = [
        Measure(
            part=title,
            contender=WRITER,
            over=FORWARD,
            seconds=timing.of(WRITER),
            value=timing.ratio(WRITER, FORWARD),
            limit=None if options.quick else 1.05,
        ),
        Measure(
            part=title,
            contender=START,
            over="nothing",
            seconds=timing.of(START),
            value=timing.of(START),
            unit="s a run",
        ),
    ]
    return title, timing, rows


if __name__ == "__main__":
    run(main, tyro.cli(Options, description=__doc__))
