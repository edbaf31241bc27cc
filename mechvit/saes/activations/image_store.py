"""sae-lens's `ActivationsStore` for images: pixels -> corruption -> normalisation -> ViT -> mixed tokens."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from sae_lens import ActivationsStore
from torch import Tensor

from mechvit.analysis.condition_images import shown_to
from mechvit.arguments import checked
from mechvit.data import CLEAN, Condition, ImageBatch, iter_batches, normalize
from mechvit.data.conditions import as_condition
from mechvit.data.counter_rng import splitmix64
from mechvit.models.runs.image_tokens import token_slice
from mechvit.saes import distributed as parallel
from mechvit.saes.config import StreamConfig

from .mixing_buffer import mixing_buffer

if TYPE_CHECKING:
    import datasets

    from mechvit.models import HookedViT


def hook_layer(model: HookedViT, layer: int | None) -> int:
    """Return the block whose output the SAEs read: `layer`, or the last but one when None.

    Raises:
        ValueError: the model has no such block (with one block, `layer` must be given).
    """
    n_layers = model.cfg.n_layers
    chosen = n_layers - 2 if layer is None else layer
    if not 0 <= chosen < n_layers:
        raise ValueError(f"hook_layer must be one of the model's {n_layers} blocks, 0 to {n_layers - 1}; got {chosen}")
    return chosen


@torch.no_grad()
def sae_input_widths(model: HookedViT, config: StreamConfig) -> dict[str, int]:
    """Return the hook points that the SAEs read and d_in at each: the product of all dimensions after the token's.

    Raises:
        ValueError: a name is unknown (the nearest is suggested), or a point does not hold one vector per token.
    """
    names = config.hook_names or (f"blocks.{hook_layer(model, config.hook_layer)}.hook_resid_post",)
    cfg = model.cfg
    blank = torch.zeros(1, cfg.n_channels, cfg.image_size, cfg.image_size, device=cfg.device)
    _, cache = model.run_with_cache(blank, names_filter=names, return_cache_object=False)
    for name in names:
        shape = tuple(cache[name].shape[1:])
        if name.endswith(("hook_attn_scores", "hook_pattern")) or len(shape) < 2 or shape[0] != cfg.n_tokens:
            raise ValueError(
                f"hook_names must be points with a vector for each of the {cfg.n_tokens} tokens; {name} holds "
                f"{list(shape)} an image"
            )
    return {name: cache[name][0, 0].numel() for name in names}


def epoch_segments(n_images: int, config: StreamConfig, epoch: int) -> list[np.ndarray]:
    """Return the image indices of an epoch in its random order, split into the segments that are mixed separately."""
    order = np.random.default_rng((config.seed, epoch)).permutation(n_images)
    return np.array_split(order, config.segments(n_images))


def draw_corruptions(
    image_ids: Int[Tensor, " batch"], n_corruptions: int, clean_fraction: float, seed: int
) -> Int[Tensor, " batch"]:
    """Return the index of each image's corruption, -1 for clean: a pure function of the seed and the image's id."""
    hashed = splitmix64(image_ids ^ splitmix64(torch.full_like(image_ids, seed)))
    uniform = ((hashed >> 11) & ((1 << 53) - 1)).to(torch.float64) * 2.0**-53
    if n_corruptions == 0 or clean_fraction == 1:
        return torch.full_like(image_ids, -1)
    share = (uniform - clean_fraction) / (1 - clean_fraction)
    return torch.where(uniform < clean_fraction, -1, (share * n_corruptions).long().clamp(max=n_corruptions - 1))


def corrupt_some(
    model: HookedViT, batch: ImageBatch, corruptions: Sequence[Condition | str], clean_fraction: float, seed: int
) -> tuple[Float[Tensor, "batch 3 height width"], Int[Tensor, " batch"]]:
    """Show the images that do not stay clean to a model under a condition each (see `draw_corruptions`).

    Returns:
        the images, and the index of each image's corruption, -1 for clean.
    """
    drawn = draw_corruptions(batch.image_ids, len(corruptions), clean_fraction, seed)
    images = batch.images
    for i, corruption in enumerate(corruptions):
        if len(hit := (drawn == i).nonzero()[:, 0]):
            images = images.clone() if images is batch.images else images
            images[hit] = shown_to(model, batch.take(hit), corruption, seed=seed).images
    return images, drawn


class ImageActivationsStore(ActivationsStore):
    """sae-lens's activation store for one pass over clean and corrupted images.

    The forward pass, token selection and filtering are sae-lens's own, and the mixing gives the same batches bit for
    bit with less copying (see `mixing_buffer`). In contrast to sae-lens, a "token sequence" is an image's normalised
    pixels, several hook points are concatenated along the columns, and the stream ends after one pass over the images.
    The corruptions depend only on `config.seed` and `epoch`; the mixing draws from torch's global generator, as in
    sae-lens. If several processes train together, each computes its share of every forward pass.

    Args:
        model: the model whose activations are read.
        images: prepared or raw, with `label` and `image_id` (see `mechvit.data.iter_batches`).
        corruptions: corruptions of the images that do not stay clean, each applied equally often.
        config: hook points, tokens, sizes, share of clean images and seed.
        epoch: index of the pass over the images.
        rows: indices of the images, in order; all images in the epoch's random order when None.
        widths: the result of `sae_input_widths`, if it is known already.
    """

    @checked
    def __init__(
        self,
        model: HookedViT,
        images: datasets.Dataset,
        *,
        corruptions: Collection[Condition | str],
        config: StreamConfig,
        epoch: int = 0,
        rows: np.ndarray | None = None,
        widths: dict[str, int] | None = None,
    ) -> None:
        if len(images) == 0:
            raise ValueError("SAEs need at least one image; the data set is empty")
        cfg = model.cfg
        chosen = token_slice(cfg, config.tokens)
        tokens_per_image = len(range(cfg.n_tokens)[chosen])
        self.rows = np.concatenate(epoch_segments(len(images), config, epoch)) if rows is None else rows
        n_tokens = len(self.rows) * tokens_per_image
        if n_tokens < config.train_batch_size_tokens:
            raise ValueError(
                f"one batch takes {config.train_batch_size_tokens} tokens, and {len(self.rows)} images give "
                f"{n_tokens}: use more images (or segment_images) or a smaller train_batch_size_tokens"
            )
        buffer = max(min(config.buffer_images, len(self.rows)), -(-config.train_batch_size_tokens // tokens_per_image))
        widths = sae_input_widths(model, config) if widths is None else widths
        self.images = images
        self.corruptions = tuple(c for c in map(as_condition, corruptions) if c != CLEAN)
        self.mix_seed = config.seed * 1_000_003 + epoch
        self.clean_fraction = config.clean_fraction
        self._batches: Iterator[tuple[Tensor, Tensor]] | None = None
        super().__init__(
            model=model,
            dataset=None,
            cached_activations_path="images",
            streaming=False,
            hook_name=next(iter(widths)),
            hook_head_index=None,
            context_size=cfg.n_tokens,
            d_in=sum(widths.values()),
            n_batches_in_buffer=buffer,
            total_training_tokens=n_tokens,
            store_batch_size_prompts=config.images_per_batch,
            train_batch_size_tokens=config.train_batch_size_tokens,
            prepend_bos=False,
            normalize_activations="none",
            device=cfg.device,
            dtype="float32",
            seqpos_slice=(chosen.start, chosen.stop),
        )
        self._hook_names, self._hook_d_ins = list(widths), dict(widths)

    @property
    def n_batches(self) -> int:
        """Number of training batches; the tokens of a last partial one are dropped."""
        return self.total_training_tokens // self.train_batch_size_tokens

    def load_cached_activation_dataset(self) -> None:
        """Return None: nothing is cached, so sae-lens's store asks `get_batch_tokens` for its input."""
        return

    def pixels(self) -> Iterator[tuple[Float[Tensor, "batch 3 height width"], Int[Tensor, " batch"]]]:
        """Yield the normalised images, corrupted according to the seed, and their ids."""
        processor = self.model.image_processor
        size = self.store_batch_size_prompts
        for batch in iter_batches(self.images, processor, size, rows=self.rows, device=self.device):
            images, _ = corrupt_some(self.model, batch, self.corruptions, self.clean_fraction, self.mix_seed)
            yield normalize(images, processor), batch.image_ids

    def get_batch_tokens(
        self, batch_size: int | None = None, raise_at_epoch_end: bool = False, move_to_model_device: bool = True
    ) -> Float[Tensor, "batch 3 height width"]:
        """Return the normalised pixels of the next images, which sae-lens calls tokens.

        Raises:
            StopIteration: no images are left.
        """
        return self._next_images(batch_size)[0]

    def _next_images(self, batch_size: int | None = None) -> tuple[Tensor, Tensor]:
        if batch_size not in (None, self.store_batch_size_prompts):
            raise ValueError(f"the store reads {self.store_batch_size_prompts} images at a time; got {batch_size}")
        if self._batches is None:
            self._batches = self.pixels()
        found = next(self._batches)
        self.n_dataset_processed += len(found[1])
        return found

    def get_raw_llm_batch(self, raise_on_epoch_end: bool = False) -> tuple[Float[Tensor, "token columns"], None]:
        """Return the next images' activations, one row per token, and None in place of token ids to filter by.

        Raises:
            ValueError: activations are not finite; names the hook point, the batch and the images.
        """
        pixels, image_ids = self._next_images()
        rows = parallel.forward_shared(pixels, self._side_by_side)
        if not rows.sum().isfinite():  # a quick test; it may overflow, hence the exact one
            self._check_finite(rows, image_ids)
        return rows.flatten(0, 1), None

    def _check_finite(self, rows: Tensor, image_ids: Tensor) -> None:
        start, batch = 0, -(-self.n_dataset_processed // self.store_batch_size_prompts) - 1
        for name, width in self._hook_d_ins.items():
            bad = ~rows[..., start : start + width].isfinite().flatten(1).all(1)
            if bad.any():
                raise ValueError(
                    f"{name} must be finite; it is not in batch {batch}, on the image ids "
                    f"{image_ids[bad].tolist()[:8]}. Check the checkpoint and these images"
                )
            start += width

    def _side_by_side(self, pixels: Tensor) -> Float[Tensor, "batch token columns"]:
        """Return sae-lens's activations of every hook point from one forward pass, concatenated along the columns."""
        found = list(self.get_multi_hook_activations(pixels).values())
        return (found[0] if len(found) == 1 else torch.cat(found, dim=-1)).to(self.device, self.dtype)

    def _iterate_filtered_activations(self) -> Iterator[Float[Tensor, "token columns"]]:
        while True:
            try:
                batch = self.get_filtered_llm_batch()
            except StopIteration:
                return
            yield batch

    def get_data_loader(self) -> Iterator[Float[Tensor, "batch columns"]]:
        """Return the iterator over mixed batches, equal to those of sae-lens's own loader."""
        return mixing_buffer(
            self.n_batches_in_buffer * self.training_context_size,
            self.train_batch_size_tokens,
            self._iterate_filtered_activations(),
            self.activations_mixing_fraction,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return no state: a store is rebuilt from the seed, the epoch and its rows."""
        return {}
