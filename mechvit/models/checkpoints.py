"""A HookedViT from a checkpoint, and back."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from mechvit.arguments import checked

if TYPE_CHECKING:
    from .hooked_vit import HookedViT


class FromCheckpoints:
    """Loading and saving, in Hugging Face's words."""

    @classmethod
    @checked
    def from_pretrained(
        cls,
        path_or_hub_id: str | os.PathLike[str],
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        fold_ln: bool = False,
        *,
        center_writing_weights: bool = False,
        center_unembed: bool = False,
        fold_value_biases: bool = False,
        text_embeds: Float[Tensor, "class projection"] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> HookedViT:
        """Load a checkpoint's folder, or a model of the Hugging Face hub, with its image processor.

        Args:
            path_or_hub_id: a folder that a Hugging Face model's or a HookedViT's `save_pretrained` wrote (safetensors),
                or a hub id.
            device: where to; CUDA where there is one (under torchrun each process its own), else the CPU, when None.
            dtype: the checkpoint's own when None.
            fold_ln, center_writing_weights, center_unembed, fold_value_biases: see `process_weights_`.
            text_embeds, class_names: see `from_hf`.

        Raises:
            ValueError: nothing is there, it is of another kind (named before any weight is read), or its weights are
                missing, left over or mis-shaped (each named).
        """
        from .loading import load_pretrained
        from .saving import is_hooked_vit, load_hooked_vit

        if is_hooked_vit(path_or_hub_id):
            if text_embeds is not None or class_names is not None:
                raise ValueError(
                    f"{path_or_hub_id} is a saved HookedViT and has its head already; leave text_embeds out."
                )
            model = load_hooked_vit(path_or_hub_id, device, dtype)
        else:
            model = load_pretrained(path_or_hub_id, device, dtype, text_embeds, class_names)
        return model.process_weights_(
            fold_ln=fold_ln,
            center_writing_weights=center_writing_weights,
            center_unembed=center_unembed,
            fold_value_biases=fold_value_biases,
        )

    @classmethod
    def from_hf(
        cls,
        hf_model: Any,
        image_processor: Any = None,
        *,
        text_embeds: Float[Tensor, "class projection"] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> HookedViT:
        """Copy a loaded Hugging Face model, which stays as it is.

        Args:
            hf_model: of one of the supported classes.
            image_processor: kept as `image_processor`.
            text_embeds: make a zero-shot classifier of a CLIPModel, SiglipModel or Siglip2Model: one text embedding a
                class, as its `get_text_features` gives them (of any length: they are normalised). Without, these
                are bare encoders.
            class_names: the name of each row.

        Raises:
            ValueError: it is of another kind, or its weights do not fit its config.
        """
        from .loading import from_hf

        return from_hf(hf_model, image_processor, text_embeds, class_names)

    def to_hf(self) -> Any:
        """Give an ordinary Hugging Face model of the same class with the same weights, bit for bit.

        Raises:
            ValueError: processing made a bias that the Hugging Face class has no place for.
        """
        from .loading import to_hf

        return to_hf(cast("HookedViT", self))

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Save the model as it is, processed or with text embeddings, for `from_pretrained` (safetensors and JSON).

        `to_hf().save_pretrained(folder)` writes an ordinary Hugging Face checkpoint instead.
        """
        from .saving import save_hooked_vit

        save_hooked_vit(cast("HookedViT", self), folder)
