"""sae-lens's `ActivationsStore`, fed with images: pixels -> corruption -> normalisation -> ViT -> mixed tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from sae_lens import ActivationsStore
from torch import Tensor

from mechvit.data import CLEAN, Corruption, corrupt, iter_batches, normalize
from mechvit.data.random import splitmix64

from .config import SAEConfig

if TYPE_CHECKING:
    import datasets

    from mechvit.models import HookedViT


def hook_layer(model: HookedViT, layer: int | None) -> int:
    """The block whose output the SAEs read: `layer`, or the last but one.

    Raises:
        ValueError: the model has no such block, or a single one.
    """
    n_layers = model.cfg.n_layers
    chosen = n_layers - 2 if layer is None else layer
    if not 0 <= chosen < n_layers:
        raise ValueError(f"hook_layer must be one of the model's {n_layers} blocks, 0 to {n_layers - 1}; got {chosen}")
    return chosen


def hook_name(model: HookedViT, layer: int | None) -> str:
    """`blocks.{l}.hook_resid_post` of that block."""
    return f"blocks.{hook_layer(model, layer)}.hook_resid_post"


def token_slice(model: HookedViT, tokens: str) -> slice:
    """The positions that `tokens` means: all, the patches after the class (and distillation) tokens, or the first."""
    return {"all": slice(None), "patches": slice(model.cfg.n_prefix_tokens, None), "cls": slice(0, 1)}[tokens]


def draw_corruptions(
    image_ids: Int[Tensor, " batch"], n_corruptions: int, clean_fraction: float, seed: int
) -> Int[Tensor, " batch"]:
    """Which corruption each image gets: -1 for clean, else an index; a pure function of the seed and the image's id."""
    hashed = splitmix64(image_ids ^ splitmix64(torch.full_like(image_ids, seed)))
    uniform = ((hashed >> 11) & ((1 << 53) - 1)).to(torch.float64) * 2.0**-53
    if n_corruptions == 0 or clean_fraction == 1:
        return torch.full_like(image_ids, -1)
    share = (uniform - clean_fraction) / (1 - clean_fraction)
    return torch.where(uniform < clean_fraction, -1, (share * n_corruptions).long().clamp(max=n_corruptions - 1))


class ImageActivationsStore(ActivationsStore):
    """One epoch of residuals of clean and corrupted images, as sae-lens's own store gives residuals of text.

    Forward pass, token selection, filtering and mixing are sae-lens's. What differs: a "token sequence" is an image's
    normalised pixels, and the stream ends after one pass over the images, so that an epoch has an end. The order of the
    images and their corruptions depend on `config.seed` and `epoch` alone; the mixing draws from torch's global
    generator, as in sae-lens.

    Args:
        model: whose residuals are taken.
        images: prepared or raw, with `label` and `image_id` (see `mechvit.data.iter_batches`).
        corruptions: those that the images which do not stay clean get, each equally often.
        config: hook, tokens, sizes, mix and seed.
        epoch: which pass this is.
        shuffle: False keeps the images in order.
    """

    def __init__(
        self,
        model: HookedViT,
        images: datasets.Dataset,
        *,
        corruptions: tuple[Corruption, ...],
        config: SAEConfig,
        epoch: int = 0,
        shuffle: bool = True,
    ) -> None:
        if len(images) == 0:
            raise ValueError("SAEs need at least one image; the data set is empty")
        cfg = model.cfg
        chosen = token_slice(model, config.tokens)
        tokens_per_image = len(range(cfg.n_tokens)[chosen])
        n_tokens = len(images) * tokens_per_image
        if n_tokens < config.train_batch_size_tokens:
            raise ValueError(
                f"one batch takes {config.train_batch_size_tokens} tokens, and {len(images)} images give {n_tokens}: "
                "use more images or a smaller train_batch_size_tokens"
            )
        buffer = max(min(config.buffer_images, len(images)), -(-config.train_batch_size_tokens // tokens_per_image))
        self.images = images
        self.corruptions = tuple(c for c in corruptions if c != CLEAN)
        self.mix_seed = config.seed * 1_000_003 + epoch
        self.clean_fraction = config.clean_fraction
        order = np.random.default_rng((config.seed, epoch)).permutation(len(images))
        self.order = order if shuffle else np.arange(len(images))
        self._pixels: Iterator[Tensor] | None = None
        super().__init__(
            model=model,
            dataset=None,
            cached_activations_path="images",
            streaming=False,
            hook_name=hook_name(model, config.hook_layer),
            hook_head_index=None,
            context_size=cfg.n_tokens,
            d_in=cfg.d_model,
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

    @property
    def n_batches(self) -> int:
        """Training batches in the epoch; the tokens of a last partial one are left out."""
        return self.total_training_tokens // self.train_batch_size_tokens

    def load_cached_activation_dataset(self) -> None:
        """Nothing is cached: the stock store then asks `get_batch_tokens` for its input."""
        return

    def pixels(self) -> Iterator[Float[Tensor, "batch 3 height width"]]:
        """The epoch's normalised images, corrupted as the seed says."""
        processor = self.model.image_processor
        shuffled = self.images.select(self.order)
        for batch in iter_batches(shuffled, processor, self.store_batch_size_prompts, device=self.device):
            drawn = draw_corruptions(batch.image_ids, len(self.corruptions), self.clean_fraction, self.mix_seed)
            images = batch.images.clone()
            for i, corruption in enumerate(self.corruptions):
                if (chosen := drawn == i).any():
                    images[chosen] = corrupt(images[chosen], corruption, batch.image_ids[chosen], seed=self.mix_seed)
            yield normalize(images, processor)

    def get_batch_tokens(
        self, batch_size: int | None = None, raise_at_epoch_end: bool = False, move_to_model_device: bool = True
    ) -> Float[Tensor, "batch 3 height width"]:
        """The next images of the epoch; what sae-lens calls tokens.

        Raises:
            StopIteration: the epoch is over.
        """
        if batch_size not in (None, self.store_batch_size_prompts):
            raise ValueError(f"the store reads {self.store_batch_size_prompts} images at a time; got {batch_size}")
        if self._pixels is None:
            self._pixels = self.pixels()
        return next(self._pixels)

    def get_raw_llm_batch(self, raise_on_epoch_end: bool = False) -> tuple[Float[Tensor, "token d_model"], None]:
        """The next images' residuals, one row a token; there are no token ids to filter by."""
        activations = self.get_activations(self.get_batch_tokens())
        if not torch.isfinite(activations).all():
            raise ValueError(f"{self.hook_name} holds values that are not finite: check the checkpoint and the images")
        return activations.reshape(-1, self.d_in), None

    def _iterate_filtered_activations(self) -> Iterator[Float[Tensor, "token d_model"]]:
        while True:
            try:
                batch = self.get_filtered_llm_batch()
            except StopIteration:
                return
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """A store is one epoch, made again from `config.seed` and the epoch's number, so it has no state to keep."""
        return {}
