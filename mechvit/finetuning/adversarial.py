"""Training under any condition: batches of images and, for attacks, a trainer that attacks the model it trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import Trainer

from mechvit.data import drawn_members, normalize
from mechvit.data.attacks import attack_images
from mechvit.data.batches import ImageBatch
from mechvit.data.conditions import Attack
from mechvit.data.corruption_spec import Condition
from mechvit.data.mixture_spec import Mixture
from mechvit.data.partners import shown_without_model

UNATTACKED = -1
"""Index in `attack` of images that are not attacked."""


def members_of(corruption: Condition | Mixture) -> tuple[Condition, ...]:
    """Return the members of a mixture, or the one condition.

    Raises:
        ValueError: an attack on another model than the one that is trained.
    """
    members = corruption.members if isinstance(corruption, Mixture) else (corruption,)
    for member in members:
        if isinstance(member, Attack) and (member.victim not in ("", "self") or member.model is not None):
            plain = f"{member.family}_{member.level}"
            raise ValueError(f"fine-tuning attacks the model that is trained: give {plain}; got {member.key}")
    return members


def condition_collator(
    corruption: Condition | Mixture,
    processor: Any,
    device: torch.device,
    seed: int,
    *,
    resized: bool = False,
    column: str = "pixels",
) -> Callable[[Sequence[dict[str, Any]]], dict[str, Any]]:
    """Return a collator: prepared rows -> `pixel_values` [batch, 3, height, width] and `labels`, on the given device.

    A mixture's member is drawn for the rows' `epoch`, or the first where they have none. `resized` asks the model to
    resize its positions to the images; `column` holds the model's own pixels. With attacks among the members a batch
    also holds its clean `images`, their `image_ids`, and the member that attacks each (`attack`, -1 for none), for
    `AttackingTrainer`.
    """
    asked = {"interpolate_pos_encoding": True} if resized else {}
    members = members_of(corruption)
    attacks = [place for place, member in enumerate(members) if isinstance(member, Attack)]

    def collate(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        pixels = torch.from_numpy(np.stack([row[column] for row in rows])).to(device)
        image_ids = torch.tensor([int(row["image_id"]) for row in rows], device=device)
        labels = torch.tensor([int(row["label"]) for row in rows], device=device)
        paths = tuple(row["path"] for row in rows) if "path" in rows[0] else None
        batch = ImageBatch(pixels.to(torch.float32).div_(255), labels, image_ids, paths=paths)
        places = torch.zeros_like(image_ids)
        if isinstance(corruption, Mixture):
            places = drawn_members(corruption, image_ids, epoch=rows[0].get("epoch", 0), seed=seed)
        images = batch.images.clone()
        for place, member in enumerate(members):
            own = (places == place).nonzero()[:, 0]
            if len(own) and place not in attacks:
                images[own] = shown_without_model(batch.take(own), member, processor, seed=seed)
        found = {"pixel_values": normalize(images, processor), "labels": labels, **asked}
        if not attacks:
            return found
        attacked = torch.isin(places, torch.tensor(attacks, device=device))
        return found | {
            "images": batch.images,
            "image_ids": image_ids,
            "attack": torch.where(attacked, places, UNATTACKED),
        }

    return collate


class AttackingTrainer(Trainer):
    """Trainer that attacks the model as it is at each step, and in validation as it is then.

    Images are attacked outside of autocast and with the model in evaluation mode, which its training does not change.
    """

    def __init__(
        self, *args: Any, members: Sequence[Condition], processor: Any, attack_seed: int, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.members, self.processor, self.attack_seed = members, processor, attack_seed

    def _prepare_inputs(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        found = dict(super()._prepare_inputs(dict(inputs)))
        if "attack" not in found:
            return found
        images, image_ids, which = (found.pop(name) for name in ("images", "image_ids", "attack"))
        asked = {name: value for name, value in found.items() if name not in ("pixel_values", "labels")}
        model: Any = self.accelerator.unwrap_model(self.model)
        training = model.training

        def logits_of(shown: Tensor) -> Tensor:
            logits: Tensor = model(pixel_values=normalize(shown, self.processor), **asked).logits
            return logits

        model.eval()
        try:
            for place in which.unique().tolist():
                member = self.members[place]
                if place == UNATTACKED or not isinstance(member, Attack):
                    continue
                own = (which == place).nonzero()[:, 0]
                given = images[own], found["labels"][own], image_ids[own]
                attacked = attack_images(logits_of, *given, member, seed=self.attack_seed)
                found["pixel_values"][own] = normalize(attacked, self.processor)
        finally:
            model.train(training)
        return found
