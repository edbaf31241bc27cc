"""One pass over a cache in a nearly uniform random order, at about the disk's own rate.

Rows are read in small contiguous chunks. A random order of all chunks, drawn for the epoch, is cut into segments, of
which several live in memory at once. In each step every live segment gives an equal share of its rows, drawn at random,
and the shares are mixed, while the next segment is read into the place of the one that ended, its chunks from the front
of the files to the back and several at a time. A cache that fits in memory is shuffled uniformly. Batch k is a slice of
one fixed sequence of rows, so that an epoch goes on exactly after any batch.
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
"""About what one read takes of a hook point: enough for a disk to be near its sequential rate with several at once."""
READERS = 8
"""Reads at once."""
CHUNKS_PER_JOB = 8
LIVE = 8
"""Segments that rows are drawn from; memory holds one more, the one being read."""
_ALIGNMENT = 4096


@dataclass(frozen=True, kw_only=True)
class ShuffleOptions:
    """In what order a cache is read, and as what."""

    seed: int
    """With the epoch's number, of the order."""
    batch_size: int
    """Rows of a global batch; the rows that are left over at the end are not given."""
    hooks: Collection[str] | None = None
    """Which hook points, side by side in the batches; all when None."""
    rank: int = 0
    """This process gets the rows rank, rank + world, ... of each global batch."""
    world: int = 1
    """How many processes read."""
    dtype: torch.dtype = torch.float32
    """Of the batches."""
    device: torch.device | str = "cpu"
    """Of the batches."""
    buffer_bytes: int = 1 << 30
    """Memory for rows of all the cache's hook points. The larger, the closer to a uniform shuffle."""
    direct: bool = True
    """Read past the operating system's cache where the file system allows: on most disks faster, and other files stay
    cached. False goes through it, which is faster once all of the cache of activations lies there."""

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world or self.seed < 0 or self.buffer_bytes < 1:
            raise ValueError(
                "rank must lie in 0 to world - 1, seed must not be negative, and buffer_bytes must be positive; got "
                f"rank {self.rank} of {self.world}, seed {self.seed}, buffer_bytes {self.buffer_bytes}"
            )


class ShuffledEpoch:
    """One epoch's batches, to be iterated over once; after `load_state_dict` it goes on where the state was taken.

    The order depends on the cache, the seed, the number and `buffer_bytes` alone: not on the hook points chosen, the
    ranks or how it is read.

    Args:
        cache: what to read.
        number: of the epoch, from 0 on.
        options: see `ShuffleOptions`.

    Raises:
        ValueError: a batch larger than the cache, a negative number, hook points that the cache lacks.
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
        self._cuts = np.unique(cuts)  # a segment smaller than a chunk has one
        self._sizes = np.diff(ends[self._cuts - 1], prepend=0).tolist()
        self._steps = _shares(self._sizes)
        self._ends = np.cumsum([sum(high - low for _, low, high in step) for step in self._steps])
        self._read = _Reader(cache, options.direct)

    @property
    def n_batches(self) -> int:
        """Full batches of the epoch."""
        return self.cache.n_rows // self.options.batch_size

    def state_dict(self) -> dict[str, Any]:
        """Where the epoch stands, as JSON: the batches given so far, and what fixes their order."""
        return self._identity() | {"given": self.given}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the batches that were given when `state` was taken.

        Raises:
            ValueError: the state is that of another order; names the setting.
        """
        for name, own in self._identity().items():
            if state[name] != own:
                raise ValueError(f"the saved position is one with {name} {state[name]!r}; this epoch has {own!r}")
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
        """For each step from the first on: where in memory its rows lie, in their order, once they are there."""
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
        """How many segments memory holds."""
        return min(LIVE + 1, len(self._sizes))

    def _memory(self) -> dict[str, np.ndarray]:
        """Room for the bytes of the rows; numpy asks for huge pages, which are much faster to get."""
        plan, n_rows = self.cache.plan, self._places * max(self._sizes)
        item = DTYPES[plan.dtype].itemsize
        return {hook: np.empty((n_rows, plan.hooks[hook] * item), dtype=np.uint8) for hook in self.hooks}

    def _mixed(self, step: int, orders: dict[int, Tensor], mixing: Tensor) -> Tensor:
        """Where in memory the rows of a step lie, in their order; forgets the segment that ends with it."""
        shares = [
            orders[segment][low:high] + segment % self._places * max(self._sizes)
            for segment, low, high in self._steps[step]
        ]
        del orders[step]
        return torch.cat(shares).index_select(0, mixing)

    def _gather(self, rows: dict[str, Tensor], own: Tensor) -> Tensor:
        # index_select copies row by row; indexing with a tensor takes several times as long
        device, dtype = self.options.device, self.options.dtype
        columns = [rows[hook].index_select(0, own).to(device).to(dtype) for hook in self.hooks]
        return columns[0] if len(columns) == 1 else torch.cat(columns, dim=1)

    def _start(self, pool: ThreadPoolExecutor, segment: int, memory: dict[str, np.ndarray]) -> list[Future[Any]]:
        """Begin to read a segment to its place in memory; the first job gives a random order of its rows."""
        chunks = self._chunks[np.sort(self._order[self._cuts[segment - 1] if segment else 0 : self._cuts[segment]])]
        places = np.cumsum(chunks[:, 2]) - chunks[:, 2] + segment % self._places * max(self._sizes)
        jobs: list[Future[Any]] = [pool.submit(self._permutation, self._sizes[segment], 0, segment)]
        for hook, raw in memory.items():
            for part in range(0, len(chunks), CHUNKS_PER_JOB):
                own = slice(part, part + CHUNKS_PER_JOB)
                jobs.append(pool.submit(self._read, hook, chunks[own], places[own], raw))
        return jobs

    def _mixing(self, step: int) -> Tensor:
        """A random order of a step's rows."""
        return self._permutation(sum(high - low for _, low, high in self._steps[step]), 1, step)

    def _permutation(self, n_rows: int, *of: int) -> Tensor:
        return torch.from_numpy(np.random.default_rng((self.options.seed, self.number, *of)).permutation(n_rows))


def _shares(sizes: list[int]) -> list[list[tuple[int, int, int]]]:
    """For each step: (segment, low, high) of every live segment, the part of its random order that the step takes.

    Step s has the segments s to s + LIVE - 1 and takes a LIVE-th of each. So that nothing is read twice, the first step
    also takes what its segments would have given before it, and the last what its would give after it.
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
    """All chunks in the order of the files: (shard, first row in it, number of rows)."""
    plan, found = cache.plan, []
    for shard in range(plan.n_shards):
        firsts = np.arange(0, plan.rows_of(shard), rows)
        counts = np.minimum(plan.rows_of(shard) - firsts, rows)
        found.append(np.stack([np.full_like(firsts, shard), firsts, counts], axis=1))
    return np.concatenate(found)


class _Reader:
    """Reads chunks of rows into memory, in any thread."""

    def __init__(self, cache: CachedActivations, direct: bool) -> None:
        self.cache, self.threads = cache, threading.local()
        self.starts: dict[Path, int] = {}
        self.direct = direct and allows_direct(cache.path(0, next(iter(cache.plan.hooks))))

    def __call__(self, hook: str, chunks: np.ndarray, places: np.ndarray, into: np.ndarray) -> None:
        """Read chunks of one hook point, each to its own place in `into` [row, bytes of a row]."""
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
        else:  # whole blocks of the disk into memory that begins at a page, then what was asked for
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
    """Tell whether a file can be read past the operating system's cache."""
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
