"""The mixing buffer gives sae-lens's own batches, bit for bit, and holds one buffer and one chunk."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sae_lens.training import mixing_buffer as stock

from mechvit.saes.activations import mixing_buffer as mixing


def chunks(sizes: list[int]) -> list[torch.Tensor]:
    """Rows that are their own number, three times."""
    rows = torch.arange(sum(sizes), dtype=torch.float32)[:, None].expand(-1, 3)
    return list(rows.split(sizes))


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(0, 23), max_size=12),
    batch_size=st.integers(1, 9),
    spare=st.integers(0, 30),
    mix_fraction=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    seed=st.integers(0, 3),
)
def test_batches_match_sae_lens(sizes, batch_size, spare, mix_fraction, seed):
    found = []
    for module in (mixing, stock):
        torch.manual_seed(seed)
        settings_ = (batch_size + spare, batch_size, iter(chunks(sizes)), mix_fraction)
        found.append([batch.clone() for batch in module.mixing_buffer(*settings_)])
    assert len(found[0]) == len(found[1])
    assert all(ours.equal(theirs) for ours, theirs in zip(*found, strict=True))


def test_batches_are_memory_of_their_own():
    """Batches kept from an epoch are not overwritten by later chunks."""
    torch.manual_seed(0)
    kept = list(mixing.mixing_buffer(20, 4, iter(chunks([7] * 20))))
    rows = torch.cat(kept)[:, 0]
    assert sorted(rows.tolist()) == list(range(140))
    assert len({batch.untyped_storage().data_ptr() for batch in kept}) == len(kept)


def test_the_buffer_is_allocated_once(monkeypatch):
    buffers = []
    write = mixing.write_rows
    monkeypatch.setattr(mixing, "write_rows", lambda buffer, *rest: (buffers.append(buffer), write(buffer, *rest)))
    list(mixing.mixing_buffer(40, 4, iter(chunks([7] * 60))))
    assert len({buffer.data_ptr() for buffer in buffers}) == 1
    assert len(buffers[-1]) == 40 + 7 - 1


@pytest.mark.parametrize(
    ("arguments", "reason"), [((3, 4), "got 3 tokens, and batches of 4"), ((4, 4, iter([]), 1.5), "got 1.5")]
)
def test_bad_settings_are_refused(arguments, reason):
    with pytest.raises(ValueError, match=reason):
        next(mixing.mixing_buffer(*arguments, *([iter([])] if len(arguments) == 2 else [])))
