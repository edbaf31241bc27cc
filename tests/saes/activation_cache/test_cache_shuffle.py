"""An epoch gives each row once, nearly uniformly shuffled, the same to all ranks and readers, from any position on."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from cache_contents import numbered
from scipy.stats import entropy

from mechvit.saes.activation_cache import shuffled_epoch as shuffle

N_ROWS = 53 * 7
WHOLE, PARTS, TINY = 1 << 20, 3000, 1
"""Bytes of memory: for all rows at once; for nine segments of 11 of them; for segments of one chunk."""


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Chunks of five rows, which straddle images and end with the shards."""
    monkeypatch.setattr(shuffle, "CHUNK_BYTES", 5 * 3 * 4)


def epoch(cache, number=0, **changes):
    options = {"seed": 0, "batch_size": 20, "buffer_bytes": PARTS} | changes
    return cache.epoch(number, shuffle.ShuffleOptions(**options))


def rows_of(batches):
    """The rows that batches are made of, by their first hook point."""
    return torch.cat([batch[:, 0] for batch in batches]).long().tolist()


@pytest.mark.parametrize("buffer_bytes", [WHOLE, PARTS, TINY])
@pytest.mark.parametrize("size", [1, 20, 47, N_ROWS])
@pytest.mark.parametrize("direct", [True, False])
def test_each_row_comes_once_and_whole(numbered_cache, buffer_bytes, size, direct):
    made = epoch(numbered_cache(), batch_size=size, buffer_bytes=buffer_bytes, direct=direct)
    batches = list(made)
    assert len(batches) == made.n_batches == N_ROWS // size
    assert {tuple(batch.shape) for batch in batches} == {(size, 8)}
    rows = torch.tensor(rows_of(batches))
    assert len(set(rows.tolist())) == len(rows) == N_ROWS // size * size
    assert torch.equal(torch.cat(batches), torch.cat([numbered(rows, 0, 3), numbered(rows, 1, 5)], dim=1))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("asked", [torch.float32, torch.bfloat16])
def test_stored_types_are_read(numbered_cache, dtype, asked):
    made = epoch(numbered_cache(dtype=dtype), batch_size=N_ROWS, dtype=asked)
    (batch,) = made
    assert batch.dtype == asked
    expected = numbered(torch.arange(N_ROWS), 1, 5).to(getattr(torch, dtype)).to(asked)
    assert torch.equal(batch[:, 3:].sort(dim=0).values, expected.sort(dim=0).values)


def test_an_epoch_is_fixed_by_seed_and_number(numbered_cache):
    cache = numbered_cache()
    first = rows_of(epoch(cache, 1))
    assert rows_of(epoch(cache, 1)) == first
    assert rows_of(epoch(cache, 1, hooks=("hook_0",))) == first
    assert rows_of(epoch(cache, 1, direct=False)) == first
    for other in (epoch(cache, 2), epoch(cache, 1, seed=1)):
        assert sum(a == b for a, b in zip(rows_of(other), first, strict=True)) < 10  # one is expected by chance


def test_where_direct_reads_are_refused_plain_ones_are_made(numbered_cache, monkeypatch):
    cache = numbered_cache()
    expected = rows_of(epoch(cache))
    real = shuffle.os.open

    def refusing(path, flags, *args):
        if flags & shuffle.os.O_DIRECT:
            raise OSError(22, "Invalid argument")
        return real(path, flags, *args)

    monkeypatch.setattr(shuffle.os, "open", refusing)
    assert rows_of(epoch(cache)) == expected


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("buffer_bytes", [PARTS, TINY])
def test_ranks_share_each_global_batch(numbered_cache, world, buffer_bytes):
    cache = numbered_cache()
    whole = list(epoch(cache, buffer_bytes=buffer_bytes))
    parts = [list(epoch(cache, buffer_bytes=buffer_bytes, rank=rank, world=world)) for rank in range(world)]
    for batch, *shares in zip(whole, *parts, strict=True):
        for rank, share in enumerate(shares):
            assert torch.equal(share, batch[rank::world])


@pytest.mark.long
@pytest.mark.parametrize("buffer_bytes", [WHOLE, PARTS, TINY])
def test_goes_on_after_any_batch(numbered_cache, buffer_bytes):
    cache = numbered_cache()
    whole = list(epoch(cache, buffer_bytes=buffer_bytes))
    running, states = epoch(cache, buffer_bytes=buffer_bytes), [epoch(cache, buffer_bytes=buffer_bytes).state_dict()]
    states += [running.state_dict() for _ in running]
    assert len(states) == len(whole) + 1
    for given, state in enumerate(states):
        resumed = epoch(cache, buffer_bytes=buffer_bytes)
        resumed.load_state_dict(json.loads(json.dumps(state)))
        rest = list(resumed)
        assert len(rest) == len(whole) - given
        assert all(torch.equal(a, b) for a, b in zip(rest, whole[given:], strict=True))


def test_goes_on_where_the_loop_was_left(numbered_cache):
    cache = numbered_cache()
    left, seen = epoch(cache), []
    for batch in left:
        seen.append(batch)
        if len(seen) == 7:
            break
    seen += list(left)
    assert rows_of(seen) == rows_of(epoch(cache))


@pytest.mark.parametrize(
    ("changes", "name"),
    [({"seed": 1}, "seed"), ({"batch_size": 21}, "batch_size"), ({"buffer_bytes": WHOLE}, "buffer_bytes")],
)
def test_a_position_in_another_order_is_refused(numbered_cache, changes, name):
    cache = numbered_cache()
    with pytest.raises(ValueError, match=f"saved position has {name} .*; this epoch has"):
        epoch(cache, **changes).load_state_dict(epoch(cache).state_dict())
    with pytest.raises(ValueError, match="saved position has number 1; this epoch has 0"):
        epoch(cache).load_state_dict(epoch(cache, 1).state_dict())
    with pytest.raises(ValueError, match="saved position has plan"):
        epoch(cache).load_state_dict(epoch(numbered_cache("other", seed=1)).state_dict())


@pytest.mark.parametrize(
    "changes",
    [
        *({"batch_size": size} for size in (0, N_ROWS + 1)),
        *({"rank": rank, "world": 2} for rank in (-1, 2)),
        {"buffer_bytes": 0},
        {"seed": -1},
        {"number": -1},
        {"hooks": ("hook_7",)},
    ],
)
def test_refuses_what_makes_no_epoch(numbered_cache, changes):
    with pytest.raises(ValueError, match="; got"):
        epoch(numbered_cache(), **changes)


def test_a_shard_that_shrinks_while_it_is_read_is_named(numbered_cache):
    cache = numbered_cache()
    for direct in (True, False):
        made = epoch(cache, buffer_bytes=TINY, direct=direct)
        list(made)
        path = cache.path(4, "hook_1")
        data = path.read_bytes()
        made.given = 0
        path.write_bytes(data[:-200])
        made._read.starts[path] = shuffle.read_header(cache.path(3, "hook_1"), "activations").start
        with pytest.raises(ValueError, match=r"shard-00004/hook_1\.safetensors became shorter"):
            list(made)
        path.write_bytes(data)


# quality of the shuffle


def relative_entropy(rows, size, group):
    """Mean entropy of a batch over groups of so many rows, over that of uniform permutations of the same rows."""

    def mean(order):
        groups = (np.asarray(order) // group)[: len(order) // size * size].reshape(-1, size)
        counts = [np.bincount(batch, minlength=len(order) // group + 1) for batch in groups]
        return entropy(counts, axis=1).mean()

    return mean(rows) / np.mean([mean(np.random.default_rng(i).permutation(rows)) for i in range(20)])


@pytest.mark.long
def test_a_cache_that_fits_in_memory_is_shuffled_uniformly(numbered_cache):
    cache, n_epochs = numbered_cache(), 300
    options = {"batch_size": N_ROWS, "buffer_bytes": WHOLE, "hooks": ("hook_0",)}
    orders = np.stack([rows_of(epoch(cache, i, **options)) for i in range(n_epochs)])
    assert all(sorted(order) == list(range(N_ROWS)) for order in orders)
    means = orders.mean(axis=0)  # of each position, over the epochs
    z = (means - (N_ROWS - 1) / 2) / (np.sqrt((N_ROWS**2 - 1) / 12) / np.sqrt(n_epochs))
    assert np.abs(z).max() < 5
    assert abs(float((z**2).mean()) - 1) < 0.3
    after = np.mean(np.diff(orders, axis=1) == 1)  # of neighbours in a file
    assert after < 5 / N_ROWS


@pytest.mark.long
def test_segments_mix_images_and_shards_almost_as_well(numbered_cache):
    cache = numbered_cache(n_images=400, images_per_shard=20, batch_size=20)
    made = epoch(cache, batch_size=28, buffer_bytes=32 * 1400)  # half of the rows, 5 rows a chunk
    assert len(made._sizes) == 18
    assert len(made._steps) == 11
    rows = rows_of(made)
    assert relative_entropy(rows, 28, 7) > 0.98  # images
    assert relative_entropy(rows, 28, 140) > 0.98  # shards
    in_files = list(range(2800))
    assert relative_entropy(in_files, 28, 7) < 0.5  # what the measure says of no shuffle at all
    assert relative_entropy(in_files, 28, 140) < 0.01
