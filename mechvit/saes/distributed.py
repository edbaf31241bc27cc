"""Training of SAEs on several processes (torchrun): each processes a share of every batch and holds equal weights.

The processes are those of `torch.distributed` if it is initialised, else this one alone. Up to rounding, the result
equals that of one process with the whole batch: gradients are averaged before they are clipped, the k x batch largest
entries are selected over the whole batch, and a latent is alive if it fired on any process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float
from sae_lens.saes.batchtopk_sae import BatchTopK
from torch import Tensor

from mechvit.files import end_with_parent
from mechvit.models.devices import device_of_process

if TYPE_CHECKING:
    from sae_lens import TrainingSAE

PATIENCE = timedelta(days=7)
"""Time that processes wait for each other: one may check or write for hours while the others wait. torchrun ends all of
them as soon as one fails."""


@contextmanager
def processes(device: str | None = None) -> Iterator[str | None]:
    """Join the processes that torchrun started and yield this one's device; without torchrun, yield `device`.

    Args:
        device: `cuda` assigns one GPU to each process; None does the same if there are GPUs, else uses the CPU.

    Raises:
        SettingError: a numbered GPU is given for several processes, or there are more processes than GPUs.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield device
        return
    end_with_parent()
    own = device_of_process(device)
    if own.type == "cuda":
        torch.cuda.set_device(own)
    dist.init_process_group("nccl" if own.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield str(own)
    finally:
        dist.destroy_process_group()


def size() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the rank of this process."""
    return dist.get_rank() if size() > 1 else 0


def share(n: int) -> slice:
    """Return this process's rows of a batch of `n`, which `size()` must divide."""
    each = n // size()
    return slice(rank() * each, (rank() + 1) * each)


def summed(value: float, device: torch.device) -> float:
    """Return the sum of all processes' values, in float64."""
    if size() == 1:
        return value
    total = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return float(total)


def from_first(value: Any) -> Any:
    """Return the first process's value, so that all processes decide alike."""
    if size() == 1:
        return value
    held = [value]
    dist.broadcast_object_list(held, src=0)
    return held[0]


def wait() -> None:
    """Wait until all processes have reached this point."""
    if size() > 1:
        dist.barrier()


def forward_shared(rows: Tensor, forward: Any) -> Tensor:
    """Compute `forward(rows)`, each process a share of the rows; every process receives the whole result, in order.

    Args:
        rows: the input, the same on every process.
        forward: a function that maps each row to a row.
    """
    if size() == 1:
        return forward(rows)
    each = -(-len(rows) // size())
    own = torch.arange(rank() * each, (rank() + 1) * each, device=rows.device).clamp(max=len(rows) - 1)
    found = forward(rows[own]).contiguous()
    every = [torch.empty_like(found) for _ in range(size())]
    dist.all_gather(every, found)
    return torch.cat(every)[: len(rows)]


def share_training(sae: TrainingSAE) -> None:
    """Train an SAE across all processes: equal weights, averaged gradients, k x batch entries of the whole batch.

    Gradients are averaged in one message once the last of a backward pass has arrived, before they are clipped.
    """
    if size() == 1:
        return
    parameters = [parameter for _, parameter in sorted(sae.named_parameters())]
    waiting = set(map(id, parameters))

    def arrived(parameter: Tensor) -> None:
        waiting.discard(id(parameter))
        if waiting:
            return
        waiting.update(map(id, parameters))
        grads = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([grad.flatten() for grad in grads])
        dist.all_reduce(flat)
        flat /= size()
        for grad, mean in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(mean.view_as(grad))

    for parameter in parameters:
        dist.broadcast(parameter.data, src=0)
        parameter.register_post_accumulate_grad_hook(arrived)
    if isinstance(sae.activation_fn, BatchTopK):
        sae.activation_fn = SharedBatchTopK(sae.activation_fn.k)


def alive_anywhere(passes_since_fired: Tensor) -> None:
    """Count a latent as fired if it fired on any process."""
    if size() > 1:
        dist.all_reduce(passes_since_fired, op=dist.ReduceOp.MIN)


class SharedBatchTopK(BatchTopK):
    """sae-lens's BatchTopK, over the batch of all processes during training."""

    def forward(self, x: Float[Tensor, "*token d_sae"]) -> Float[Tensor, "*token d_sae"]:
        if not self.training:
            return super().forward(x)
        acts = x.relu()
        kept, _ = largest(acts.detach().flatten(), int(self.k * acts.shape[:-1].numel() * size()), shared=True)
        return acts * kept.view_as(acts)


@torch.no_grad()
def largest(values: Float[Tensor, " entry"], wanted: int, *, shared: bool) -> tuple[Bool[Tensor, " entry"], float]:
    """Return the mask of this process's values among the `wanted` largest, and the smallest of those.

    Of equal values at the boundary, those of lower ranks and earlier positions are kept.

    Args:
        values: this process's values.
        wanted: number of values to keep.
        shared: whether to select among the values of all processes, rather than of this one alone.

    Returns:
        the mask, and the threshold: -inf if there are no more values than wanted, inf if none is wanted.
    """
    parts = _top_of_each(values, wanted) if shared and size() > 1 else [values]
    every = torch.cat(parts)
    if not 0 < wanted < len(every):
        return torch.full_like(values, wanted > 0, dtype=torch.bool), float("-inf" if wanted else "inf")
    threshold = torch.kthvalue(every, len(every) - wanted + 1).values
    kept = values > threshold
    before = sum(int((part == threshold).sum()) for part in parts[: rank()]) if len(parts) > 1 else 0
    left = wanted - int((every > threshold).sum()) - before
    tied = (values == threshold).nonzero().squeeze(1)
    kept[tied[: max(left, 0)]] = True
    return kept, float(threshold)


def _top_of_each(values: Tensor, wanted: int) -> list[Tensor]:
    """Return for each process the values that can be among the `wanted` largest of all."""
    top = values.topk(min(wanted, len(values)), sorted=False).values
    lengths = [torch.zeros(1, dtype=torch.int64, device=values.device) for _ in range(size())]
    dist.all_gather(lengths, torch.tensor([len(top)], device=values.device))
    longest = max(map(int, lengths))
    every = [top.new_empty(longest) for _ in range(size())]
    dist.all_gather(every, torch.cat([top, top.new_full((longest - len(top),), float("-inf"))]))
    return [part[: int(length)] for part, length in zip(every, lengths, strict=True)]
