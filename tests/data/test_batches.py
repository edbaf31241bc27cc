"""Batches hold the images that are asked for, in that order, wherever the data set keeps its pixels."""

from __future__ import annotations

import datasets
import numpy as np
import pytest
import torch

from mechvit.data import iter_batches, load_images, prepare


@pytest.fixture(scope="module")
def sets(tiny_processor, tmp_path_factory):
    """The same 23 images: raw, prepared in memory in parts of 5, on disk, joined, and picked from others."""
    raw = load_images("photos", "sae", limit=23, image_size=32)
    whole = prepare(raw, tiny_processor, batch_size=5)
    parts = [prepare(raw.select(rows), tiny_processor) for rows in (range(9), range(9, 23))]
    order = np.random.default_rng(0).permutation(23)
    return {
        "raw": raw,
        "in memory": whole,
        "on disk": prepare(raw, tiny_processor, path=tmp_path_factory.mktemp("images") / "p", batch_size=7),
        "joined": datasets.concatenate_datasets(parts),
        "picked": whole.select(order).select(np.argsort(order)),
    }


@pytest.mark.parametrize("kind", ["raw", "in memory", "on disk", "joined", "picked"])
@pytest.mark.parametrize("rows", [None, [22, 0, 7, 7, 13, 5, 4, 18]])
def test_rows_come_in_order(sets, tiny_processor, kind, rows):
    chosen = range(23) if rows is None else rows
    batches = list(iter_batches(sets[kind], tiny_processor, 3, rows=None if rows is None else np.array(rows)))
    assert [len(batch) for batch in batches] == [3] * (len(chosen) // 3) + [len(chosen) % 3]
    images = torch.cat([batch.images for batch in batches])
    for image, row in zip(images, chosen, strict=True):
        expected = torch.from_numpy(np.array(sets["raw"][row]["image"])).permute(2, 0, 1) / 255
        torch.testing.assert_close(image, expected.float(), rtol=0, atol=1e-7)
    for name, column in (("labels", "label"), ("image_ids", "image_id")):
        found = torch.cat([getattr(batch, name) for batch in batches]).tolist()
        assert found == [sets["raw"][row][column] for row in chosen]


def test_a_batch_is_its_own_memory(sets):
    """Writing into a batch leaves the data set alone."""
    first = next(iter_batches(sets["on disk"], None, 4))
    kept = first.images.clone()
    first.images.zero_()
    assert torch.equal(next(iter_batches(sets["on disk"], None, 4)).images, kept)
