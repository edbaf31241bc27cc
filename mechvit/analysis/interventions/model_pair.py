"""Checks that two models' weights or activations can be compared or exchanged, and the images of both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from mechvit.analysis.behaviour.performance import check_logits, require_classifier
from mechvit.analysis.condition_images import check_same_image, shown_to
from mechvit.analysis.inputs import Images, default_batch_size, image_batches, pixel_values
from mechvit.data.batches import ImageBatch
from mechvit.data.corruption_spec import Condition
from mechvit.data.sources.labels import check_aligned
from mechvit.models.processors.preprocessing import check_alike

if TYPE_CHECKING:
    from mechvit.models import HookedViT

_MEMORY = 2**30


def check_weights_fit(receiver: HookedViT, giver: HookedViT) -> None:
    """Refuse two models whose weights cannot replace each other.

    Raises:
        ValueError: they differ in shape, classes, dtype or device, or in a setting of their image processors (named).
    """
    for field in fields(receiver.cfg):
        own, other = getattr(receiver.cfg, field.name), getattr(giver.cfg, field.name)
        if field.name != "dropout" and own != other:  # dropout is never applied
            raise ValueError(
                f"models that exchange weights must have the same config; their {field.name} is {own} and {other}: "
                "give a model and one fine-tuned from it, on one device and in one dtype (from_pretrained takes "
                "dtype=torch.float32)"
            )
    processors = {"the receiver": receiver.image_processor, "the giver": giver.image_processor}
    check_alike(processors, "to take weights of one in the other's place", in_="everything")


def check_weights_comparable(base: HookedViT, tuned: HookedViT) -> None:
    """Refuse two models whose weights cannot be compared one by one.

    Raises:
        ValueError: a weight that one of them lacks, or that differs in shape or device.
    """
    own, other = ({n: (list(t.shape), t.device) for n, t in m.own_state_dict().items()} for m in (base, tuned))
    for name in dict.fromkeys((*own, *other)):
        if own.get(name) != other.get(name):
            first, second = (" on ".join(map(str, w[name])) if name in w else "not there" for w in (own, other))
            raise ValueError(
                f"both models must have the same weights; {name} is {first} and {second}: give a model and one "
                "fine-tuned from it"
            )


def check_activations_fit(receiver: HookedViT, giver: HookedViT) -> None:
    """Raise a ValueError unless both models are classifiers whose activations can replace each other."""
    for name, model in (("receiver", receiver), ("giver", giver)):
        if model.head is None:
            raise ValueError(f"the {name}, a {model.cfg.architecture}, has no classification head; give a classifier")
        require_classifier(model)
    names = ("n_layers", "n_heads", "d_model", "d_head", "d_mlp", "n_prefix_tokens", "image_size", "n_tokens")
    for name in (*names, "id2label", "dtype", "device"):
        own, given = getattr(receiver.cfg, name), getattr(giver.cfg, name)
        if own != given:
            what = f"{name}, {own} and {given}" if name != "id2label" else "classes (id2label)"
            raise ValueError(
                f"receiver and giver must have the same shape, so that activations of one fit the other; they differ "
                f"in {what}: give two checkpoints of one architecture, on one device and in one dtype (from_pretrained "
                "takes dtype=torch.float32)"
            )
    processors = {"the receiver": receiver.image_processor, "the giver": giver.image_processor}
    check_alike(processors, "to take activations of one in the other's place")


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
