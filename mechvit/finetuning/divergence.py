"""The divergence of a model in training from its base on clean images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mechvit.data.corruption_spec import CLEAN

from .shown_images import collator_of

if TYPE_CHECKING:
    import datasets


class CleanDivergence:
    """Mean over clean images of KL(base | model), the divergence of a model's answers from the base's, in nats.

    Args:
        base: the base, a Hugging Face classifier.
        processor: image processor of both.
        images: prepared images.
        batch_size: images per forward pass.
    """

    def __init__(self, base: Any, processor: Any, images: datasets.Dataset, batch_size: int = 64) -> None:
        self.processor, self.images, self.batch_size = processor, images, batch_size
        self.rows = images.with_format("numpy")
        self.base = self._answers(base)

    def __call__(self, model: nn.Module) -> float:
        """Return the divergence of a model, which is left in the mode in which it was."""
        answers = self._answers(model)
        return float((self.base.exp() * (self.base - answers)).sum(-1).mean())

    @torch.no_grad()
    def _answers(self, model: Any) -> Tensor:
        """Return log-probabilities [image, class] in float64, on the CPU."""
        device, training = next(model.parameters()).device, model.training
        collate = collator_of(model, self.processor, self.images, CLEAN, device, 0)
        model.eval()
        try:
            found = []
            for start in range(0, len(self.rows), self.batch_size):
                places = range(start, min(start + self.batch_size, len(self.rows)))
                shown = collate([self.rows[place] for place in places])
                logits = model(**{name: value for name, value in shown.items() if name != "labels"}).logits
                found.append(logits.double().log_softmax(-1).cpu())
        finally:
            model.train(training)
        return torch.cat(found)
