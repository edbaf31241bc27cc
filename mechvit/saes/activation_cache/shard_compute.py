"""Computation of one shard: images -> corruption -> truncated forward pass -> rows in the stored type."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from mechvit.data import ImageBatch, iter_batches, normalize
from mechvit.kernels.cache_write import to_host, write_rows
from mechvit.models.checkpoints.checks import BEFORE_BLOCKS
from mechvit.models.runs.image_tokens import token_slice
from mechvit.saes.activations.image_store import corrupt_some

from .manifest import DTYPES, Plan

if TYPE_CHECKING:
    import datasets

    from mechvit.models import HookedViT

Forward = Callable[[Tensor], dict[str, Tensor]]
ALL_FINITE = "all finite"
"""Key in a batch's results under which it is recorded whether each hook point's stored rows are finite."""


@torch.no_grad()
def run_to(model: HookedViT, pixels: Tensor, hooks: Collection[str]) -> dict[str, Tensor]:
    """Run the model up to the last of the hook points and return the activations at each of them."""
    _, found = model.run_with_cache(
        pixels, None, names_filter=list(hooks), stop_at_layer=layer_after(hooks), return_cache_object=False
    )
    return found


def layer_after(hooks: Collection[str]) -> int | None:
    """Return the layer after which a forward pass has passed these hook points; None if it must run to its end."""
    layers = [int(name.split(".")[1]) + 1 if name.startswith("blocks.") else 0 for name in hooks]
    within = all(layer or name.split(".")[0] in BEFORE_BLOCKS for name, layer in zip(hooks, layers, strict=True))
    return max(layers) if within else None


def forward_of(model: HookedViT, plan: Plan) -> Forward:
    """Return the function from pixels to the activations at the plan's hook points, compiled if the plan says so."""
    hooks = list(plan.hooks)
    if plan.compiled:
        return model.compile_cache(hooks, stop_at_layer=layer_after(hooks), batch_size=plan.batch_size)
    return lambda pixels: run_to(model, pixels, hooks)


def compute_shard(
    model: HookedViT,
    images: datasets.Dataset,
    plan: Plan,
    index: int,
    seen: Callable[[int], object],
    forward: Forward,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Compute one shard: activations [row, width] by hook point, and the images' ids, labels and corruptions.

    On a CPU each batch is cast directly into its rows of the shard; a GPU computes one batch while the rows of the one
    before are copied to the host.

    Args:
        model, images: the model and the data set that the plan was made for.
        plan: the plan of the cache.
        index: index of the shard.
        seen: called with the number of images after each batch.
        forward: the result of `forward_of`.

    Raises:
        ValueError: activations are not finite in the stored type; names the batch and the image.
    """
    rows = plan.images_of(index)
    shard = {
        hook: torch.empty(plan.rows_of(index), width, dtype=DTYPES[plan.dtype]) for hook, width in plan.hooks.items()
    }
    about: list[Tensor] = []
    under_way: deque[tuple[ImageBatch, dict[str, Tensor]]] = deque()

    def stored() -> Iterator[dict[str, Tensor]]:
        for batch, drawn, pixels in _inputs(model, images.select(rows), plan):
            start = sum(part.shape[1] for part in about) * plan.tokens_per_image
            # Fetched before the pass is queued: a copy from a GPU waits for everything queued before it.
            about.append(torch.stack([batch.image_ids, batch.labels, drawn]).cpu())
            exact = forward(pixels)
            kept = _kept(exact, {hook: tensor[start:] for hook, tensor in shard.items()}, plan, model)
            under_way.append((batch, exact))
            yield kept | {ALL_FINITE: torch.stack([tensor.isfinite().all() for tensor in kept.values()])}

    done = 0
    for number, kept in enumerate(to_host(stored())):
        batch, exact = under_way.popleft()
        if not all(kept.pop(ALL_FINITE).tolist()):
            raise _not_finite(rows.start // plan.batch_size + number, batch, exact, plan, model)
        stop = done + len(batch) * plan.tokens_per_image
        for hook, tensor in kept.items():
            if model.cfg.device.type == "cuda":
                shard[hook][done:stop] = tensor
        done = stop
        seen(len(batch))
    image_ids, labels, corruption = torch.cat(about, dim=1)
    return shard, {"image_id": image_ids.clone(), "label": labels.clone(), "corruption": corruption.clone()}


def _kept(exact: dict[str, Tensor], places: dict[str, Tensor], plan: Plan, model: HookedViT) -> dict[str, Tensor]:
    """Return the stored rows of one batch: views of the shard's rows on a CPU, newly allocated on a GPU."""
    chosen = token_slice(model.cfg, plan.tokens)
    kept = {}
    for hook, tensor in exact.items():
        n_rows = len(tensor) * plan.tokens_per_image
        on_gpu = tensor.is_cuda
        kept[hook] = (
            tensor.new_empty(n_rows, plan.hooks[hook], dtype=DTYPES[plan.dtype]) if on_gpu else (places[hook][:n_rows])
        )
        write_rows(kept[hook], tensor.flatten(2), 0, first=chosen.start or 0, stop=chosen.stop)
    return kept


def _inputs(
    model: HookedViT, images: datasets.Dataset, plan: Plan
) -> Iterator[tuple[ImageBatch, Tensor, Float[Tensor, "batch 3 height width"]]]:
    """Yield each batch, the index of each image's corruption, and the corrupted and normalised pixels."""
    seed = plan.seed * 1_000_003  # the seed of epoch 0 in ImageActivationsStore
    for batch in iter_batches(images, model.image_processor, plan.batch_size, device=model.cfg.device):
        pixels, drawn = corrupt_some(model, batch, plan.corruptions, plan.clean_fraction, seed)
        yield batch, drawn, normalize(pixels, model.image_processor)


def _not_finite(number: int, batch: ImageBatch, exact: dict[str, Tensor], plan: Plan, model: HookedViT) -> ValueError:
    """Return the error that names the first image whose activations cannot be stored."""
    dtype, chosen = DTYPES[plan.dtype], token_slice(model.cfg, plan.tokens)
    for hook, tensor in exact.items():
        bad = tensor[:, chosen].to(dtype).isfinite().flatten(1).all(1).logical_not()
        if not bad.any():
            continue
        first = int(bad.nonzero()[0])
        why = (
            f"too large for {plan.dtype}: store bfloat16 or float32"
            if tensor[first, chosen].isfinite().all()
            else "not finite: check the checkpoint and the image"
        )
        return ValueError(
            f"batch {number}, image {int(batch.image_ids[first])}: {hook} holds values that are {why}. "
            f"{int(bad.sum())} of the batch's {len(batch)} images are affected; the shards before it are kept"
        )
    raise AssertionError("what was stored is finite")
