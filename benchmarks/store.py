"""Cost of storing activations: streaming, mixing, writing to disk and reading from it.

    benchmarks/store.py --out runs/benchmarks/store                              # 4 GB a part, ViT-B/16
    benchmarks/store.py --parts all_tokens --scratch /mnt/disk --out runs/benchmarks/disk
    benchmarks/store.py --quick --out runs/benchmarks/quick                      # does it run? its ratios mean little

Streaming: one pass over prepared clean images, read, normalised, checked and mixed, over a loop of truncated forward
passes on pixels that lie ready. Mixing: the same batches, bit for bit, over sae-lens's own buffer.

Reading: all contenders read the same files, which the operating system is asked to forget first. The naive reader reads
some of the rows, and its time is scaled to all of them. The rows `batches' entropy` tell how well an epoch is mixed:
each batch's entropy over images (or shards) over that of uniformly random batches, where 1 is a perfect shuffle.

Writing: a shard with its checksum over as many bytes written and synced in one go; and all that `cache_activations`
does for each image over the same model's forward pass up to the same layer on the same images, ready in memory. What it
does once a run (hashing the model, trying one image, opening) has its own row.

A value is the median over the rounds of one time over another in the same round. Leave the machine alone while it runs.
OUT/result.json holds every time, OUT/table.md the table, OUT/figure.html draws the ratios. The exit status is 0 whether
or not a limit is met.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mechvit.cli.command_line import read, run
from mechvit.experiment.inputs import check_device
from mechvit.files import check_out
from mechvit.settings_checks import COUNT, THREADS, check, check_common, check_some

if TYPE_CHECKING:
    from report import Measure
    from timing import Timing

PartName = Literal["streaming", "mixing", "all_tokens", "cls", "hooks", "shards", "writer"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the benchmark."""

    out: str
    """Folder of the result: result.json, table.md, figure.html."""
    parts: tuple[PartName, ...] = ("streaming", "mixing", "all_tokens", "cls", "hooks", "shards", "writer")
    """The streaming store; the mixing buffer; reading all tokens, class tokens, several hook points; writing a shard;
    the whole writer."""
    device: str | None = None
    """Device of the streaming store, the mixing and the writer's model, as in cuda:0 or cpu; CUDA by default if there
    is a GPU."""
    scratch: str | None = None
    """Folder on the disk to be measured; by default the system's for temporary files."""
    megabytes: int = 4000
    """Size of each cache that is read, in millions of bytes."""
    buffer_megabytes: int = 1000
    """Memory for shuffling; less than the cache, or it is shuffled as a whole."""
    batch_size: int = 4096
    """Rows per training batch."""
    naive_rows: int = 20_000
    """Rows that the naive reader reads."""
    images: int = 64
    """Images that are cached, 32 a batch."""
    threads: int = 1
    """Threads of the CPU's operators."""
    rounds: int = 10
    """Number of measurements of every contender; even is better."""
    quick: bool = False
    """Caches of 20 MB, a tiny model, and three rounds at most; held against no limit."""
    overwrite: bool = False
    """Replace an earlier result at OUT."""

    def __post_init__(self) -> None:
        check_common(self)
        check_some(self, "parts")
        check(self, THREADS, "threads")
        check(self, COUNT, "megabytes", "buffer_megabytes", "naive_rows", "images", "rounds")


def measured(part: PartName, options: Options, scratch: Path) -> tuple[str, Timing, list[Measure]]:
    """Time one part."""
    import store_parts

    if part in ("streaming", "mixing"):
        return store_parts.streaming(options) if part == "streaming" else store_parts.mixing(options)
    if part in ("shards", "writer"):
        return (store_parts.writing_shards if part == "shards" else store_parts.writing)(options, scratch)
    return store_parts.reading(part, options, scratch)


def main(options: Options) -> None:
    """Time each part, print the table and write it."""
    check_out(options.out, "benchmark", overwrite=options.overwrite, flag="--overwrite")
    check_device(options.device)
    import torch
    from report import Beginning, publish

    if options.quick:
        options = replace(
            options, rounds=min(options.rounds, 3), megabytes=20, buffer_megabytes=5, batch_size=256, naive_rows=500
        )
    torch.set_num_threads(options.threads)
    options = replace(options, device=options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    beginning = Beginning.now(options.device)
    measures: list[Measure] = []
    timings: dict[str, Timing] = {}
    with tempfile.TemporaryDirectory(dir=options.scratch, prefix="activation-cache-") as folder:
        for part in options.parts:
            title, timing, rows = measured(part, options, Path(folder))
            timings[title], measures = timing, measures + rows
    publish(options, beginning, title="Cost of storing activations", measures=measures, timings=timings)


if __name__ == "__main__":
    run(main, read(Options, __doc__))
