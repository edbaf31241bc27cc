"""Checks that two models' weights can be compared or exchanged."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from mechvit.models.processors.preprocessing import check_alike

if TYPE_CHECKING:
    from mechvit.models import HookedViT


def check_weights_fit(receiver: HookedViT, giver: HookedViT) -> None:
    """Refuse two models whose weights cannot replace each other.

    Raises:
        ValueError: they differ in shape, classes, dtype or device, or in a setting of their image processors (named).
    """
    for field in fields(receiver.cfg):
        own, other = getattr(receiver.cfg, field.name), getattr(giver.cfg, field.name)
        if field.name != "dropout" and own != other:  # dropout is never applied
            raise ValueError(
                f"two models whose weights take each other's place must have one config; their {field.name} is "
                f"{own} and {other}: give a model and one fine-tuned from it, on one device and in one dtype "
                "(from_pretrained takes dtype=torch.float32)"
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
