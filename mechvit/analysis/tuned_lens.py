"""The tuned lens: an affine map a layer, from the residual stream there to what the head would rather read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvit.data.spec import CLEAN, Corruption
from mechvit.models.fingerprint import checkpoint_hash

from .frames import tidy
from .lens import LogitLens, read_lens, residual_hooks
from .stream import Images, default_batch_size, image_batches, on_cpu, pixel_values

if TYPE_CHECKING:
    import pandas as pd

    from mechvit.models import HookedViT

WEIGHTS, ABOUT = "tuned_lens.safetensors", "tuned_lens.json"


@dataclass(frozen=True, kw_only=True)
class TunedLens:
    """Translators h + h Aₗ + bₗ of the layers 0..n_layers - 1 of one model; the last layer needs none. On the CPU."""

    weight: Float[Tensor, "layer d_model d_model"]
    """A, applied on the right of rows; zero is the logit lens."""
    bias: Float[Tensor, "layer d_model"]
    checkpoint_hash: str
    """Of the model (`mechvit.models.fingerprint.checkpoint_hash`)."""
    about: dict[str, Any] = field(default_factory=dict)
    """How it was trained, as JSON."""

    @classmethod
    def identity(cls, model: HookedViT) -> TunedLens:
        """Translators that change nothing: the logit lens."""
        layers, d = model.cfg.n_layers, model.cfg.d_model
        weight, bias = torch.zeros(layers, d, d), torch.zeros(layers, d)
        return cls(weight=weight, bias=bias, checkpoint_hash=checkpoint_hash(model))

    def translate(
        self, residuals: list[Float[Tensor, "batch read d_model"]]
    ) -> list[Float[Tensor, "batch read d_model"]]:
        """Translate all n_layers + 1 residual streams at the head's tokens; computed in float32."""
        moved = translated(torch.stack(residuals[:-1]), self.weight, self.bias)
        return [*moved, residuals[-1]]

    def check_model(self, model: HookedViT) -> None:
        """Raise a ValueError unless the lens was trained for this very model."""
        own = checkpoint_hash(model)
        if own != self.checkpoint_hash:
            raise ValueError(
                f"this tuned lens was trained for another model (checkpoint hash {self.checkpoint_hash[:12]}) than "
                f"this one ({own[:12]}): give that model, or train a lens for this one"
            )

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the translators (safetensors) and what they belong to (JSON), beside the folder and renamed into it.

        Raises:
            ValueError: something lies at `folder`, and it is no tuned lens or is not to be replaced.
        """
        from safetensors.torch import save_file

        place = Path(folder)
        if place.exists() and not (overwrite and (place / ABOUT).is_file()):
            raise ValueError(f"{place} exists: give another folder, or overwrite to replace a tuned lens there")
        beside = place.with_name(place.name + ".partial")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        save_file({"weight": self.weight.contiguous(), "bias": self.bias.contiguous()}, beside / WEIGHTS)
        about = {"checkpoint_hash": self.checkpoint_hash, "about": self.about}
        (beside / ABOUT).write_text(json.dumps(about, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        shutil.rmtree(place, ignore_errors=True)
        os.replace(beside, place)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], model: HookedViT) -> TunedLens:
        """Read a lens and refuse it for any model but its own.

        Raises:
            ValueError: no lens lies there, or it belongs to another model.
        """
        from safetensors.torch import load_file

        place = Path(folder)
        if missing := [name for name in (WEIGHTS, ABOUT) if not (place / name).is_file()]:
            raise ValueError(f"{place} is no saved tuned lens: it lacks {' and '.join(missing)}; write it with save")
        about = json.loads((place / ABOUT).read_text(encoding="utf-8"))
        weights = load_file(place / WEIGHTS)
        lens = cls(weight=weights["weight"], bias=weights["bias"], **about)
        lens.check_model(model)
        return lens


@dataclass(frozen=True)
class LensDivergence:
    """How far a lens is from what the model says in the end; on the CPU."""

    image_id: Int[Tensor, " images"]
    divergence: Float[Tensor, "images layers"]
    """KL(model's final distribution || the lens's) at layers 0..n_layers, nats; 0 at the last."""

    def to_frame(self, **labels: str) -> pd.DataFrame:
        """One row an image and layer: the labels, image_id, layer, divergence."""
        return tidy(self.image_id, {"divergence": self.divergence}, labels)

    @classmethod
    def concatenate(cls, parts: Iterable[LensDivergence]) -> LensDivergence:
        """Join batches in their order."""
        parts = list(parts)
        return cls(**{f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(cls)})


def translated(
    residuals: Float[Tensor, "layer batch read d_model"],
    weight: Float[Tensor, "layer d_model d_model"],
    bias: Float[Tensor, "layer d_model"],
) -> Float[Tensor, "layer batch read d_model"]:
    """h + h A + b of every layer, in float32, given in the residuals' dtype; differentiable."""
    h = residuals.float()
    weight, bias = weight.to(h.device), bias.to(h.device)
    moved = h.flatten(1, 2) @ weight + bias[:, None]
    return (h + moved.view_as(h)).to(residuals.dtype)


@torch.inference_mode()
def tuned_lens(
    model: HookedViT,
    lens: TunedLens,
    images: Images,
    corruption: Corruption | str = CLEAN,
    *,
    batch_size: int | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> LogitLens:
    """Follow the right class through the layers, each read through its translator: what `logit_lens` gives, tuned.

    Args:
        model: the one that the lens was trained for.
        lens: of `train_tuned_lens`.
        images: a `datasets.Dataset` (prepared or raw) or an `ImageBatch`, disjoint from those that it was trained on;
            labels are the model's own class ids.
        corruption: applied in [0, 1] at the model's input size; a string such as "gaussian_blur_4" is read.
        batch_size: images a forward pass; None picks 32 on a CPU, else 128.
        seed: of the noise.
        progress: the label of a progress bar; None shows none.

    Raises:
        ValueError: a lens of another model, no images, another input size, labels that are not classes, logits that are
            not finite.

    Source: arXiv:2303.08112, section 3.
    """
    lens.check_model(model)
    batch_size = default_batch_size(model, patterns=False) if batch_size is None else batch_size
    parts = []
    for batch in image_batches(model, images, batch_size, progress=progress):
        hooks, residuals = residual_hooks(model)
        model.run_with_hooks(pixel_values(model, batch, corruption, seed=seed), fwd_hooks=hooks)
        parts.append(read_lens(model, lens.translate(residuals), batch.labels, batch.image_ids))
    return LogitLens.concatenate(parts)


@torch.inference_mode()
def lens_divergence(
    model: HookedViT,
    images: Images,
    corruption: Corruption | str = CLEAN,
    *,
    lens: TunedLens | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> LensDivergence:
    """KL from the model's final distribution to a lens's at every layer: what the tuned lens is trained to lower.

    Args:
        lens: None takes the logit lens.
        model, images, corruption, batch_size, seed, progress: as in `tuned_lens`; labels are not read.

    Raises:
        ValueError: as `tuned_lens`.

    Source: arXiv:2303.08112, section 3.
    """
    if lens is not None:
        lens.check_model(model)
    batch_size = default_batch_size(model, patterns=False) if batch_size is None else batch_size
    parts = []
    for batch in image_batches(model, images, batch_size, progress=progress):
        hooks, residuals = residual_hooks(model)
        logits = model.run_with_hooks(pixel_values(model, batch, corruption, seed=seed), fwd_hooks=hooks)
        read = residuals if lens is None else lens.translate(residuals)
        found = divergence(model, torch.stack(read), logits.float().log_softmax(-1))
        parts.append(LensDivergence(on_cpu(batch.image_ids), on_cpu(found.T)))
    return LensDivergence.concatenate(parts)


def divergence(
    model: HookedViT, residuals: Float[Tensor, "layer batch read d_model"], final: Float[Tensor, "batch class"]
) -> Float[Tensor, "layer batch"]:
    """KL(final || head(residual)) of every layer and image, nats; `final` are log-probabilities; differentiable."""
    logits = model.unembed_residual(residuals.flatten(0, 1)).float().view(*residuals.shape[:2], -1)
    return (final.exp() * (final - logits.log_softmax(-1))).sum(-1)
