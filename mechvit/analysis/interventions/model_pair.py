"""Checks that two models' weights or activations can be compared or exchanged, and the images of both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, NamedTuple

from jaxtyping import Float
from torch import Tensor

from mechvit.analysis.behaviour.performance import check_logits, require_classifier
from mechvit.analysis.condition_images import check_same_image, shown_to
from mechvit.analysis.inputs import Images, default_batch_size, image_batches, pixel_values
from mechvit.analysis.pairs.kinship import require_kin
from mechvit.data.batches import ImageBatch
from mechvit.data.corruption_spec import Condition
from mechvit.data.sources.labels import check_aligned
from mechvit.models.processors.preprocessing import check_alike, scale_of

if TYPE_CHECKING:
    from mechvit.models import HookedViT

_MEMORY = 2**30


_UNREAD = frozenset({"dropout", "family", "architecture"})
"""Fields of the config that no forward pass reads: dropout is never applied, and the others are names."""


def check_weights_fit(
    receiver: HookedViT, giver: HookedViT, what: str = "taking weights of one in the other's place"
) -> None:
    """Refuse two models whose weights cannot replace each other.

    The encoders must have one shape and be kin, and the heads one shape and the same classes: each model's own, or one
    that both have (`mechvit.models.graft_head`, `mechvit.analysis.with_probe`). Pixels may be normalised differently,
    which is part of each model's embedding (`giver_pixels`).

    Raises:
        ValueError: they differ in shape, classes, dtype or device, or in the resizing of their image processors
            (named), or are not kin.
    """
    for field in fields(receiver.cfg):
        own, other = getattr(receiver.cfg, field.name), getattr(giver.cfg, field.name)
        if field.name not in _UNREAD and own != other:
            step = " (mechvit.models.graft_head gives both one head)" if field.name in _HEAD else ""
            raise ValueError(
                f"models that exchange weights must have the same config; their {field.name} is {own} and "
                f"{other}{step}: give a model and one fine-tuned from it, on one device and in one dtype "
                "(from_pretrained takes dtype=torch.float32)"
            )
    processors = {"the receiver": receiver.image_processor, "the giver": giver.image_processor}
    check_alike(processors, "to take weights of one in the other's place")
    if receiver is not giver:
        require_kin(receiver, giver, what)


_HEAD = frozenset({"n_classes", "id2label", "pooling", "final_norm", "pooler", "zero_shot"})
"""Fields of the config that belong to the head."""


def giver_pixels(
    receiver: HookedViT, giver: HookedViT, pixels: Float[Tensor, "batch 3 height width"]
) -> Float[Tensor, "batch 3 height width"]:
    """Return the receiver's pixels as the giver's image processor normalises them; themselves where both agree."""
    own, other = scale_of(receiver.image_processor), scale_of(giver.image_processor)
    return pixels if own.is_same(other) else other.values(own.unit(pixels))


class LeftOut(NamedTuple):
    """A weight that cannot be compared: only one of two models has it, or it has another shape in each."""

    weight: str
    base_shape: tuple[int, ...] | None
    """Shape in the base; None where it has no such weight."""
    tuned_shape: tuple[int, ...] | None
    """Shape in the tuned model; None where it has no such weight."""


def comparable_weights(base: HookedViT, tuned: HookedViT) -> tuple[list[str], tuple[LeftOut, ...]]:
    """Return the names of the weights that two models have in the same shape, and those that are left out.

    Raises:
        ValueError: the models are on two devices, or not kin.
    """
    if base.cfg.device != tuned.cfg.device:
        raise ValueError(
            f"weights to be compared must be on one device; they are on {base.cfg.device} and {tuned.cfg.device}"
        )
    if base is not tuned:
        require_kin(base, tuned, "comparing weights one by one")
    own, other = ({n: tuple(t.shape) for n, t in model.own_state_dict().items()} for model in (base, tuned))
    names = dict.fromkeys((*own, *other))
    return [name for name in names if own.get(name) == other.get(name)], tuple(
        LeftOut(name, own.get(name), other.get(name)) for name in names if own.get(name) != other.get(name)
    )


def check_activations_fit(receiver: HookedViT, giver: HookedViT) -> None:
    """Raise a ValueError unless both models are classifiers whose activations can replace each other."""
    for name, model in (("receiver", receiver), ("giver", giver)):
        if model.head is None:
            raise ValueError(
                f"the {name}, a {model.cfg.architecture}, has no classification head; give a classifier, or one "
                "head to both (mechvit.models.graft_head, mechvit.analysis.with_probe)"
            )
        require_classifier(model)
    names = ("n_layers", "n_heads", "d_model", "d_head", "d_mlp", "n_prefix_tokens", "image_size", "n_tokens")
    for name in (*names, "id2label", "dtype", "device"):
        own, given = getattr(receiver.cfg, name), getattr(giver.cfg, name)
        if own != given:
            what = f"{name}, {own} and {given}"
            if name == "id2label":
                what = "classes (id2label; mechvit.models.graft_head gives both one head)"
            raise ValueError(
                f"receiver and giver must have the same shape, so that activations of one fit the other; they differ "
                f"in {what}: give two checkpoints of one architecture, on one device and in one dtype (from_pretrained "
                "takes dtype=torch.float32)"
            )
    processors = {"the receiver": receiver.image_processor, "the giver": giver.image_processor}
    check_alike(processors, "to take activations of one in the other's place")
    if receiver is not giver:
        require_kin(receiver, giver, "taking activations of one in the other's place")


def pair_batches(
    receiver: HookedViT,
    giver: HookedViT,
    images: Images,
    corruption: Condition | str,
    giver_corruption: Condition | str | None,
    kept_per_image: int,
    batch_size: int | None,
    *,
    seed: int,
    progress: str | None,
) -> Iterator[tuple[ImageBatch, Tensor, Tensor]]:
    """Stream images with the pixels of the receiver and the giver, each under its own corruption.

    A batch has `batch_size` images, or a default that keeps `kept_per_image` values per image within 1 GiB.

    Raises:
        ValueError: as `check_activations_fit`; labels that the models do not have.
    """
    check_activations_fit(receiver, giver)
    check_aligned(images, receiver.cfg.id2label)
    if batch_size is None:
        batch_size = default_batch_size(receiver, held=kept_per_image * receiver.cfg.dtype.itemsize, limit=_MEMORY)
    given = corruption if giver_corruption is None else giver_corruption
    what = "taking one model's activations in the other's place"
    own, other = (check_same_image([each], what)[0] for each in (corruption, given))
    for batch in image_batches(receiver, images, batch_size, conditions=(own, other), progress=progress):
        shown = shown_to(receiver, batch, own, seed=seed)
        theirs = shown if other == own else shown_to(receiver, batch, other, seed=seed)
        yield batch, pixel_values(receiver, shown), pixel_values(giver, theirs)


def copies_at_once(receiver: HookedViT, batch: ImageBatch, batch_size: int | None) -> int:
    """Return how many patched copies of a batch share a forward pass of `batch_size` images, by default as many as suit
    the receiver's device; at least one.
    """
    return max(1, (default_batch_size(receiver) if batch_size is None else batch_size) // len(batch))


def check_copies(patched: Float[Tensor, "copy batch class"], batch: ImageBatch, who: str) -> None:
    """Refuse logits of a batch's patched copies that are not finite; its labels were checked before the patching."""
    copies = len(patched)
    labels, ids = batch.labels.repeat(copies), batch.image_ids.repeat(copies)
    check_logits(patched.flatten(0, 1), labels, ids, who, labelled=False)
