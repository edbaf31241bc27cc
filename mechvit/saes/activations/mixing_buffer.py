"""sae-lens's mixing buffer with identical batches, in which each activation is written once and read once.

sae-lens concatenates its whole store with every incoming chunk. Here a buffer is allocated once, and only the order is
permuted: a chunk is scattered into the slots that earlier batches freed, and a batch gathers its own rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from mechvit.kernels.cache_write import write_rows


@torch.no_grad()
def mixing_buffer(
    buffer_size: int,
    batch_size: int,
    activations_loader: Iterator[Float[Tensor, "token d_in"]],
    mix_fraction: float = 0.5,
) -> Iterator[Float[Tensor, "batch d_in"]]:
    """Yield mixed batches of old and new activations, bit for bit those of sae-lens's function of the same name.

    It draws the same numbers from torch's global generator, so either can replace the other. A batch is a copy. Memory
    holds the buffer and one chunk.

    Args:
        buffer_size: tokens that are collected before the first batch.
        batch_size: tokens per batch; a last partial one is dropped.
        activations_loader: chunks of tokens, of any sizes, all of one width, dtype and device.
        mix_fraction: share of the buffer that is kept for the next mix; 0 keeps the incoming order.

    Raises:
        ValueError: the buffer is smaller than a batch, or the fraction lies outside [0, 1].
    """
    if buffer_size < batch_size:
        raise ValueError(
            f"the buffer must hold at least one batch; got {buffer_size} tokens, and batches of {batch_size}"
        )
    if not 0 <= mix_fraction <= 1:
        raise ValueError(f"mix_fraction must lie in [0, 1]; got {mix_fraction}")
    buffer = order = free = None
    for chunk in activations_loader:
        if buffer is None or order is None or free is None:
            buffer, free = chunk.new_empty(0, chunk.shape[1]), torch.empty(0, dtype=torch.int64, device=chunk.device)
            order = free
        if (short := len(chunk) - len(free)) > 0:  # at the start, or a chunk larger than the first
            room = short if len(buffer) else buffer_size + len(chunk) - 1
            free = torch.cat([free, torch.arange(len(buffer), len(buffer) + room, device=free.device)])
            buffer = torch.cat([buffer, buffer.new_empty(room, buffer.shape[1])])
        slots, free = free[: len(chunk)], free[len(chunk) :]
        write_rows(buffer, chunk[None], slots)
        order = torch.cat([order, slots])
        if len(order) < buffer_size:
            continue
        if mix_fraction > 0:
            order = order[torch.randperm(len(order)).to(order.device)]
        kept = int(buffer_size * mix_fraction)
        serving = max(1, (len(order) - kept) // batch_size) * batch_size
        for start in range(0, serving, batch_size):
            yield buffer[order[start : start + batch_size]]
        free, order = torch.cat([free, order[:serving]]), order[serving:]
    if buffer is not None and order is not None:
        for start in range(0, len(order) - batch_size + 1, batch_size):
            yield buffer[order[start : start + batch_size]]
