"""Writing a batch of residuals into a cache in one pass: select tokens, scale, cast, and scatter into slots."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .jit import cdiv, interpreted, jit, on_device_of, tl, uses_triton

WIDEST = 1024
"""Dimensions that a program copies at a time."""


def reference(
    buffer: Float[Tensor, "slot d_model"],
    resid: Float[Tensor, "batch token d_model"],
    slots: Int[Tensor, " row"] | int,
    first: int = 0,
    stop: int | None = None,
    scale: float = 1.0,
) -> None:
    """Write the rows by slicing, scaling, casting and indexing, as defined."""
    rows = resid[:, first:stop]
    wide = rows if scale == 1 else rows.to(torch.promote_types(rows.dtype, torch.float32)) * scale
    if isinstance(slots, int):
        buffer[slots : slots + rows.shape[0] * rows.shape[1]].view(rows.shape).copy_(wide)
    else:
        buffer.index_copy_(0, slots.long(), wide.flatten(0, 1).to(buffer.dtype))


@jit
def _kernel(  # type: ignore[no-untyped-def]
    buffer_ptr,
    resid_ptr,
    slot_ptr,
    start,
    sb,
    sr_image,
    sr_token,
    sr_d,
    per_image,
    first,
    d_model,
    scale,
    CONSECUTIVE: tl.constexpr,
    SCALED: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Run one program: WIDTH dimensions of one token."""
    row = tl.program_id(0)
    image, token = (row // per_image).to(tl.int64), (row % per_image + first).to(tl.int64)
    width = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    here = width < d_model
    values = tl.load(resid_ptr + image * sr_image + token * sr_token + width * sr_d, mask=here)
    if SCALED:
        values = values.to(tl.float32) * scale
    if CONSECUTIVE:  # noqa: SIM108 - Triton takes the branch when it compiles
        slot = (row + start).to(tl.int64)
    else:
        slot = tl.load(slot_ptr + row).to(tl.int64)
    tl.store(buffer_ptr + slot * sb + width, values.to(buffer_ptr.dtype.element_ty), mask=here)


def write_rows(
    buffer: Float[Tensor, "slot d_model"],
    resid: Float[Tensor, "batch token d_model"],
    slots: Int[Tensor, " row"] | int,
    *,
    first: int = 0,
    stop: int | None = None,
    scale: float = 1.0,
) -> None:
    """Write the tokens `first` to `stop` of every image, image by image, into rows `slots` of a buffer, in place.

    Triton on CUDA, PyTorch elsewhere. Not differentiable.

    Args:
        buffer: the cache, of any float dtype; its rows are contiguous.
        resid: the residuals, of any strides.
        slots: the row of the buffer for each token that is kept, none twice; or the first of consecutive rows.
        first, stop: as in a slice over tokens: (1, None) leaves the class token out.
        scale: multiplied before the cast, in float32 at least.

    Raises:
        ValueError: shapes or devices that do not fit, or slots beyond the buffer (not checked on CUDA).
    """
    kept = range(resid.shape[1])[first:stop] if resid.dim() == 3 else range(0)
    n_rows = resid.shape[0] * len(kept)
    fits = buffer.dim() == 2 and resid.dim() == 3 and buffer.shape[1] == resid.shape[2] and buffer.stride(1) == 1
    shaped = isinstance(slots, int) or (slots.shape == (n_rows,) and slots.dtype in (torch.int32, torch.int64))
    if not fits or not shaped:
        got = f"the slot {slots}" if isinstance(slots, int) else f"{slots.dtype} {tuple(slots.shape)}"
        raise ValueError(
            "write_rows needs buffer [slot, d_model] with contiguous rows, resid [batch, token, d_model] and one "
            f"integer slot for each token that is kept ({len(kept)} per image); got {tuple(buffer.shape)}, "
            f"{tuple(resid.shape)} and {got}"
        )
    elsewhere = {resid.device, buffer.device if isinstance(slots, int) else slots.device} - {buffer.device}
    if elsewhere:
        raise ValueError(f"resid and slots must be on the buffer's device, {buffer.device}; got {elsewhere.pop()}")
    if not n_rows:
        return
    if isinstance(slots, int) or not slots.is_cuda:
        low, high = (slots, slots + n_rows - 1) if isinstance(slots, int) else (int(slots.min()), int(slots.max()))
        if not 0 <= low <= high < len(buffer):
            raise ValueError(f"slots must lie within the buffer's {len(buffer)} rows; got {low} to {high}")
    if not uses_triton(buffer, resid):
        reference(buffer, resid, slots, first, stop, scale)
        return
    d_model = buffer.shape[1]
    width = min(WIDEST, 1 << (d_model - 1).bit_length())
    with on_device_of(buffer):
        _kernel[(n_rows, cdiv(d_model, width))](
            buffer,
            resid,
            *((buffer, slots) if isinstance(slots, int) else (slots, 0)),
            buffer.stride(0),
            *resid.stride(),
            len(kept),
            kept.start,
            d_model,
            scale,
            CONSECUTIVE=isinstance(slots, int),
            SCALED=scale != 1 or interpreted(),
            WIDTH=width,
        )


def to_host(batches: Iterable[Mapping[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    """Copy a stream of CUDA tensors to the host, each batch while the next is computed.

    Two sets of pinned buffers take turns, filled on a stream of their own. A yielded batch is valid until the next is
    requested; copy what is to be kept. Batches on a CPU pass through unchanged.
    """
    side: torch.cuda.Stream | None = None
    pinned: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
    waiting: tuple[dict[str, Tensor], torch.cuda.Event] | None = None
    for index, batch in enumerate(batches):
        device = next(iter(batch.values())).device
        if device.type != "cuda":
            yield dict(batch)
            continue
        side = side or torch.cuda.Stream(device)
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            host = {name: _copied(tensor, name, pinned[index % 2], side) for name, tensor in batch.items()}
            done = torch.cuda.Event()
            done.record()
        if waiting is not None:
            waiting[1].synchronize()
            yield waiting[0]
        waiting = host, done
    if waiting is not None:
        waiting[1].synchronize()
        yield waiting[0]


def _copied(tensor: Tensor, name: str, pinned: dict[str, Tensor], side: torch.cuda.Stream) -> Tensor:
    """Start copying a tensor into its pinned buffer, which is replaced where it is too small or of another dtype."""
    buffer = pinned.get(name)
    if buffer is None or buffer.dtype != tensor.dtype or buffer.numel() < tensor.numel():
        buffer = pinned[name] = torch.empty(tensor.numel(), dtype=tensor.dtype, pin_memory=True)
    tensor.record_stream(side)  # its memory is not reused before the copy is done
    return buffer[: tensor.numel()].view(tensor.shape).copy_(tensor, non_blocking=True)
