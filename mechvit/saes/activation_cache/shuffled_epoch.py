"""One pass over a cache in a nearly uniform random order, at about the disk's own rate.

Rows are read in small contiguous chunks. A random order of all chunks, drawn for the epoch, is cut into segments, of
which several are in memory at once (live). Each step takes an equal share of the rows of every live segment, drawn at
random, and mixes the shares; meanwhile the next segment is read into the memory of the one that is used up, with
several reads at once, front to back in the files. A cache that fits in memory is shuffled uniformly. Batch k is a slice
of one fixed sequence of rows, so an epoch can resume exactly after any batch.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .manifest import DTYPES
from .shards import ACTIVATIONS, read_header

if TYPE_CHECKING:
    from .reader import CachedActivations

CHUNK_BYTES = 1 << 18
"""Approximate bytes of a hook point per read: enough for nearly a disk's sequential rate with several reads at once."""
READERS = 8
"""Number of simultaneous reads."""
CHUNKS_PER_JOB = 8
LIVE = 8
"""Number of segments from which rows are drawn; memory holds one more, which is being read."""
_ALIGNMENT = 4096


@dataclass(frozen=True, kw_only=True)
class ShuffleOptions:
    """Order in which a cache is read, and the form of its batches."""

    seed: int
    """Seed of the order, together with the number of the epoch."""
    batch_size: int
    """Rows per global batch; a last partial batch is dropped."""
    hooks: Collection[str] | None = None
    """Hook points, concatenated along the columns of each batch; all when None."""
    rank: int = 0
    """Rank of this process, which receives the rows rank, rank + world, ... of each global batch."""
    world: int = 1
    """Number of processes that read."""
    dtype: torch.dtype = torch.float32
    """Type of the batches."""
    device: torch.device | str = "cpu"
    """Device of the batches."""
    buffer_bytes: int = 1 << 30
    """Bytes of memory for rows of all the cache's hook points. The larger it is, the closer to a uniform shuffle."""
    direct: bool = True
    """Whether to bypass the operating system's page cache where the file system allows: faster on most disks, and other
    files stay cached. False is faster once the whole activation cache lies in the page cache."""

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world or self.seed < 0 or self.buffer_bytes < 1:
            raise ValueError(
                "rank must lie in 0 to world - 1, seed must not be negative, and buffer_bytes must be positive; got "
                f"rank {self.rank} of {self.world}, seed {self.seed}, buffer_bytes {self.buffer_bytes}"
            )


class ShuffledEpoch:
    """Batches of one epoch, to be iterated over once; `load_state_dict` resumes where the state was taken.

    The order depends only on the cache, the seed, the number and `buffer_bytes`, not on the hook points, the ranks or
    the mode of reading.

    Args:
        cache: the cache to read.
        number: index of the epoch, from 0.
        options: see `ShuffleOptions`.

    Raises:
        ValueError: a batch is larger than the cache, the number is negative, or the cache lacks a hook point.
    """

    def __init__(self, cache: CachedActivations, number: int, options: ShuffleOptions) -> None:
        plan = cache.plan
        if not 1 <= options.batch_size <= plan.n_rows:
            raise ValueError(f"batch_size must lie in 1 to the cache's {plan.n_rows} rows; got {options.batch_size}")
        if number < 0:
            raise ValueError(f"an epoch's number must not be negative; got {number}")
        self.cache, self.number, self.options = cache, number, options
        self.hooks = cache.chosen(options.hooks)
        self.given = 0
        item = DTYPES[plan.dtype].itemsize
        self._chunks = _chunks(cache, max(CHUNK_BYTES // (min(plan.hooks.values()) * item), 1))
        memory_rows = max(options.buffer_bytes // (item * sum(plan.hooks.values())), 1)
        self._order = np.random.default_rng((options.seed, number)).permutation(len(self._chunks))
        n_segments = 1 if plan.n_rows <= memory_rows else -(-plan.n_rows * (LIVE + 1) // memory_rows)
        ends = np.cumsum(self._chunks[self._order, 2])
        cuts = np.searchsorted(ends, np.arange(1, n_segments + 1) * plan.n_rows // n_segments) + 1
        self._cuts = np.unique(cuts)  # a segment holds at least one chunk
        self._sizes = np.diff(ends[self._cuts - 1], prepend=0).tolist()
        self._steps = _shares(self._sizes)
        self._ends = np.cumsum([sum(high - low for _, low, high in step) for step in self._steps])
        self._read = _ChunkReader(cache, options.direct)

    @property
    def n_batches(self) -> int:
        """Number of full batches of the epoch."""
        return self.cache.n_rows // self.options.batch_size

    def state_dict(self) -> dict[str, Any]:
        """Return the position as JSON: the number of batches yielded, and everything that fixes their order."""
        return self._identity() | {"given": self.given}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume after the batches that had been yielded when `state` was taken.

        Raises:
            ValueError: the state belongs to another order; names the setting that differs.
        """
        for name, own in self._identity().items():
            if state[name] != own:
                raise ValueError(f"the saved position has {name} {state[name]!r}; this epoch has {own!r}")
        self.given = int(state["given"])

    def _identity(self) -> dict[str, Any]:
        return {
            "plan": self.cache.plan.digest,
            "seed": self.options.seed,
            "number": self.number,
            "batch_size": self.options.batch_size,
            "buffer_bytes": self.options.buffer_bytes,
        }

    def __iter__(self) -> Iterator[Float[Tensor, "batch columns"]]:
        if self.given >= self.n_batches:
            return
        size, world = self.options.batch_size, self.options.world
        first = int(np.searchsorted(self._ends, self.given * size, side="right"))
        start = int(self._ends[first - 1]) if first else 0
        memory = self._memory()
        rows = {hook: torch.from_numpy(raw).view(DTYPES[self.cache.plan.dtype]) for hook, raw in memory.items()}
        parts: list[Tensor] = []
        for order in self._orders(first, memory):
            end = min(start + len(order), self.n_batches * size)
            for batch in range(max(self.given, start // size), -(-end // size)):
                low, high = max(start, batch * size), min(end, (batch + 1) * size)
                skipped = (self.options.rank - low + batch * size) % world
                parts.append(self._gather(rows, order[low - start + skipped : high - start : world]))
                if high == (batch + 1) * size:
                    self.given = batch + 1
                    yield parts[0] if len(parts) == 1 else torch.cat(parts)
                    parts = []
            start += len(order)

    def _orders(self, first: int, memory: dict[str, np.ndarray]) -> Iterator[Tensor]:
        """Yield for each step from `first` on the places of its rows in memory, in order, once they have been read."""
        with ThreadPoolExecutor(READERS) as pool:
            reading = {segment: self._start(pool, segment, memory) for segment, *_ in self._steps[first]}
            mixing = pool.submit(self._mixing, first)
            orders: dict[int, Tensor] = {}
            try:
                for step in range(first, len(self._steps)):
                    while reading:
                        segment, jobs = reading.popitem()
                        orders[segment], *_ = [job.result() for job in jobs]
                    order = self._mixed(step, orders, mixing.result())
                    if step + 1 < len(self._steps):
                        mixing = pool.submit(self._mixing, step + 1)
                        following = self._steps[step + 1][-1][0]
                        reading[following] = self._start(pool, following, memory)
                    yield order
            finally:
                for job in [job for jobs in reading.values() for job in jobs]:
                    job.cancel()

    @property
    def _places(self) -> int:
        """Number of segments that memory holds."""
        return min(LIVE + 1, len(self._sizes))

    def _memory(self) -> dict[str, np.ndarray]:
        """Allocate memory for the bytes of the rows; numpy requests huge pages, which are much faster to obtain."""
        plan, n_rows = self.cache.plan, self._places * max(self._sizes)
        item = DTYPES[plan.dtype].itemsize
        return {hook: np.empty((n_rows, plan.hooks[hook] * item), dtype=np.uint8) for hook in self.hooks}

    def _mixed(self, step: int, orders: dict[int, Tensor], mixing: Tensor) -> Tensor:
        """Return the places of a step's rows in memory, in order, and forget the segment that ends with it."""
        shares = [
            orders[segment][low:high] + segment % self._places * max(self._sizes)
            for segment, low, high in self._steps[step]
        ]
        del orders[step]
        return torch.cat(shares).index_select(0, mixing)

    def _gather(self, rows: dict[str, Tensor], own: Tensor) -> Tensor:
        # index_select copies whole rows; indexing with a tensor takes several times as long
        device, dtype = self.options.device, self.options.dtype
        columns = [rows[hook].index_select(0, own).to(device).to(dtype) for hook in self.hooks]
        return columns[0] if len(columns) == 1 else torch.cat(columns, dim=1)

    def _start(self, pool: ThreadPoolExecutor, segment: int, memory: dict[str, np.ndarray]) -> list[Future[Any]]:
        """Start reading a segment into its place in memory; the first job returns a random order of its rows."""
        chunks = self._chunks[np.sort(self._order[self._cuts[segment - 1] if segment else 0 : self._cuts[segment]])]
        places = np.cumsum(chunks[:, 2]) - chunks[:, 2] + segment % self._places * max(self._sizes)
        jobs: list[Future[Any]] = [pool.submit(self._permutation, self._sizes[segment], 0, segment)]
        for hook, raw in memory.items():
            for part in range(0, len(chunks), CHUNKS_PER_JOB):
                own = slice(part, part + CHUNKS_PER_JOB)
                jobs.append(pool.submit(self._read, hook, chunks[own], places[own], raw))
        return jobs

    def _mixing(self, step: int) -> Tensor:
        """Return a random order of a step's rows."""
        return self._permutation(sum(high - low for _, low, high in self._steps[step]), 1, step)

    def _permutation(self, n_rows: int, *of: int) -> Tensor:
        return torch.from_numpy(np.random.default_rng((self.options.seed, self.number, *of)).permutation(n_rows))


def _shares(sizes: list[int]) -> list[list[tuple[int, int, int]]]:
    """Return (segment, low, high) of every live segment at each step: the part of its random order that the step takes.

    Step s takes 1/LIVE of each of the segments s to s + LIVE - 1. So that nothing is read twice, the first step also
    takes the shares of earlier steps that do not exist, and the last step those of later ones.
    """
    live = min(LIVE, len(sizes))
    last = len(sizes) - live
    steps = []
    for step in range(last + 1):
        step_shares = []
        for age in range(live - 1, -1, -1):  # the oldest first
            segment = step + live - 1 - age
            low, high = 0 if step == 0 else age, live if step == last else age + 1
            step_shares.append((segment, sizes[segment] * low // live, sizes[segment] * high // live))
        steps.append(step_shares)
    return steps


def _chunks(cache: CachedActivations, rows: int) -> np.ndarray:
    """Return all chunks in the order of the files, as rows (shard, first row in it, number of rows)."""
    plan, found = cache.plan, []
    for shard in range(plan.n_shards):
        firsts = np.arange(0, plan.rows_of(shard), rows)
        counts = np.minimum(plan.rows_of(shard) - firsts, rows)
        found.append(np.stack([np.full_like(firsts, shard), firsts, counts], axis=1))
    return np.concatenate(found)


class _ChunkReader:
    """Reader of chunks of rows into memory, usable from any thread."""

    def __init__(self, cache: CachedActivations, direct: bool) -> None:
        self.cache, self.threads = cache, threading.local()
        self.starts: dict[Path, int] = {}
        self.direct = direct and allows_direct(cache.path(0, next(iter(cache.plan.hooks))))

    def __call__(self, hook: str, chunks: np.ndarray, places: np.ndarray, into: np.ndarray) -> None:
        """Read chunks of one hook point, each to its place in `into` [row, bytes per row]."""
        width = into.shape[1]
        for shard in np.unique(chunks[:, 0]).tolist():
            path = self.cache.path(shard, hook)
            if path not in self.starts:
                self.starts[path] = read_header(path, ACTIVATIONS).start
            own = chunks[:, 0] == shard
            descriptor = os.open(path, os.O_RDONLY | (os.O_DIRECT if self.direct else 0))
            try:
                for first, count, place in zip(*chunks[own, 1:].T.tolist(), places[own].tolist(), strict=True):
                    target = into[place : place + count].reshape(-1)  # a view: rows are contiguous
                    self._fill(descriptor, self.starts[path] + first * width, target, path)
            finally:
                os.close(descriptor)

    def _fill(self, descriptor: int, begin: int, target: np.ndarray, path: Path) -> None:
        if not self.direct:
            found = os.preadv(descriptor, [target.data], begin)
        else:  # whole disk blocks into page-aligned memory, from which the requested bytes are copied
            skew = begin % _ALIGNMENT
            staging = self._staging(-(-(skew + len(target)) // _ALIGNMENT) * _ALIGNMENT)
            found = os.preadv(descriptor, [staging.data], begin - skew) - skew
            target[:] = staging[skew : skew + len(target)]
        if found < len(target):
            raise ValueError(f"{path} became shorter while it was read")

    def _staging(self, size: int) -> np.ndarray:
        held = getattr(self.threads, "staging", None)
        if held is None or len(held) < size:
            held = self.threads.staging = np.frombuffer(mmap.mmap(-1, size), dtype=np.uint8)
        return held[:size]


def allows_direct(path: Path) -> bool:
    """Return whether a file can be read without the operating system's page cache."""
    if not hasattr(os, "O_DIRECT"):
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
    except OSError:
        return False
    try:
        return os.preadv(descriptor, [mmap.mmap(-1, _ALIGNMENT)], 0) > 0
    except OSError:
        return False
    finally:
        os.close(descriptor)
