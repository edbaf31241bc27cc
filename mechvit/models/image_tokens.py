"""Images in the place of a language model's tokens, for transformer-lens's tools that count positions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class ImageTokens:
    """Images that have the shape of tokens; a HookedViT runs on them as on pixels.

    `transformer_lens.patching` takes the number of positions from the last dimension of its `corrupted_tokens`, which
    for pixels would be their width. `HookedViT.to_tokens` makes these.

    Raises:
        ValueError: the pixels are no batch of images.
    """

    pixels: Float[Tensor, "batch channel height width"]
    """Normalised, as the image processor gives them."""
    n_tokens: int
    """Tokens of one image: CLS, registers and patches."""

    def __post_init__(self) -> None:
        if not isinstance(self.pixels, Tensor) or self.pixels.dim() != 4:
            got = list(self.pixels.shape) if isinstance(self.pixels, Tensor) else type(self.pixels).__name__
            raise ValueError(f"pixels must be a tensor [batch, channel, height, width]; got {got}.")

    @property
    def shape(self) -> torch.Size:
        """[batch, token]."""
        return torch.Size([len(self.pixels), self.n_tokens])


def as_pixels(images: Tensor | ImageTokens) -> Tensor:
    """Give the pixels of `ImageTokens`, and anything else as it is."""
    return images.pixels if isinstance(images, ImageTokens) else images
