"""Mixtures of corruptions: the member that each image gets in each epoch."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvit.arguments import checked

from .conditions import of_pixels
from .corruptions import corrupt
from .counter_rng import named_seed, uniform
from .mixture_spec import Mixture


@checked
def drawn_members(
    mixture: Mixture, image_ids: Int[Tensor, " batch"], *, epoch: int, seed: int = 0
) -> Int[Tensor, " batch"]:
    """Return the index among `mixture.members` that each image gets in an epoch, all equally likely.

    It depends only on the seed, the image's id and the epoch, so that batch size, order, workers and ranks never change
    it. Draws of two epochs are independent.

    Args:
        mixture: the members to draw from.
        image_ids: each image's id.
        epoch: counted from 0.
        seed: non-negative.

    Raises:
        ValueError: a negative seed.
    """
    n = len(mixture.members)
    draw = uniform(image_ids, 1, named_seed(seed, f"mixture, epoch {epoch}"))[:, 0]
    return (draw * n).long().clamp_(max=n - 1)  # the product may round up to n


@checked
@torch.no_grad()
def corrupt_by_mixture(
    images: Float[Tensor, "batch channel height width"],
    mixture: Mixture,
    image_ids: Int[Tensor, " batch"],
    *,
    epoch: int = 0,
    seed: int = 0,
) -> Float[Tensor, "batch channel height width"]:
    """Corrupt each image by its member in this epoch (see `drawn_members`), with one call per member.

    A member does to an image what `corrupt` does with the same seed, in every epoch.

    Raises:
        ValueError: as `corrupt`.
    """
    places = drawn_members(mixture, image_ids, epoch=epoch, seed=seed)
    corrupted = images.clone()
    for place, member in enumerate(mixture.members):
        own = (places == place).nonzero()[:, 0]
        if len(own):
            corrupted[own] = corrupt(images[own], of_pixels(member), image_ids[own], seed=seed)
    return corrupted
