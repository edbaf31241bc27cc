"""Tokens of an image, and images in place of a language model's tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mechvit.models.config import HookedViTConfig


@dataclass(frozen=True, eq=False)
class ImageTokens:
    """Images with the shape of tokens; a HookedViT runs on them as on pixels.

    `transformer_lens.patching` takes the number of positions from the last dimension of its `corrupted_tokens`, which
    for pixels would be their width. Made by `HookedViT.to_tokens`.

    Raises:
        ValueError: the pixels are not a batch of images.
    """

    pixels: Float[Tensor, "batch channel height width"]
    """Normalised pixels, as the image processor returns them."""
    n_tokens: int
    """Number of tokens of one image: CLS, registers and patches."""

    def __post_init__(self) -> None:
        if not isinstance(self.pixels, Tensor) or self.pixels.dim() != 4:
            got = list(self.pixels.shape) if isinstance(self.pixels, Tensor) else type(self.pixels).__name__
            raise ValueError(f"pixels must be a tensor [batch, channel, height, width]; got {got}.")

    @property
    def shape(self) -> torch.Size:
        """Shape [batch, token]."""
        return torch.Size([len(self.pixels), self.n_tokens])


def as_pixels(images: Tensor | ImageTokens) -> Tensor:
    """Return the pixels of `ImageTokens`, and anything else unchanged."""
    return images.pixels if isinstance(images, ImageTokens) else images


def token_slice(cfg: HookedViTConfig, tokens: str) -> slice:
    """Return the positions that a name stands for: "all", the "patches", or "cls".

    Raises:
        ValueError: an unknown name, or "cls" for a model without CLS.
    """
    meanings = {"all": slice(None), "patches": slice(cfg.n_prefix_tokens, None), "cls": slice(0, 1)}
    if tokens not in meanings:
        raise ValueError(f'tokens must be "all", "patches" or "cls"; got {tokens!r}.')
    if tokens == "cls" and not cfg.cls_token:
        raise ValueError(f'This {cfg.architecture} has no CLS. Use tokens="all".')
    return meanings[tokens]
