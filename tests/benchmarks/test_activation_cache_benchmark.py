"""The cache benchmark runs through on small caches and a tiny model, and its contenders read what they should."""

from __future__ import annotations

import activation_cache
import cache_contenders
import pytest
import torch
from report import Result

from mechvit.saes.cached import CachedActivations


@pytest.fixture(autouse=True)
def same_threads():
    """The benchmark sets the threads of the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def cache(tmp_path):
    """Of 120 images with five tokens at two hook points."""
    folder = cache_contenders.make_cache(
        tmp_path / "cache", n_bytes=120 * 5 * 10 * 2, tokens=5, widths=(4, 6), shard_bytes=2000
    )
    return CachedActivations(folder, verify=True)


def test_quick_runs_through(tmp_path, capsys):
    options = activation_cache.Options(out=str(tmp_path / "out"), parts=("hooks", "writer"), rounds=2, quick=True)
    activation_cache.main(options)
    result = Result.from_json((tmp_path / "out/result.json").read_text())
    assert (tmp_path / "out/table.md").read_text() in capsys.readouterr().out
    assert [row.limit for row in result.measures] == [None] * 7
    reader, _, naive, images, shards, writer, start = result.measures
    timing = result.timings["65 tokens, three hook points of width 96"]
    assert reader.value == timing.ratio(activation_cache.READER, activation_cache.SEQUENTIAL)
    assert naive.value == timing.ratio(activation_cache.READER, activation_cache.NAIVE)
    assert 0.5 < images.value.median <= shards.value.high <= 1.01
    assert (writer.over, start.unit) == (activation_cache.FORWARD, "s a run")


def test_contenders_read_all(cache):
    n_rows = cache.n_rows
    assert n_rows == 600
    assert cache_contenders.read_sequentially(cache) == sum(
        path.stat().st_size for path in cache_contenders.files(cache)
    )
    assert cache_contenders.read_random_rows(cache, n_rows, 50) == n_rows
    assert cache_contenders.read_epoch(cache, batch_size=50) == n_rows


def test_mixing_is_one_for_a_uniform_shuffle_and_less_for_none(cache):
    uniform = cache_contenders.mixing(cache, batch_size=50)
    assert sum(uniform["images"]) / 12 == pytest.approx(1, abs=0.02)
    assert sum(uniform["shards"]) / 12 == pytest.approx(1, abs=0.05)

    class Unshuffled:
        plan = cache.plan

        @staticmethod
        def epoch(number, seed, batch_size):
            return cache.in_order(batch_size)

    found = cache_contenders.mixing(Unshuffled, batch_size=50)
    assert max(found["images"]) < 0.7
    Unshuffled.epoch = staticmethod(lambda number, seed, batch_size: [next(cache.in_order(batch_size))] * 2)
    with pytest.raises(ValueError, match="each row once"):
        cache_contenders.mixing(Unshuffled, batch_size=50)
