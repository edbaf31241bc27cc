"""Writing a batch of residuals into a cache in one pass: select tokens, scale, cast, and scatter into slots."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .jit import cdiv, interpreted, jit, tl, uses_triton

WIDEST = 1024
"""Dimensions that a program copies at a time."""


def reference(
    buffer: Float[Tensor, "slot d_model"],
    resid: Float[Tensor, "batch token d_model"],
    slots: Int[Tensor, " row"],
    first: int = 0,
    stop: int | None = None,
    scale: float = 1.0,
) -> None:
    """The definition: slice, scale, cast, index."""
    rows = resid[:, first:stop].flatten(0, 1)
    wide = rows if scale == 1 else rows.to(torch.promote_types(rows.dtype, torch.float32)) * scale
    buffer.index_copy_(0, slots.long(), wide.to(buffer.dtype))


@jit
def _kernel(  # type: ignore[no-untyped-def]
    buffer_ptr, resid_ptr, slot_ptr, sb, sr_image, sr_token, sr_d, per_image, first, d_model, scale,
    SCALED: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """One program: WIDTH dimensions of one token."""
    row = tl.program_id(0)
    image, token = (row // per_image).to(tl.int64), (row % per_image + first).to(tl.int64)
    width = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    here = width < d_model
    values = tl.load(resid_ptr + image * sr_image + token * sr_token + width * sr_d, mask=here)
    if SCALED:
        values = values.to(tl.float32) * scale
    slot = tl.load(slot_ptr + row).to(tl.int64)
    tl.store(buffer_ptr + slot * sb + width, values.to(buffer_ptr.dtype.element_ty), mask=here)


def write_rows(
    buffer: Float[Tensor, "slot d_model"],
    resid: Float[Tensor, "batch token d_model"],
    slots: Int[Tensor, " row"],
    *,
    first: int = 0,
    stop: int | None = None,
    scale: float = 1.0,
) -> None:
    """Put the tokens `first` to `stop` of every image, image by image, into rows `slots` of a buffer, in place.

    Triton on CUDA, PyTorch elsewhere. Not differentiable.

    Args:
        buffer: the cache, of any float dtype; its rows are contiguous.
        resid: of any strides.
        slots: the row of the buffer for each token that is kept; none twice.
        first, stop: as in a slice over tokens: (1, None) leaves the class token out.
        scale: multiplied before the cast, in float32 at least.

    Raises:
        ValueError: shapes that do not fit, or slots beyond the buffer (which on CUDA are not looked at).
    """
    kept = range(resid.shape[1])[first:stop] if resid.dim() == 3 else range(0)
    fits = buffer.dim() == 2 and resid.dim() == 3 and buffer.shape[1] == resid.shape[2] and buffer.stride(1) == 1
    if not fits or slots.shape != (resid.shape[0] * len(kept),) or slots.dtype not in (torch.int32, torch.int64):
        raise ValueError(
            "write_rows needs buffer [slot, d_model] with contiguous rows, resid [batch, token, d_model] and one "
            f"integer slot for each token that is kept ({len(kept)} an image); got {tuple(buffer.shape)}, "
            f"{tuple(resid.shape)} and {slots.dtype} {tuple(slots.shape)}"
        )
    if not slots.numel():
        return
    if not slots.is_cuda and not 0 <= int(slots.min()) <= int(slots.max()) < len(buffer):
        raise ValueError(f"slots must lie within the buffer's {len(buffer)} rows; got {int(slots.min())} to "
                         f"{int(slots.max())}")  # fmt: skip
    if not uses_triton(buffer, resid):
        reference(buffer, resid, slots, first, stop, scale)
        return
    d_model = buffer.shape[1]
    width = min(WIDEST, 1 << (d_model - 1).bit_length())
    _kernel[(slots.numel(), cdiv(d_model, width))](
        buffer, resid, slots, buffer.stride(0), *resid.stride(), len(kept), kept.start, d_model, scale,
        SCALED=scale != 1 or interpreted(), WIDTH=width,
    )  # fmt: skip


def to_host(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """Copy a stream of CUDA tensors to the host, each while the next is computed.

    Two pinned buffers take turns, filled on a stream of their own. A batch that is given is valid until the one after
    the next is asked for; copy what is to be kept. Tensors on a CPU pass through.
    """
    side: torch.cuda.Stream | None = None
    buffers: list[Tensor | None] = [None, None]
    waiting: tuple[Tensor, torch.cuda.Event] | None = None
    for index, batch in enumerate(batches):
        if not batch.is_cuda:
            yield batch
            continue
        side = side or torch.cuda.Stream(batch.device)
        pinned = buffers[index % 2]
        if pinned is None or pinned.shape != batch.shape or pinned.dtype != batch.dtype:
            pinned = buffers[index % 2] = torch.empty(batch.shape, dtype=batch.dtype, pin_memory=True)
        side.wait_stream(torch.cuda.current_stream(batch.device))
        with torch.cuda.stream(side):
            pinned.copy_(batch, non_blocking=True)
            done = torch.cuda.Event()
            done.record()
        batch.record_stream(side)  # its memory is not used again before the copy is done
        if waiting is not None:
            waiting[1].synchronize()
            yield waiting[0]
        waiting = pinned, done
    if waiting is not None:
        waiting[1].synchronize()
        yield waiting[0]
