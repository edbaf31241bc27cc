"""The network on both sides of an SAE: up to the activation that it reads, and onwards with a replacement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mechvit.analysis.finite import model_name
from mechvit.analysis.inputs import Images, image_batches, pixel_values
from mechvit.data.batches import ImageBatch
from mechvit.data.corruption_spec import CLEAN, Condition
from mechvit.models.runs.image_tokens import token_slice

from .hook_site import Site

if TYPE_CHECKING:
    from mechvit.models import HookedViT


@dataclass(frozen=True)
class SiteActivation:
    """One batch of images at a site."""

    model: HookedViT
    site: Site
    entered: Tensor
    """Input from which the network continues: the residual that enters block `site.start`, or the pixels."""
    whole: Float[Tensor, "batch token d"]
    """The activation at the hook point, at every token."""
    logits: Tensor | None
    """The model's logits, if they were computed while the activation was read."""

    @property
    def x(self) -> Float[Tensor, "batch read d"]:
        """The activation at the tokens that the SAE reads."""
        return self.whole[:, token_slice(self.model.cfg, self.site.tokens)]

    def untouched(self) -> Float[Tensor, "batch class"]:
        """Return the model's own logits."""
        return self._run(self.entered) if self.logits is None else self.logits

    def spliced(self, values: Float[Tensor, "*#batch read d"]) -> Float[Tensor, "batch class"]:
        """Return the logits with `values` in place of `x`, all other tokens unchanged."""
        changed = self.whole.clone()
        changed[:, token_slice(self.model.cfg, self.site.tokens)] = values.to(changed)
        if self.site.whole_stream:
            return self._run(changed)
        with self.model.hooks(fwd_hooks=[(self.site.hook, lambda _, hook: changed)]):
            return self._run(self.entered)

    def _run(self, entered: Tensor) -> Tensor:
        return self.model(entered, start_at_layer=self.site.start)


def look(model: HookedViT, site: Site, pixels: Float[Tensor, "batch channel height width"]) -> SiteActivation:
    """Run the model as far as the site requires."""
    entered = pixels if site.start is None else model(pixels, stop_at_layer=site.start)
    if site.whole_stream:
        return SiteActivation(model, site, entered, entered, None)
    found: dict[str, Tensor] = {}

    def keep(activation: Tensor, hook: Any) -> None:
        if activation.dim() != 3:
            raise ValueError(
                f"{site.hook} must hold one vector per token; it gave {list(activation.shape)}: switch what splits it "
                "by head off, as in model.set_use_split_qkv_input(False)"
            )
        found["x"] = activation

    with model.hooks(fwd_hooks=[(site.hook, keep)]):
        logits = model(entered, start_at_layer=site.start)
    return SiteActivation(model, site, entered, found["x"], logits)


def read_site(model: HookedViT, site: Site, batch: ImageBatch, condition: Condition = CLEAN) -> SiteActivation:
    """Run the model on a batch as far as the site requires; `condition` names the images' corruption in errors.

    Raises:
        ValueError: an activation is not finite; names the condition and the images.
    """
    seen = look(model, site, pixel_values(model, batch))
    bad = ~seen.x.isfinite().flatten(1).all(1)
    if bool(bad.any()):
        ids = batch.image_ids[bad].tolist()[:8]
        raise ValueError(
            f"activations of {site} must be finite; under {condition.key} those of the model {model_name(model)!r} "
            f"are not on the image ids {ids}: check the checkpoint and these images"
        )
    return seen


def clean_mean(
    model: HookedViT, site: Site, images: Images, n_images: int, batch_size: int
) -> Float[Tensor, "token d"]:
    """Compute the mean clean activation at each position that the SAE reads, over the first `n_images`, in float64."""
    total, left = torch.zeros((), dtype=torch.float64), n_images
    for batch in image_batches(model, images, batch_size):
        part = batch.take(slice(left))
        total = total.to(model.cfg.device) + read_site(model, site, part).x.double().sum(0)
        left -= len(part)
        if left == 0:
            break
    return total / (n_images - left)
