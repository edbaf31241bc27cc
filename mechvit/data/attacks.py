"""Attacks: images within an L-infinity ball that raise a model's loss.

FGSM takes one step of the radius along the sign of the gradient. PGD starts at a random point of the ball, which the
seed and the image's id alone determine, and takes ten steps of a quarter of the radius, each followed by the projection
onto the ball and onto [0, 1]. Each image's gradient is that of its own loss, so that a batch is attacked image by image
at once; another batch size changes a gradient by rounding, and where it is that close to zero, a pixel's sign.

Sources: Goodfellow et al., arXiv:1412.6572; Madry et al., arXiv:1706.06083.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from .conditions import Attack
from .counter_rng import named_seed, uniform

PGD_STEPS = 10
"""Steps of PGD, each of a quarter of the radius."""


def attack_images(
    logits_of: Callable[[Float[Tensor, "batch 3 height width"]], Float[Tensor, "batch class"]],
    images: Float[Tensor, "batch 3 height width"],
    labels: Int[Tensor, " batch"],
    image_ids: Int[Tensor, " batch"],
    attack: Attack,
    *,
    seed: int = 0,
) -> Float[Tensor, "batch 3 height width"]:
    """Return a batch of images, attacked; gradients flow whatever mode this is called in, and none is left anywhere.

    Args:
        logits_of: differentiable function of images in [0, 1].
        images: RGB in [0, 1].
        labels: each image's target; where it is no class (as -1), the prediction on the image itself is.
        image_ids: each image's id, which with the seed determines PGD's start.
        attack: method and radius.
        seed: non-negative.

    Raises:
        ValueError: a gradient that is not finite.
    """
    radius = attack.level / 255
    steps, step = (PGD_STEPS, radius / 4) if attack.family == "pgd" else (1, radius)
    with torch.inference_mode(False), torch.enable_grad():
        clean = images.detach().clone()  # what was made in inference mode takes no part in a gradient
        low, high = (clean - radius).clamp_(min=0), (clean + radius).clamp_(max=1)
        target = _targets(logits_of, clean, labels.clone(), attack.uses_labels)
        shown = clean
        if attack.family == "pgd":
            draws = uniform(image_ids.clone(), clean[0].numel(), named_seed(seed, "pgd")).view_as(clean)
            shown = torch.clamp(clean + (2 * draws - 1) * radius, low, high)
        for _ in range(steps):
            shown = shown.detach().requires_grad_()
            loss = cross_entropy(logits_of(shown).float(), target, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, shown)
            if not bool(gradient.isfinite().all()):
                raise ValueError(
                    f"{attack.key} needs gradients that are finite; they are not on the image ids "
                    f"{image_ids[~gradient.isfinite().flatten(1).all(1)].tolist()[:8]}: check the checkpoint, or "
                    "compute in float32"
                )
            shown = torch.clamp(shown.detach() + step * gradient.sign(), low, high)
    return shown


def _targets(
    logits_of: Callable[[Tensor], Tensor], images: Tensor, labels: Int[Tensor, " batch"], use: bool
) -> Int[Tensor, " batch"]:
    """Return each image's label where it is a class of the model, else the model's prediction."""
    with torch.no_grad():
        logits = logits_of(images)
    known = (labels >= 0) & (labels < logits.shape[-1]) & use
    return torch.where(known, labels, logits.argmax(-1))
