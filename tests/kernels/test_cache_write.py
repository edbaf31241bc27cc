"""The cache write, interpreted and in PyTorch, puts each token where a loop puts it, and nothing else anywhere."""

from __future__ import annotations

import pytest
import torch

from mechvit.kernels import cache_write

pytest.importorskip("triton")
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def draw(batch, tokens, width, dtype, device):
    generator = torch.Generator().manual_seed(batch)
    resid = torch.randn(batch, tokens, 2 * width, generator=generator).to(device, dtype)[:, :, ::2]
    assert not resid.is_contiguous()
    return resid


def loop(buffer, resid, slots, kept, scale):
    expected = buffer.clone()
    wide = torch.promote_types(resid.dtype, torch.float32)
    row = 0
    for image in resid:
        for token in kept:
            expected[slots[row]] = (image[token].to(wide) * scale).to(buffer.dtype)
            row += 1
    return expected


@pytest.mark.parametrize("into", DTYPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("first", "stop"), [(0, None), (1, None), (0, 1), (2, -1)], ids=str)
def test_matches_a_loop(dtype, into, first, stop, device):
    resid = draw(3, 7, 37, dtype, device)
    kept = range(7)[first:stop]
    buffer = torch.full((40, 37), -9.0, dtype=into, device=device)
    slots = torch.randperm(40, generator=torch.Generator().manual_seed(1))[: 3 * len(kept)].to(device)
    for scale in (1.0, 0.37):
        expected = loop(buffer, resid, slots, kept, scale)
        for write in (cache_write.write_rows, lambda b, r, s, **o: cache_write.reference(b, r, s, **o)):
            found = buffer.clone()
            write(found, resid, slots, first=first, stop=stop, scale=scale)
            torch.testing.assert_close(found, expected, rtol=torch.finfo(into).eps, atol=0)
            untouched = torch.ones(40, dtype=torch.bool)
            untouched[slots.cpu()] = False
            assert (found[untouched] == -9).all()


@pytest.mark.parametrize("into", DTYPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_consecutive_slots_match_listed_ones(dtype, into, device):
    resid = draw(3, 7, 37, dtype, device)
    for start, first, scale in ((0, 0, 1.0), (5, 1, 1.0), (22, 1, 0.37)):
        n_rows = 3 * (7 - first)
        expected = torch.full((40, 37), -9.0, dtype=into, device=device)
        found = expected.clone()
        cache_write.write_rows(
            expected, resid, torch.arange(start, start + n_rows, device=device), first=first, scale=scale
        )
        for write in (cache_write.write_rows, lambda b, r, s, **o: cache_write.reference(b, r, s, **o)):
            given = found.clone()
            write(given, resid, start, first=first, scale=scale)
            torch.testing.assert_close(given, expected, rtol=torch.finfo(into).eps, atol=0)


def test_a_row_wider_than_a_program(device, monkeypatch):
    monkeypatch.setattr(cache_write, "WIDEST", 16)
    resid = draw(2, 3, 50, torch.float32, device)
    buffer, slots = torch.zeros(6, 50, device=device), torch.tensor([5, 0, 3, 1, 2, 4], device=device)
    cache_write.write_rows(buffer, resid, slots)
    assert torch.equal(buffer, loop(torch.zeros_like(buffer), resid, slots, range(3), 1.0))


def test_nothing_is_kept(device):
    buffer = torch.ones(4, 8, device=device)
    cache_write.write_rows(
        buffer, torch.zeros(2, 3, 8, device=device), torch.zeros(0, dtype=torch.long, device=device), first=3
    )
    assert (buffer == 1).all()


@pytest.mark.parametrize(
    ("resid", "slots", "reason"),
    [
        ((2, 3, 9), torch.arange(6), "d_model"),
        ((2, 3, 8), torch.arange(5), "3 per image"),
        ((2, 3, 8), torch.arange(6.0), "integer slot"),
        ((2, 3, 8), torch.arange(6) + 2, "7 rows; got 2 to 7"),
        ((2, 3, 8), torch.arange(6) - 1, "got -1 to 4"),
        ((2, 3, 8), 2, "7 rows; got 2 to 7"),
        ((2, 3, 9), 0, "the slot 0"),
    ],
    ids=["width", "count", "dtype", "beyond", "negative", "consecutive beyond", "consecutive width"],
)
def test_bad_input_is_refused_before_anything_is_written(resid, slots, reason):
    buffer = torch.ones(7, 8)
    with pytest.raises(ValueError, match=reason):
        cache_write.write_rows(buffer, torch.zeros(resid), slots)
    assert (buffer == 1).all()


@pytest.mark.parametrize(
    ("resid", "slots"),
    [("meta", torch.arange(6)), ("cpu", torch.arange(6, device="meta")), ("meta", 0)],
    ids=["resid", "slots", "resid, consecutive"],
)
def test_another_device_is_refused(resid, slots):
    with pytest.raises(ValueError, match="must be on the buffer's device, cpu; got meta"):
        cache_write.write_rows(torch.ones(7, 8), torch.zeros(2, 3, 8, device=resid), slots)


def test_host_tensors_pass_through():
    batches = [{"a": torch.full((2, 3), float(i)), "b": torch.full((4,), -i)} for i in range(4)]
    found = list(cache_write.to_host(iter(batches)))
    assert all(x["a"] is y["a"] and x["b"] is y["b"] for x, y in zip(found, batches, strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_copies_to_the_host_are_whole_and_in_order():
    expected = [{"a": torch.randn(512, 64 + 64 * (i > 5)), "b": torch.randn(7 + i % 2)} for i in range(9)]
    on_gpu = ({name: tensor.cuda() * 1.0 for name, tensor in batch.items()} for batch in expected)
    found = [{name: tensor.clone() for name, tensor in batch.items()} for batch in cache_write.to_host(on_gpu)]
    assert len(found) == 9
    for got, batch in zip(found, expected, strict=True):
        assert all(got[name].equal(tensor) for name, tensor in batch.items())
