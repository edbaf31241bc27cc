"""Outputs of Hugging Face's modules for a model of the zoo: logits, residual streams, patterns, pooler output."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.masking_utils import eager_mask
from transformers.models.data2vec import modeling_data2vec_vision as data2vec


@dataclass(frozen=True)
class Reference:
    """Outputs computed by Hugging Face."""

    logits: Tensor | None
    """[batch, class]; None for a bare encoder."""
    last_hidden_state: Tensor
    """[batch, token, d_model]"""
    hidden_states: tuple[Tensor, ...]
    """Stream that enters each block, and what leaves the last; each [batch, token, d_model]."""
    attentions: tuple[Tensor, ...] | None
    """Each block's pattern [batch, head, query, key]; None with "sdpa"."""
    pooler_output: Tensor | None
    """The encoder's, or that of `get_image_features` (projected) where the class has it; None without a pooler."""


def run_reference(
    hf_model: Any,
    pixels: Tensor,
    *,
    attention: str = "sdpa",
    interpolate: bool = False,
    text_embeds: Tensor | None = None,
) -> Reference:
    """Run a Hugging Face model on pixels [batch, channel, height, width], differentiably if they ask for it.

    Args:
        attention: "sdpa", "eager", or "exact": eager, but with the softmax in the scores' own dtype if that is wider
            than float32, to which several families' eager attention rounds.
        interpolate: resize the positions to the image's size.
        text_embeds: of the zero-shot head of CLIPModel and its siblings [class, projection].
    """
    encoder = vision_encoder(hf_model)
    inputs = vision_inputs(encoder.config, pixels, interpolate)
    with (
        torch.set_grad_enabled(pixels.requires_grad),
        _switched(hf_model, attention),
        _recorded(encoder) as (streams, patterns, encoded),
    ):
        out = _call(hf_model, encoder, inputs)
        logits = getattr(out, "logits", None)
        if text_embeds is not None:
            logits = _similarity(hf_model, out.pooler_output, text_embeds)
    (encoder_out,) = encoded
    pooled = getattr(out, "image_embeds", None)
    pooled = getattr(encoder_out, "pooler_output", None) if pooled is None else pooled
    return Reference(
        logits, encoder_out.last_hidden_state, tuple(streams), tuple(patterns) if patterns else None, pooled
    )


def vision_encoder(hf_model: Any) -> Any:
    """Return the module that turns pixels into `last_hidden_state`."""
    names = ("vision_model", "vit", "deit", "beit", "data2vec_vision", "dinov2", "dinov2_with_registers", "ijepa")
    return next((getattr(hf_model, name) for name in names if hasattr(hf_model, name)), hf_model)


def blocks_of(encoder: Any) -> nn.ModuleList:
    """Return a vision encoder's blocks."""
    inner = next((getattr(encoder, name) for name in ("encoder", "model") if hasattr(encoder, name)), encoder)
    return inner.layers if hasattr(inner, "layers") else inner.layer


def vision_inputs(config: Any, pixels: Tensor, interpolate: bool) -> dict[str, Any]:
    """Return the keyword arguments of a vision encoder; families without the flag always interpolate."""
    kind = config.model_type
    if kind.startswith("siglip2"):
        batch, _, height, width = pixels.shape
        grid = (height // config.patch_size, width // config.patch_size)
        return {
            "pixel_values": cut_into_patches(pixels, config.patch_size),
            "spatial_shapes": torch.tensor([grid] * batch),
            "pixel_attention_mask": torch.ones(batch, grid[0] * grid[1], dtype=torch.int32),
        }
    if kind.startswith("dino"):
        return {"pixel_values": pixels}
    inputs = {"pixel_values": pixels, "interpolate_pos_encoding": interpolate}
    if kind == "vit_mae":
        n_patches = (pixels.shape[2] // config.patch_size) * (pixels.shape[3] // config.patch_size)
        inputs["noise"] = torch.arange(n_patches).expand(len(pixels), -1).float()
    return inputs


def cut_into_patches(pixels: Tensor, size: int) -> Tensor:
    """Flatten each patch by (row, column, channel), as SigLIP 2's image processor does: [batch, patch, value]."""
    patches = pixels.unflatten(3, (-1, size)).unflatten(2, (-1, size))
    return patches.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def _call(hf_model: Any, encoder: Any, inputs: dict[str, Any]) -> Any:
    if type(_self_attention(blocks_of(encoder)[0])) is data2vec.Data2VecVisionSelfAttention:
        inputs = inputs | {"output_attentions": True}  # it returns its pattern to none but those who ask
    if type(hf_model).__name__.endswith(("ForPreTraining", "ForMaskedImageModeling")):
        hf_model = encoder  # what reconstructs the image is no part of it
    if encoder.config.model_type == "vit_mae":
        before, encoder.config.mask_ratio = encoder.config.mask_ratio, 0.0
        try:
            return hf_model(**inputs)
        finally:
            encoder.config.mask_ratio = before
    return hf_model.get_image_features(**inputs) if hasattr(hf_model, "get_image_features") else hf_model(**inputs)


def _similarity(hf_model: Any, image: Tensor, text: Tensor) -> Tensor:
    """The lines of CLIPModel.forward and SiglipModel.forward that make `logits_per_image` of two pooler outputs."""
    image, text = (x / x.norm(p=2, dim=-1, keepdim=True) for x in (image, text))
    per_text = text @ image.t() * hf_model.logit_scale.exp()
    return (per_text + hf_model.logit_bias if hasattr(hf_model, "logit_bias") else per_text).t()


def _self_attention(block: nn.Module) -> Any:
    module: Any = block.self_attn if hasattr(block, "self_attn") else block.attention
    return module.attention if isinstance(module, data2vec.Data2VecVisionAttention) else module


def exact_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, Tensor]:
    """Attention with the softmax in the scores' dtype; an `AttentionInterface` function."""
    scores = query @ key.transpose(-1, -2) * options["scaling"]
    pattern = (scores if attention_mask is None else scores + attention_mask).softmax(-1)
    return (pattern @ value).transpose(1, 2).contiguous(), pattern


transformers.AttentionInterface.register("exact", exact_attention)
transformers.AttentionMaskInterface.register("exact", eager_mask)


@contextlib.contextmanager
def _switched(hf_model: Any, attention: str) -> Iterator[None]:
    """Use one implementation of attention for a while."""
    encoder = vision_encoder(hf_model)
    if encoder.config.model_type == "data2vec-vision":  # its classes differ in nothing but `forward`
        cls = "Data2VecVisionSdpaSelfAttention" if attention == "sdpa" else "Data2VecVisionSelfAttention"
        modules = [_self_attention(block) for block in blocks_of(encoder)]
        before = [type(module) for module in modules]
        for module in modules:
            module.__class__ = getattr(data2vec, cls)
        try:
            yield
        finally:
            for module, own in zip(modules, before, strict=True):
                module.__class__ = own
        return
    own = encoder.config._attn_implementation
    encoder.set_attn_implementation(attention)
    try:
        yield
    finally:
        encoder.set_attn_implementation(own)


@contextlib.contextmanager
def _recorded(encoder: Any) -> Iterator[tuple[list[Tensor], list[Tensor], list[Any]]]:
    """Record the residual streams, the patterns and the encoder's output, by torch's hooks."""
    streams: list[Tensor] = []
    patterns: list[Tensor] = []
    encoded: list[Any] = []

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        streams.append(args[0] if args else kwargs["hidden_states"])

    def leave(module: nn.Module, args: Any, out: Any) -> None:
        streams.append(out[0] if isinstance(out, tuple) else out)

    def attend(module: nn.Module, args: Any, out: Any) -> None:
        if len(out) > 1 and out[1] is not None:
            patterns.append(out[1])

    blocks = blocks_of(encoder)
    handles = [block.register_forward_pre_hook(enter, with_kwargs=True) for block in blocks]
    handles.append(blocks[-1].register_forward_hook(leave))
    handles += [_self_attention(block).register_forward_hook(attend) for block in blocks]
    handles.append(encoder.register_forward_hook(lambda module, args, out: encoded.append(out)))
    try:
        yield streams, patterns, encoded
    finally:
        for handle in handles:
            handle.remove()
