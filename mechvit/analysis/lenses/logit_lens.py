"""The logit lens: the classifier's output if it read the residual stream of an earlier layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvit.analysis.behaviour.performance import check_logits, label_rank, require_classifier, unrounded
from mechvit.analysis.condition_images import shown_to
from mechvit.analysis.finite import check_finite
from mechvit.analysis.inputs import Images, image_batches, on_cpu, pixel_values
from mechvit.analysis.shared_pass import Hooks
from mechvit.analysis.statistics.results import Columns
from mechvit.analysis.statistics.tidy_tables import PerImage, tidy
from mechvit.arguments import checked
from mechvit.data.corruption_spec import CLEAN, Condition

if TYPE_CHECKING:
    import pandas as pd

    from mechvit.models import HookedViT


@dataclass(frozen=True, repr=False)
class LogitLens(PerImage):
    """Readings of the logit lens: one row per image, one column per layer 0..n_layers (0 is the embedding, l the
    output of block l-1); on the CPU.
    """

    SUMMARISED: ClassVar[Columns] = (("layer",), ("probability",))

    image_id: Int[Tensor, " images"]
    label: Int[Tensor, " images"]
    probability: Float[Tensor, "images layers"]
    """Probability of the label, 0 to 1."""
    rank: Int[Tensor, "images layers"]
    """Number of classes that score above the label; 0 where the lens predicts it."""

    @property
    def first_correct_layer(self) -> Float[Tensor, " images"]:
        """Smallest layer whose prediction is the label; NaN for an image that no layer gets right.

        Its mean over the others is `first_correct_layer.nanmean()`.
        """
        correct = self.rank == 0
        return torch.where(correct.any(1), correct.int().argmax(1).float(), torch.nan)

    def to_frame(self, **labels: str) -> pd.DataFrame:
        """Return one row per image and layer; `labels` are constant columns put first."""
        return tidy(self.image_id, {"probability": self.probability, "rank": self.rank}, labels)


def residual_hooks(
    model: HookedViT, read: Callable[[Tensor], Tensor] | None = None
) -> tuple[Hooks, list[Float[Tensor, "batch read d_model"]]]:
    """Return hooks that collect the residual stream entering each block and leaving the last, and the list they fill.

    Args:
        model: any HookedViT.
        read: function of [batch, token, d_model] that returns what is kept, as a new tensor; None keeps the head's
            tokens.

    Returns:
        the hooks, and the list that a forward pass fills with n_layers + 1 tensors.
    """
    found: list[Tensor] = []

    def at_head(residual: Tensor) -> Tensor:
        return residual[:, model.head_tokens].clone()  # a view would keep all tokens alive

    def keep(residual: Tensor, hook: Any) -> None:
        found.append((read or at_head)(residual))

    last = model.cfg.n_layers - 1
    names = [f"blocks.{layer}.hook_resid_pre" for layer in range(last + 1)] + [f"blocks.{last}.hook_resid_post"]
    return [(name, keep) for name in names], found


def read_lens(
    model: HookedViT,
    residuals: list[Float[Tensor, "batch tokens d_model"]],
    labels: Int[Tensor, " batch"],
    image_ids: Int[Tensor, " batch"],
    *,
    apply_ln: bool = True,
    name: str | None = None,
) -> LogitLens:
    """Apply the final LayerNorm and the head to every layer's residual stream, in one product."""
    layers, batch = len(residuals), len(labels)
    logits = model.unembed_residual(torch.cat(residuals), apply_ln=apply_ln).view(layers, batch, -1)
    check_finite("logits of the lens", list(logits), name or model, image_ids)
    check_logits(logits[-1], labels, image_ids)
    logits, own = unrounded(logits), labels.expand(layers, batch)
    probability = logits.softmax(-1).float().gather(-1, own[..., None])[..., 0]
    return LogitLens(on_cpu(image_ids), on_cpu(labels), on_cpu(probability.T), on_cpu(label_rank(logits, own).T))


@checked
@torch.inference_mode()
def logit_lens(
    model: HookedViT,
    images: Images,
    corruption: Condition | str = CLEAN,
    *,
    apply_ln: bool = True,
    batch_size: int | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> LogitLens:
    """Follow the true class through the layers: softmax(head(ln_final(resid[l]))) at the tokens that the head reads.

    Args:
        model: any HookedViT with a head.
        apply_ln: False applies the head without the final LayerNorm.
        images, corruption, batch_size, seed, progress: as in `evaluate`.

    Raises:
        ValueError: no images, another input size, labels that are not classes, logits that are not finite.

    Source: nostalgebraist, "interpreting GPT: the logit lens"; the paper's section 3.2, which does not say whether the
    final LayerNorm is applied (here it is).
    """
    require_classifier(model, images)
    parts = []
    for batch in image_batches(model, images, batch_size, conditions=[corruption], progress=progress):
        hooks, residuals = residual_hooks(model)
        model.run_with_hooks(pixel_values(model, shown_to(model, batch, corruption, seed=seed)), fwd_hooks=hooks)
        parts.append(read_lens(model, residuals, batch.labels, batch.image_ids, apply_ln=apply_ln))
    return LogitLens.concatenate(parts)
