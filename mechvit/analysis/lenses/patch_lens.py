"""The logit lens on single images: the classes of every patch, and of the image, at every layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvit.analysis.behaviour.performance import require_classifier, strongest
from mechvit.analysis.finite import check_finite
from mechvit.analysis.inputs import on_cpu
from mechvit.analysis.statistics.results import AveragedResult, Columns, OneLine
from mechvit.analysis.statistics.tidy_tables import labelled
from mechvit.arguments import checked

from .logit_lens import residual_hooks

if TYPE_CHECKING:
    import pandas as pd

    from mechvit.models import HookedViT


@dataclass(frozen=True, kw_only=True, repr=False)
class PatchLens(OneLine):
    """Most probable classes of every patch; layer 0 is the embedding, l the output of block l - 1; on the CPU."""

    classes: Int[Tensor, "batch layer patch top"]
    """Class ids, the most probable first."""
    probability: Float[Tensor, "batch layer patch top"]
    """Probabilities of these classes."""


@dataclass(frozen=True, kw_only=True, repr=False)
class ClassTrajectories(AveragedResult):
    """Probabilities of some classes by layer, read at the head's tokens; on the CPU."""

    SUMMARISED: ClassVar[Columns] = (("layer", "class"), ("probability",))

    classes: tuple[int, ...]
    names: tuple[str, ...]
    """Names of these classes, with the id added if several classes share the name."""
    probability: Float[Tensor, "batch layer class"]

    def to_frame(self, **labels: str) -> pd.DataFrame:
        """Return a row per image (its index in the batch), layer and class; `labels` are constant first columns."""
        import pandas as pd

        batch, layers, _ = self.probability.shape
        index = pd.MultiIndex.from_product([range(batch), range(layers), self.names], names=["image", "layer", "class"])
        frame = pd.DataFrame({"probability": self.probability.reshape(-1).numpy()}, index=index).reset_index()
        return labelled(frame, labels)


def classify_alone(
    model: HookedViT, residual: Float[Tensor, "*batch d_model"], *, apply_ln: bool = True
) -> Float[Tensor, "*batch class"]:
    """Apply the head to one residual vector alone, which takes the place of every token that the head reads."""
    cfg = model.cfg
    read = {"cls+distillation": 2, "cls+mean": cfg.n_prefix_tokens + 1}.get(cfg.pooling, 1)
    alone = residual.reshape(-1, 1, residual.shape[-1]).expand(-1, read, -1)
    return model.unembed_residual(alone, apply_ln=apply_ln).view(*residual.shape[:-1], -1)


@checked
@torch.inference_mode()
def patch_lens(
    model: HookedViT,
    pixel_values: Float[Tensor, "batch channel height width"],
    *,
    top: int = 5,
    apply_ln: bool = True,
) -> PatchLens:
    """Classify every patch by itself at every layer: softmax(head(ln_final(resid[l][patch]))).

    The patch takes the place of every token that the head reads: CLS; CLS and the distillation token (DeiT with
    teacher: the mean of both classifiers); CLS and the patches' mean (DINOv2); the patches that are averaged; or all
    tokens that a pooling head attends to (SigLIP: all attention on the patch). Only with a head on the patches' mean
    does the last layer's map determine the prediction.

    Args:
        model: a HookedViT with a head.
        pixel_values: normalised, as the image processor returns them.
        top: number of classes kept per patch; all if the model has fewer.
        apply_ln: False applies the head without the final LayerNorm.

    Raises:
        ValueError: the model has no classes, `top` is below one, or logits are not finite.

    Source: the logit lens, nostalgebraist (2020), here at single patches.
    """
    require_classifier(model)
    if top < 1:
        raise ValueError(f"top must be at least 1; got {top}")
    prefix, found = model.cfg.n_prefix_tokens, list[tuple[Tensor, Tensor]]()

    def read(residual: Tensor, hook: object) -> None:
        logits = classify_alone(model, residual[:, prefix:], apply_ln=apply_ln)
        check_finite("logits of single patches", [logits], model, numbers=[len(found)])
        found.append(strongest(logits, top))

    last = model.cfg.n_layers - 1
    names = [f"blocks.{layer}.hook_resid_pre" for layer in range(last + 1)] + [f"blocks.{last}.hook_resid_post"]
    pixels = pixel_values.to(model.cfg.device, model.cfg.dtype)
    model.run_with_hooks(pixels, return_type=None, fwd_hooks=[(name, read) for name in names])
    return PatchLens(
        classes=on_cpu(torch.stack([classes for _, classes in found], 1)),
        probability=on_cpu(torch.stack([probability for probability, _ in found], 1)),
    )


@checked
@torch.inference_mode()
def class_trajectories(
    model: HookedViT,
    pixel_values: Float[Tensor, "batch channel height width"],
    classes: Sequence[int],
    *,
    apply_ln: bool = True,
) -> ClassTrajectories:
    """Follow some classes of single images through the layers: softmax(head(ln_final(resid[l]))) at the head's tokens.

    Args:
        model: a HookedViT with a head.
        pixel_values: normalised, as the image processor returns them.
        classes: class ids.
        apply_ln: False applies the head without the final LayerNorm.

    Raises:
        ValueError: the model has no classes or lacks one of these, or logits are not finite.
    """
    require_classifier(model)
    chosen = [int(index) for index in classes]
    if not chosen or not all(0 <= index < model.cfg.n_classes for index in chosen):
        raise ValueError(f"classes must be one or more of 0 to {model.cfg.n_classes - 1}; got {chosen}")
    return trajectories_of(model, layer_probabilities(model, pixel_values, apply_ln=apply_ln)[1], chosen)


def layer_probabilities(
    model: HookedViT, pixel_values: Float[Tensor, "batch channel height width"], *, apply_ln: bool = True
) -> tuple[Float[Tensor, "batch class"], Float[Tensor, "layer batch class"]]:
    """Return the probabilities that a model gives every class of single images, and those of each layer's lens.

    Raises:
        ValueError: logits are not finite.
    """
    hooks, residuals = residual_hooks(model)
    pixels = pixel_values.to(model.cfg.device, model.cfg.dtype)
    final = model.run_with_hooks(pixels, fwd_hooks=hooks)
    logits = model.unembed_residual(torch.cat(residuals), apply_ln=apply_ln).float()
    check_finite("logits of the lens", logits.split(len(pixels)), model)
    return final.softmax(-1), logits.softmax(-1).view(len(residuals), len(pixels), -1)


def trajectories_of(
    model: HookedViT, probability: Float[Tensor, "layer batch class"], classes: Sequence[int]
) -> ClassTrajectories:
    """Return the trajectories of some classes from the probabilities of all (`layer_probabilities`)."""
    return ClassTrajectories(
        classes=tuple(classes),
        names=tuple(unique_name(model.cfg.id2label, index) for index in classes),
        probability=on_cpu(probability[..., list(classes)].transpose(0, 1)),
    )


def unique_name(names: Mapping[int, str], index: int) -> str:
    """Return a class's name, with its id added if another class has the same name (ImageNet has two cranes)."""
    name = str(names[index])
    return name if sum(str(other) == name for other in names.values()) == 1 else f"{name} ({index})"
