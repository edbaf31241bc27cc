"""Training of a tuned lens: every layer's translator at once, on the head's tokens, by KL to the model's output."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechvit.analysis.behaviour.performance import require_classifier
from mechvit.analysis.condition_images import shown_to
from mechvit.analysis.finite import check_finite
from mechvit.analysis.inputs import Images, image_batches, pixel_values
from mechvit.arguments import checked
from mechvit.data.batches import ImageBatch
from mechvit.data.conditions import as_condition
from mechvit.data.corruption_spec import CLEAN, Condition
from mechvit.models.checkpoints.fingerprint import checkpoint_hash
from mechvit.settings_checks import COUNT, NOT_NEGATIVE, POSITIVE, SEED, check
from mechvit.terminal import progress_bar

from .logit_lens import residual_hooks
from .tuned_lens import TunedLens, divergence, translated

if TYPE_CHECKING:
    from mechvit.models import HookedViT

HELD_BYTES = 2**29
"""Largest size, bytes, of residual streams that are computed once and kept; larger ones are recomputed every epoch."""


@dataclass(frozen=True, kw_only=True)
class LensTraining:
    """Settings for training a tuned lens."""

    epochs: int = 20
    """Most epochs; in each, every image is seen once, under one of the conditions."""
    patience: int = 3
    """Epochs without a lower held-out divergence at any layer after which training ends."""
    lr: float = 3e-3
    """Learning rate of Adam, falling linearly to a tenth over the epochs."""
    weight_decay: float = 1e-3
    """Weight decay (AdamW), towards the logit lens, since A and b start at zero."""
    batch_size: int = 64
    """Images per step."""
    seed: int = 0
    """Seed of the order of the images and of the noise."""

    def __post_init__(self) -> None:
        check(self, COUNT, "epochs", "patience", "batch_size")
        check(self, POSITIVE, "lr")
        check(self, NOT_NEGATIVE, "weight_decay")
        check(self, SEED, "seed")


class _TranslatorBatch(NamedTuple):
    """A batch as the translators see it."""

    residuals: Float[Tensor, "layer batch read d_model"]
    """Residual streams of layers 0..n_layers - 1 at the head's tokens."""
    final: Float[Tensor, "batch class"]
    """The model's final log-probabilities."""


@checked
def train_tuned_lens(
    model: HookedViT,
    images: Images,
    validation_images: Images,
    corruptions: Collection[Condition | str] = (),
    *,
    config: LensTraining | None = None,
    progress: str | None = None,
) -> TunedLens:
    """Train one affine translator per layer, so that the model's head, reading it, predicts the model's final output.

    For each layer l the mean over images of KL(model || head(h + h Aₗ + bₗ)) is minimised by Adam, starting from the
    logit lens (A = b = 0). Every layer keeps its best epoch on the held-out images, so that none is worse there than
    the logit lens. Labels are not read, and the model's weights do not change. For a head that reads several tokens one
    translator serves them all.

    Args:
        model: a HookedViT with a head.
        images: to train on; a `datasets.Dataset` (prepared or raw) or an `ImageBatch`.
        validation_images: disjoint images, by which the epoch is chosen.
        corruptions: conditions that batches take turns in, besides clean.
        config: see `LensTraining`.
        progress: the label of a progress bar; None shows none.

    Returns:
        the lens; `about` contains the settings, and for each layer the best epoch, its held-out divergence (nats), and
        that of the logit lens.

    Raises:
        ValueError: no images, no head, or a divergence that is not finite.

    Source: arXiv:2303.08112, section 3. There translators are trained with SGD on unlabelled text; here only the tokens
    that the head reads are translated.
    """
    require_classifier(model)
    config = config or LensTraining()
    conditions = tuple(dict.fromkeys((CLEAN, *map(as_condition, corruptions))))
    training = _TranslatorInputs(model, images, conditions, config)
    held_out = _TranslatorInputs(model, validation_images, conditions, config)
    start, device = TunedLens.identity(model), model.cfg.device
    weight, bias = (part.to(device).requires_grad_() for part in (start.weight, start.bias))
    optimizer = torch.optim.AdamW([weight, bias], lr=config.lr, weight_decay=config.weight_decay)
    before = best = _held_out(model, held_out, weight, bias)
    kept, epoch_of = (weight.detach().clone(), bias.detach().clone()), torch.zeros(len(best), dtype=torch.int64)
    for epoch in progress_bar(range(1, config.epochs + 1), progress, unit="epoch", leave=False):
        optimizer.param_groups[0]["lr"] = config.lr * (1 - 0.9 * (epoch - 1) / config.epochs)
        for seen in training.epoch(epoch):
            loss = divergence(model, translated(seen.residuals, weight, bias), seen.final).mean(1).sum()
            weight.grad, bias.grad = torch.autograd.grad(loss, (weight, bias))  # not for the model's weights
            optimizer.step()
        found = _held_out(model, held_out, weight, bias)
        better = found < best
        best = torch.where(better, found, best)
        for own, now in zip(kept, (weight, bias), strict=True):
            own[better] = now.detach()[better]
        epoch_of[better.cpu()] = epoch
        if epoch - int(epoch_of.max()) >= config.patience:
            break
    about = asdict(config) | {
        "corruptions": [c.key for c in conditions[1:]],
        "images": len(images),
        "best_epoch": epoch_of.tolist(),
        "held_out_divergence": best.tolist(),
        "held_out_divergence_of_logit_lens": before.tolist(),
    }
    weight, bias = (part.cpu() for part in kept)
    return TunedLens(weight=weight, bias=bias, checkpoint_hash=checkpoint_hash(model), about=about)


@torch.inference_mode()
def _held_out(model: HookedViT, held_out: _TranslatorInputs, weight: Tensor, bias: Tensor) -> Float[Tensor, " layer"]:
    """Compute each layer's mean divergence over all held-out images under all conditions."""
    total, images = torch.zeros(len(weight), dtype=torch.float64, device=weight.device), 0
    for condition in range(len(held_out.conditions)):
        for seen in held_out.under(condition):
            total += divergence(model, translated(seen.residuals, weight, bias), seen.final).double().sum(1)
            images += seen.final.shape[0]
    if not bool(total.isfinite().all()):
        raise ValueError(
            f"the divergence must be finite; at layers {(~total.isfinite()).nonzero()[:, 0].tolist()} it is not: lower "
            "lr, or check the checkpoint and the images"
        )
    return total / images


class _TranslatorInputs:
    """Images as the translators see them: kept if they are small, else recomputed whenever they are read."""

    def __init__(self, model: HookedViT, images: Images, conditions: Sequence[Condition], config: LensTraining) -> None:
        self.model, self.images, self.conditions, self.config = model, images, conditions, config
        cfg = model.cfg
        read = len(range(cfg.n_tokens)[model.head_tokens])
        size = 4 * len(conditions) * len(images) * cfg.n_layers * read * cfg.d_model
        everything = np.arange(len(images))
        self.kept: list[_TranslatorBatch] | None = None
        if size <= HELD_BYTES:
            self.kept = [_joined(self._look(everything, [c])) for c in conditions]

    def under(self, condition: int) -> Iterator[_TranslatorBatch]:
        """Yield all images in order under one condition."""
        return self._batches(np.arange(len(self.images)), [condition])

    def epoch(self, number: int) -> Iterator[_TranslatorBatch]:
        """Yield all images once in random order; conditions take turns from batch to batch and epoch to epoch."""
        order = np.random.default_rng((self.config.seed, number)).permutation(len(self.images))
        turns = [(number + place) % len(self.conditions) for place in range(len(self.conditions))]
        return self._batches(order, turns)

    def _batches(self, order: np.ndarray, turns: list[int]) -> Iterator[_TranslatorBatch]:
        if self.kept is None:
            yield from self._look(order, [self.conditions[turn] for turn in turns])
            return
        size = self.config.batch_size
        for place, start in enumerate(range(0, len(order), size)):
            rows = torch.from_numpy(order[start : start + size]).to(self.model.cfg.device)
            whole = self.kept[turns[place % len(turns)]]
            yield _TranslatorBatch(whole.residuals[:, rows], whole.final[rows])

    def _look(self, order: np.ndarray, turns: list[Condition]) -> Iterator[_TranslatorBatch]:
        """Run the model on the images in this order, its batches under conditions in turn."""
        if isinstance(self.images, ImageBatch):
            chosen: Images = self.images.take(torch.from_numpy(order).to(self.images.labels.device))
        else:
            chosen = self.images if (np.diff(order) == 1).all() else self.images.select(order)
        for place, batch in enumerate(image_batches(self.model, chosen, self.config.batch_size, conditions=turns)):
            hooks, residuals = residual_hooks(self.model)
            shown = shown_to(self.model, batch, turns[place % len(turns)], seed=self.config.seed)
            with torch.no_grad():
                logits = self.model.run_with_hooks(pixel_values(self.model, shown), fwd_hooks=hooks)
            check_finite("the residual stream", residuals, self.model, batch.image_ids)
            check_finite("logits", [logits], self.model, batch.image_ids, numbers=[self.model.cfg.n_layers])
            yield _TranslatorBatch(torch.stack(residuals[:-1]), logits.float().log_softmax(-1))


def _joined(parts: Iterator[_TranslatorBatch]) -> _TranslatorBatch:
    residuals, final = zip(*parts, strict=True)
    return _TranslatorBatch(torch.cat(residuals, dim=1), torch.cat(final))
