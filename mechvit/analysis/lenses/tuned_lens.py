"""The tuned lens: one affine map per layer from the residual stream to what the head reads."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mechvit.analysis.statistics.results import OneLine
from mechvit.arguments import checked
from mechvit.files import new_folder, write_json, write_tensors
from mechvit.models.checkpoints.fingerprint import checkpoint_hash
from mechvit.models.checkpoints.stored_files import check_finite, read_object, read_tensors

if TYPE_CHECKING:
    from mechvit.models import HookedViT

WEIGHTS, ABOUT = "tuned_lens.safetensors", "tuned_lens.json"


@dataclass(frozen=True, kw_only=True, repr=False)
class TunedLens(OneLine):
    """Translators h + h Aₗ + bₗ of the layers 0..n_layers - 1 of one model; the last layer needs none. On the CPU."""

    weight: Float[Tensor, "layer d_model d_model"]
    """A, multiplied from the right to row vectors; zero is the logit lens."""
    bias: Float[Tensor, "layer d_model"]
    checkpoint_hash: str
    """Hash of the model's weights (`mechvit.models.checkpoints.fingerprint.checkpoint_hash`)."""
    about: dict[str, Any] = field(default_factory=dict)
    """Training settings and results, as JSON."""

    @classmethod
    def identity(cls, model: HookedViT) -> TunedLens:
        """Return translators that change nothing: the logit lens."""
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
        """Raise a ValueError unless the lens was trained for exactly this model."""
        own = checkpoint_hash(model)
        if own != self.checkpoint_hash:
            raise ValueError(
                f"this tuned lens was trained for another model (checkpoint hash {self.checkpoint_hash[:12]}) than "
                f"this one ({own[:12]}): give that model, or train a lens for this one"
            )

    @checked
    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the translators (safetensors) and their description (JSON), beside the folder and renamed into it.

        Raises:
            ValueError: `folder` exists and is not a tuned lens, or may not be replaced.
        """
        about = {"about": self.about, "checkpoint_hash": self.checkpoint_hash}
        with new_folder(folder, "tuned lens", overwrite=overwrite, flag="overwrite") as new:
            write_tensors(new / WEIGHTS, {"weight": self.weight.contiguous(), "bias": self.bias.contiguous()})
            write_json(new / ABOUT, about)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], model: HookedViT) -> TunedLens:
        """Read a lens, and refuse it for any other model than its own.

        Raises:
            ValueError: the folder is not a lens, its files are damaged or not finite, or it belongs to another model.
        """
        place = Path(folder)
        if missing := [name for name in (WEIGHTS, ABOUT) if not (place / name).is_file()]:
            raise ValueError(f"{place} is no saved tuned lens: it lacks {' and '.join(missing)}; write one with save")
        about = read_object(place / ABOUT, ("checkpoint_hash", "about"))
        weights = read_tensors(place / WEIGHTS)
        check_finite(weights, place / WEIGHTS)
        lens = cls(
            weight=weights.get("weight", torch.zeros(0)),
            bias=weights.get("bias", torch.zeros(0)),
            checkpoint_hash=str(about["checkpoint_hash"]),
            about=about["about"],
        )
        lens.check_model(model)
        layers, d = model.cfg.n_layers, model.cfg.d_model
        if (lens.weight.shape, lens.bias.shape) != ((layers, d, d), (layers, d)):
            raise ValueError(
                f"{place / WEIGHTS} must hold weight {[layers, d, d]} and bias {[layers, d]}; got "
                f"{ {name: list(tensor.shape) for name, tensor in weights.items()} }: train the lens again"
            )
        return lens


def translated(
    residuals: Float[Tensor, "layer batch read d_model"],
    weight: Float[Tensor, "layer d_model d_model"],
    bias: Float[Tensor, "layer d_model"],
) -> Float[Tensor, "layer batch read d_model"]:
    """Compute h + h A + b of every layer in float32, returned in the residuals' dtype; differentiable."""
    h = residuals.float()
    weight, bias = weight.to(h.device), bias.to(h.device)
    moved = h.flatten(1, 2) @ weight + bias[:, None]
    return (h + moved.view_as(h)).to(residuals.dtype)


def divergence(
    model: HookedViT, residuals: Float[Tensor, "layer batch read d_model"], final: Float[Tensor, "batch class"]
) -> Float[Tensor, "layer batch"]:
    """Compute KL(final || head(residual)) per layer and image, nats; `final` are log-probabilities; differentiable."""
    logits = model.unembed_residual(residuals.flatten(0, 1)).float().view(*residuals.shape[:2], -1)
    return (final.exp() * (final - logits.log_softmax(-1))).sum(-1)
