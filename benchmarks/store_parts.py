"""Parts of the store benchmark, streaming, mixing, reading and writing, each with its title, times and rows."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import store_contenders as ways
import torch
from contenders import check_agreement, make_models
from report import Measure
from timing import Contender, Timing, spread, time_interleaved

if TYPE_CHECKING:
    from store import Options
    from torch import Tensor

    from mechvit import HookedViT

SEQUENTIAL, NAIVE, READER, READER_CACHED = (
    "files read front to back",
    "random rows, one by one",
    "shuffled epoch",
    "shuffled epoch, direct=False",
)
FORWARD, WRITER, START = "forward pass to the same layer", "cache_activations", "cache_activations, all there already"
BARE, STORE = "truncated forward", "ImageActivationsStore"
STOCK_MIX, OUR_MIX = "sae-lens's mixing_buffer", "mechvit's mixing_buffer"
RAW, SHARD = "as many bytes, written and synced", "write_shard"
SHAPES: dict[str, tuple[str, int, tuple[int, ...]]] = {
    "all_tokens": ("197 tokens, width 768", 197, (768,)),
    "cls": ("class token, width 768", 1, (768,)),
    "hooks": ("65 tokens, three hook points of width 96", 65, (96, 96, 96)),
}
"""The caches that are read: title, tokens an image, widths."""

Found = tuple[str, Timing, list[Measure]]


def streaming(options: Options) -> Found:
    """Time the image store against bare forward passes up to the penultimate residual."""
    from mechvit.data import iter_batches, load_images, normalize, prepare
    from mechvit.saes.activations.image_store import ImageActivationsStore, sae_input_widths
    from mechvit.saes.config import StreamConfig

    shape, n_images, per_batch = ("tiny", 38, 19) if options.quick else ("small", 512, 64)
    model = with_processor(shape, str(options.device), 0)
    images = load_images("photos", "sae", limit=n_images, image_size=model.cfg.image_size)
    images = prepare(images, model.image_processor)
    ready = [
        normalize(batch.images, model.image_processor)
        for batch in iter_batches(images, batch_size=per_batch, device=str(options.device))
    ]
    tokens = len(images) * model.cfg.n_tokens
    config = StreamConfig(
        images_per_batch=per_batch,
        clean_fraction=1.0,
        train_batch_size_tokens=max(n for n in range(1, min(options.batch_size, tokens) + 1) if tokens % n == 0),
    )
    widths = sae_input_widths(model, config)

    def bare() -> list[Tensor]:
        return [model(pixels, stop_at_layer=model.cfg.n_layers - 1).flatten(0, 1) for pixels in ready]

    def stored() -> list[Tensor]:
        return list(ImageActivationsStore(model, images, corruptions=(), config=config, widths=widths))

    def tensors(found: list[Tensor]) -> dict[str, Tensor]:
        rows = torch.cat(found).double()  # in another order
        return {"mean": rows.mean(0), "norms": rows.norm(dim=1).sort().values}

    title = f"streaming, {shape} ViT"
    contenders = [
        Contender(name=BARE, call=bare, tensors=tensors),
        Contender(name=STORE, call=stored, tensors=tensors),
    ]
    with torch.no_grad():
        check_agreement(contenders, 1e-4)
        timing = time_interleaved(contenders, rounds=options.rounds, device=str(options.device), progress=title)
    return title, timing, [Measure.ratio(title, timing, STORE, BARE, None if options.quick else 1.05)]


def with_processor(shape: str, device: str, seed: int) -> HookedViT:
    """Return a HookedViT with an image processor of its own size."""
    from transformers import ViTImageProcessorPil

    model = make_models(shape, 1, device, "float32", seed).hooked
    size = {"height": model.cfg.image_size, "width": model.cfg.image_size}
    model.image_processor = ViTImageProcessorPil(size=size)
    return model


def mixing(options: Options) -> Found:
    """Time the image store's mixing buffer against sae-lens's own, on chunks in memory; the batches are the same."""
    from sae_lens.training import mixing_buffer as stock

    from mechvit.saes.activations import mixing_buffer as ours

    width, tokens, images, n_chunks, capacity = (8, 5, 4, 20, 60) if options.quick else (768, 197, 8, 100, 65_536)
    generator = torch.Generator(str(options.device)).manual_seed(0)
    shape, device = (images * tokens, width), str(options.device)
    chunks = [torch.randn(shape, generator=generator, device=device) for _ in range(n_chunks)]
    batch_size = min(options.batch_size, capacity // 4)

    def contender(name: str, buffer: Callable[..., Iterator[Tensor]]) -> Contender:
        def call() -> Tensor:
            torch.manual_seed(0)
            for batch in buffer(capacity, batch_size, iter(chunks)):
                last = batch
            return last

        return Contender(name=name, call=call, tensors=lambda last: {"last batch": last})

    title = f"mixing, {capacity} of {n_chunks * shape[0]} rows of width {width}"
    contenders = [contender(STOCK_MIX, stock.mixing_buffer), contender(OUR_MIX, ours.mixing_buffer)]
    check_agreement(contenders, 0.0)
    timing = time_interleaved(contenders, rounds=options.rounds, device=device, progress=title)
    rows = [Measure.ratio(title, timing, OUR_MIX, STOCK_MIX)]
    for name in (STOCK_MIX, OUR_MIX):
        rates = spread([n_chunks * shape[0] / s for s in timing.seconds[name]])
        rows.append(Measure(part=title, contender=name, over="", seconds=timing.of(name), value=rates, unit="rows/s"))
    return title, timing, rows


def reading(part: str, options: Options, scratch: Path) -> Found:
    """Time the readers on one cache, and measure how well its epochs are mixed."""
    from mechvit.saes.activation_cache import CachedActivations

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
    rows = [Measure.ratio(title, timing, name, over, None if options.quick else limit) for name, over, limit in limits]
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


def writing(options: Options, scratch: Path) -> Found:
    """Time the writer against the bare forward pass, both on the device."""
    from mechvit.data import iter_batches, normalize
    from mechvit.saes.activation_cache import CacheConfig, Plan, cache_activations, writer

    device = str(options.device)
    model = with_processor("tiny" if options.quick else "vit_b_16", device, 0)
    size, stop = model.cfg.image_size, model.cfg.n_layers - 1
    images = ways.random_images(options.images, size)
    hooks = (f"blocks.{stop - 1}.hook_resid_post",)
    ready = [
        normalize(batch.images, model.image_processor) for batch in iter_batches(images, batch_size=32, device=device)
    ]
    done, config = scratch / "done", CacheConfig(hooks=hooks, batch_size=32)
    plan: Plan = cache_activations(model, images, done, config, progress=None).plan
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
                call=lambda: cache_activations(model, images, done, config, progress=None),
            ),
        ],
        rounds=options.rounds,
        device=device,
        progress=title,
    )
    rows = [
        Measure.ratio(title, timing, WRITER, FORWARD, None if options.quick else 1.05),
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


def writing_shards(options: Options, scratch: Path) -> Found:
    """Time shards with their checksums against as many bytes written to the same disk at once and synced."""
    from mechvit.files import begin
    from mechvit.saes.activation_cache.manifest import DTYPES
    from mechvit.saes.activation_cache.shards import write_shard

    n_bytes = min(256, options.megabytes // 4) * 10**6
    made = ways.make_cache(scratch / "made", n_bytes=n_bytes, tokens=197, widths=(768,), shard_bytes=n_bytes)
    plan = ways.CachedActivations(made).plan
    rows = torch.randn(plan.rows_of(0), 768).to(DTYPES[plan.dtype])
    ids = torch.arange(len(plan.images_of(0)))
    images = {"image_id": ids, "label": ids * 0, "corruption": ids * 0 - 1}
    data = rows.view(torch.uint8).numpy().tobytes()
    target = scratch / "written"
    begin(target, "cached activations")

    def raw() -> None:
        with open(target / "raw", "wb", buffering=0) as file:
            file.write(data)
            os.fsync(file.fileno())

    def shard() -> None:
        write_shard(target, plan, 0, {"hook_0": rows}, images)

    title = f"writing a shard of {len(data) / 1e6:.0f} MB"
    timing = time_interleaved(
        [Contender(name=RAW, call=raw), Contender(name=SHARD, call=shard)], rounds=options.rounds, progress=title
    )
    found = [Measure.ratio(title, timing, SHARD, RAW)]
    for name in (RAW, SHARD):
        rates = spread([len(data) / 1e6 / s for s in timing.seconds[name]])
        found.append(Measure(part=title, contender=name, over="", seconds=timing.of(name), value=rates, unit="MB/s"))
    return title, timing, found
