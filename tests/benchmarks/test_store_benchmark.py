"""The cache benchmark runs through on small caches and a tiny model, and its contenders read what they should."""

from __future__ import annotations

import pytest
import store
import store_contenders
import store_parts as parts
import torch
from report import Result

from mechvit.saes.activation_cache import CachedActivations


@pytest.fixture(autouse=True)
def same_threads():
    """The benchmark sets the threads of the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def cache(tmp_path):
    """A cache of 120 images with five tokens at two hook points."""
    folder = store_contenders.make_cache(
        tmp_path / "cache", n_bytes=120 * 5 * 10 * 2, tokens=5, widths=(4, 6), shard_bytes=2000
    )
    return CachedActivations(folder, verify=True)


@pytest.mark.long
@pytest.mark.slow
def test_quick_runs_through(tmp_path, capsys):
    options = store.Options(
        out=str(tmp_path / "out"),
        parts=("streaming", "mixing", "hooks", "shards", "writer"),
        device="cpu",
        rounds=2,
        quick=True,
    )
    store.main(options)
    result = Result.from_json((tmp_path / "out/result.json").read_text())
    assert (tmp_path / "out/table.md").read_text() in capsys.readouterr().out
    assert all(row.limit is None for row in result.measures)
    rows = {(row.contender, row.over): row for row in result.measures}
    timing = result.timings["65 tokens, three hook points of width 96"]
    assert rows[parts.READER, parts.SEQUENTIAL].value == timing.ratio(parts.READER, parts.SEQUENTIAL)
    assert rows[parts.READER, parts.NAIVE].value == timing.ratio(parts.READER, parts.NAIVE)
    uniform = "uniformly random batches"
    images, shards = (rows[f"{parts.READER}: batches' entropy over {name}", uniform] for name in ("images", "shards"))
    assert 0.5 < images.value.median <= shards.value.high <= 1.01
    assert rows[parts.START, "nothing"].unit == "s a run"
    assert {(parts.STORE, parts.BARE), (parts.OUR_MIX, parts.STOCK_MIX), (parts.SHARD, parts.RAW)} < set(rows)
    assert (parts.WRITER, parts.FORWARD) in rows


def test_mixing_that_differs_is_refused(monkeypatch):
    options = store.Options(out="out", device="cpu", quick=True, rounds=1)
    whole = parts.mixing(options)[2]
    assert whole[0].contender == parts.OUR_MIX
    ours = "mechvit.saes.activations.mixing_buffer.mixing_buffer"
    monkeypatch.setattr(ours, lambda size, batch, chunks: (chunk[:batch] for chunk in chunks))
    with pytest.raises(ValueError, match="must agree on last batch"):
        parts.mixing(options)


def test_contenders_read_all(cache):
    n_rows = cache.n_rows
    assert n_rows == 600
    assert store_contenders.read_sequentially(cache) == sum(
        path.stat().st_size for path in store_contenders.files(cache)
    )
    assert store_contenders.read_random_rows(cache, n_rows, 50) == n_rows
    assert store_contenders.read_epoch(cache, batch_size=50) == n_rows


def test_mixing_is_one_for_a_uniform_shuffle_and_less_for_none(cache):
    uniform = store_contenders.mixing(cache, batch_size=50)
    assert sum(uniform["images"]) / 12 == pytest.approx(1, abs=0.02)
    assert sum(uniform["shards"]) / 12 == pytest.approx(1, abs=0.05)

    class Unshuffled:
        plan = cache.plan

        @staticmethod
        def epoch(number, options):
            return cache.in_order(options.batch_size)

    found = store_contenders.mixing(Unshuffled, batch_size=50)
    assert max(found["images"]) < 0.7
    Unshuffled.epoch = staticmethod(lambda number, options: [next(cache.in_order(options.batch_size))] * 2)
    with pytest.raises(ValueError, match="each row once"):
        store_contenders.mixing(Unshuffled, batch_size=50)
