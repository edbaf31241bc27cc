"""Images as a condition shows them to one model or to several at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mechvit.arguments import checked
from mechvit.data.attacks import attack_images
from mechvit.data.batches import ImageBatch
from mechvit.data.conditions import Attack, PairedImages, as_condition, bound, of_pixels
from mechvit.data.corruption_spec import CLEAN, Condition
from mechvit.data.corruptions import corrupt
from mechvit.data.partners import check_partners, partners
from mechvit.data.pixels import normalize
from mechvit.models.processors.preprocessing import resizing_of

if TYPE_CHECKING:
    import datasets

    from mechvit.models import HookedViT


@checked
def shown_to(model: HookedViT, batch: ImageBatch, condition: Condition | str, *, seed: int = 0) -> ImageBatch:
    """Return a batch as a condition shows it to one model, in [0, 1] at the model's input size.

    Args:
        model: the model that will be run on the batch; an attack on the model that is shown the image attacks it.
        batch: clean images, resized by the model's own image processor.
        condition: any; an attack on the base or the tuned model needs `Attack.against`.
        seed: seed of everything random about the condition.

    Raises:
        ValueError: an image without a partner, an attack on a model that is not given or cannot be attacked, and as
            `mechvit.data.corrupt`.
    """
    return shown({"": model}, {"": batch}, condition, seed=seed)[""]


def shown(
    models: Mapping[str, HookedViT],
    batches: Mapping[str, ImageBatch],
    condition: Condition | str,
    *,
    names: Collection[str] | None = None,
    seed: int,
) -> dict[str, ImageBatch]:
    """Return what each model is shown of the same images.

    Clean images and partners reach each model through its own image processor. Anything else is applied at the models'
    input size or, where they differ, once at the largest, from which each model resizes the result with its own filter.
    An attack on one model makes the same images for all, an attack on each model itself its own at its own size.

    Args:
        models: all models of the comparison, the base first.
        batches: the clean batch of each; models that resize alike share one.
        condition: what is shown.
        names: the models whose batches are returned; all when None.
        seed: seed of everything random about the condition.
    """
    condition = bound(condition, models)
    chosen = {name: batches[name] for name in (batches if names is None else names)}
    if condition == CLEAN:
        return chosen
    if isinstance(condition, PairedImages):
        return _each(chosen, lambda batch, own: partners(condition, batch, _processor(models, own)))
    if isinstance(condition, Attack) and condition.victim == "self" and condition.model is None:
        return {
            name: replace(batch, images=_attacked(models[name], batch, condition, seed))
            for name, batch in chosen.items()
        }
    sizes = {name: batch.images.shape[-1] for name, batch in batches.items()}
    one_size = len(set(sizes.values())) == 1
    if one_size and not isinstance(condition, Attack):
        applied = of_pixels(condition)
        return _each(chosen, lambda batch, own: corrupt(batch.images, applied, batch.image_ids, seed=seed))
    first = max(sizes, key=lambda name: sizes[name])
    if isinstance(condition, Attack):
        victim = victim_of(condition, models[first].cfg.device, models[first].cfg.dtype)
        first = next((name for name, model in models.items() if one_size and model is victim), first)
        images = _attacked(victim, batches[first], condition, seed)
    else:
        images = corrupt(batches[first].images, of_pixels(condition), batches[first].image_ids, seed=seed)
    return {name: _passed_on(models[name], batches[first], images, batch) for name, batch in chosen.items()}


def _each(batches: Mapping[str, ImageBatch], made: Callable[[ImageBatch, list[str]], Tensor]) -> dict[str, ImageBatch]:
    """Return other images for each distinct batch, made once for the models that share it."""
    owners: dict[int, list[str]] = {}
    for name, batch in batches.items():
        owners.setdefault(id(batch), []).append(name)
    found: dict[str, ImageBatch] = {}
    for own in owners.values():
        batch = batches[own[0]]
        found |= dict.fromkeys(own, replace(batch, images=made(batch, own)))
    return {name: found[name] for name in batches}


def _processor(models: Mapping[str, HookedViT], names: Iterable[str]) -> Any:
    """Return the image processor of the models that share a batch."""
    found = (models[name].image_processor for name in names)
    return next((processor for processor in found if processor is not None), None)


def _passed_on(model: HookedViT, source: ImageBatch, images: Tensor, own: ImageBatch) -> ImageBatch:
    """Return images that were made of one model's batch as another model is shown them."""
    if own is source:
        return replace(own, images=images)
    size = own.images.shape[-1]
    return replace(own, images=resized(images, model.image_processor, size).to(own.images.device), resized_by=None)


def resized(
    images: Float[Tensor, "batch 3 height width"], image_processor: Any, size: int
) -> Float[Tensor, "batch 3 size size"]:
    """Resize images in [0, 1] to another side, with an image processor's filter (bilinear without one), as Pillow does
    but without rounding to bytes; images of that side are returned themselves."""
    if images.shape[-1] == size:
        return images
    name = "bilinear" if image_processor is None else resizing_of(image_processor).get("resample", "bilinear")
    operator = _resizing(images.shape[-1], size, name).to(images)
    return (operator @ images @ operator.T).clamp(0, 1)


@lru_cache(maxsize=16)
def _resizing(size: int, to: int, resample: str) -> Float[Tensor, "to size"]:
    """Return Pillow's resizing of one line of pixels as a matrix, found by resizing unit lines.

    Made outside of inference mode, so that gradients pass through it.
    """
    lines = Image.fromarray(np.eye(size, dtype=np.float32))
    found = np.array(lines.resize((size, to), Image.Resampling[resample.upper()]))
    with torch.inference_mode(False):
        return torch.from_numpy(found)


def _attacked(model: HookedViT, batch: ImageBatch, attack: Attack, seed: int) -> Float[Tensor, "batch 3 height width"]:
    """Return a batch that was attacked at its own size, with one model's loss at that model's."""
    check_victim(attack, model)

    def logits_of(images: Tensor) -> Tensor:
        own = resized(images, model.image_processor, model.cfg.image_size)
        logits: Tensor = model(normalize(own, model.image_processor).to(model.cfg.device, model.cfg.dtype))
        return logits

    images, labels, ids = (part.to(model.cfg.device) for part in (batch.images, batch.labels, batch.image_ids))
    return attack_images(logits_of, images, labels, ids, attack, seed=seed).to(batch.images.device)


def check_victim(attack: Attack, model: HookedViT) -> None:
    """Refuse an attack on a model that is no softmax classifier."""
    if model.head is None or model.cfg.no_softmax is not None:
        why = model.cfg.no_softmax or "it has no classification head"
        raise ValueError(f"{attack.key} attacks a softmax classifier; this {model.cfg.architecture} is not one: {why}")


def victim_of(attack: Attack, device: torch.device, dtype: torch.dtype) -> HookedViT:
    """Return the model that a bound attack attacks; a checkpoint is loaded once, on the device and in the dtype of the
    models that are shown its images."""
    assert attack.model is not None
    return _loaded(attack.model, str(device), dtype) if isinstance(attack.model, str) else attack.model


@lru_cache(maxsize=2)
def _loaded(checkpoint: str, device: str, dtype: torch.dtype) -> HookedViT:
    from mechvit.models import HookedViT

    with torch.inference_mode(False):
        return HookedViT.from_pretrained(checkpoint, device=device, dtype=dtype)


def check_conditions(
    conditions: Iterable[Condition | str], images: datasets.Dataset | ImageBatch
) -> tuple[Condition, ...]:
    """Parse conditions, each once, and refuse images that lack a partner under one of them.

    Raises:
        ValueError: counts the images without a partner and names the first.
    """
    found = tuple(dict.fromkeys(map(as_condition, conditions)))
    for condition in found:
        if isinstance(condition, PairedImages):
            check_partners(condition, images)
    return found


def check_same_image(
    conditions: Iterable[Condition | str], what: str, models: Mapping[str, HookedViT] | None = None
) -> tuple[Condition, ...]:
    """Parse conditions, each once, for a comparison of one image between models.

    Args:
        conditions: those asked for.
        what: the comparison, as the subject of the error's sentence.
        models: the base first, for attacks that name the base or the tuned model; None where no model is either.

    Raises:
        ValueError: an attack on each model itself, which shows two models two images; one that does not say which model
            it attacks.
    """
    found = tuple(dict.fromkeys(map(as_condition, conditions)))
    for condition in found:
        if not isinstance(condition, Attack) or condition.model is not None:
            continue
        plain = f"{condition.family}_{condition.level}"
        if condition.victim == "self":
            raise ValueError(
                f"{what} needs one image for both models, and {condition.key} shows each its own: give {plain}@base or "
                f"{plain}@tuned"
            )
        if models is None:
            raise ValueError(
                f"{what} must know the model that {condition.key} attacks: give it, as in Attack({condition.family!r}, "
                f"{condition.level}).against(model)"
            )
    return found if models is None else tuple(bound(condition, models) for condition in found)
