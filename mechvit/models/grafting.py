"""Models put together of one model's encoder and another head: another model's, or a linear one.

The encoder is the embedding (with `ln_pre`) and the blocks; the head is the final LayerNorm, the pooling, the pooler
and the classifier.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mechvit.arguments import checked

from .config import HookedViTConfig
from .families import find_family
from .hooked_vit import HookedViT

if TYPE_CHECKING:
    from .families import Family

ENCODER = ("embed", "ln_pre", "relative", "blocks")
"""Modules of the encoder; all others are the head's."""
_HEAD_FIELDS = (
    *("family", "architecture", "final_norm", "pooling", "n_classes", "id2label", "problem_type", "zero_shot"),
    *("projection_dim", "projection_bias", "logit_bias", "pooler", "pooler_size", "pooler_act", "processing"),
)
"""Fields of the config that describe the head, and those by which Hugging Face names the whole."""
_FREE = frozenset({*_HEAD_FIELDS, "image_size", "position_image_size", "dropout"})
"""Fields in which an encoder may differ from the one that a head was trained on."""
_SIZES = ("image_size", "num_patches")
"""Names of the input size in Hugging Face's configs."""


def is_encoder(name: str) -> bool:
    """Return whether a weight, by its name in the state dict, belongs to the encoder."""
    return name.split(".")[0] in ENCODER


@checked
@torch.inference_mode(False)
def graft_head(encoder: HookedViT, head_of: HookedViT) -> HookedViT:
    """Return the encoder of one model with the head of another.

    The result is a HookedViT like any other, with hooks of its own; its weights are those of the two models and are not
    copied. It has the encoder's input size and image processor, and the classes and the Hugging Face class of the
    head's model, as which `to_hf` returns it. Hooks and SAEs that are attached to either model are not taken over.

    Only the shape is checked here. Between models that were not trained from one another a graft means nothing
    (`mechvit.analysis.require_kin`).

    Args:
        encoder: any HookedViT, with or without a head.
        head_of: a model with a classification head.

    Raises:
        ValueError: `head_of` has no head, or the two encoders differ in a setting (named): another width, other tokens
            for the head to read, another dtype or device.

    Example:
        >>> grafted = graft_head(base_encoder, tuned_classifier)
        >>> grafted.cfg.id2label == tuned_classifier.cfg.id2label
        True
    """
    check_graft(encoder.cfg, head_of.cfg)
    head = {name: getattr(head_of.cfg, name) for name in _HEAD_FIELDS}
    hf_config = copy.deepcopy(head_of.hf_config)
    own, theirs = (getattr(config, "vision_config", config) for config in (encoder.hf_config, hf_config))
    for name in _SIZES:
        if hasattr(own, name) and hasattr(theirs, name):
            setattr(theirs, name, getattr(own, name))
    weights = {name: t for name, t in _own_weights(encoder).items() if is_encoder(name)}
    weights |= {name: t for name, t in _own_weights(head_of).items() if not is_encoder(name)}
    model = _assembled(encoder, dataclasses.replace(encoder.cfg, **head), hf_config, weights)
    model.carried.keep(head_of.carried.weights())
    return model


def check_graft(own: HookedViTConfig, other: HookedViTConfig) -> None:
    """Raise a ValueError unless the head of the second config fits the encoder of the first."""
    if not other.n_classes:
        raise ValueError(
            f"the model whose head is grafted must have one; this {other.architecture} has no classification head: "
            "give the classifier that was tuned from the encoder"
        )
    done = [set(cfg.processing) - {"center_unembed"} for cfg in (own, other)]
    if done[0] != done[1]:
        had = " and ".join(", ".join(sorted(steps)) or "no processing" for steps in done)
        raise ValueError(
            f"a head fits weights that are processed like its own; the encoder and the head's model had {had}: process "
            "both alike"
        )
    for field in dataclasses.fields(own):
        first, second = getattr(own, field.name), getattr(other, field.name)
        if field.name not in _FREE and first != second:
            raise ValueError(
                f"a head fits the encoder that it was trained on, and models tuned from it; the {field.name} of the "
                f"{own.architecture} and of the {other.architecture} is {first} and {second}: give a model and one "
                "fine-tuned from it, on one device and in one dtype (from_pretrained takes dtype=torch.float32)"
            )


@checked
@torch.inference_mode(False)  # the models serve outside of the caller's, too
def linear_head(
    model: HookedViT,
    weight: Float[Tensor, "class d_head_input"],
    bias: Float[Tensor, " class"],
    id2label: Mapping[int, str],
) -> HookedViT:
    """Return a model with a linear classifier in place of its own, on the same pooled representation.

    A bare encoder is pooled as the classifier of its family pools (CLS for most; CLS beside the mean of the patches for
    DINOv2; the mean of the patches for BEiT, SigLIP, I-JEPA and CLIP), and at CLS where the family has none (MAE,
    DINOv3). All other weights are the model's own and are not copied.

    Args:
        weight, bias: the classifier; logits are x weightᵀ + bias. Rounded to the model's dtype.
        id2label: class index -> name.

    Raises:
        ValueError: the shapes do not fit.
    """
    cfg = headed_config(model, id2label)
    shapes = [cfg.n_classes, cfg.d_head_input], [cfg.n_classes]
    if (list(weight.shape), list(bias.shape)) != shapes:
        raise ValueError(
            f"the classifier of this {cfg.architecture} must be {shapes[0]} and {shapes[1]} (classes, and the "
            f"{cfg.d_head_input} values that the head reads); got {list(weight.shape)} and {list(bias.shape)}"
        )
    hf_config = copy.deepcopy(model.hf_config)
    hf_config.id2label = dict(cfg.id2label)
    hf_config.label2id = {name: index for index, name in cfg.id2label.items()}
    hf_config.problem_type = None
    weights = {name: t for name, t in _own_weights(model).items() if name.split(".")[0] not in ("head", "pooler")}
    if cfg.pooler == "attention":
        weights |= {name: t for name, t in _own_weights(model).items() if name.startswith("pooler.")}
    if model.cfg.final_norm == "none" and cfg.final_norm == "pooled":  # a bare BEiT keeps it in its pooler
        weights |= {f"ln_final.{kind}": model.state_dict()[f"pooler.{kind}"] for kind in "wb"}
    if cfg.final_norm == "none":
        weights = {name: t for name, t in weights.items() if not name.startswith("ln_final.")}
    weight, bias = (t.detach().to(device=cfg.device, dtype=cfg.dtype, copy=True) for t in (weight, bias))
    if cfg.pooling == "cls+distillation":  # the mean of two classifiers
        halves = (2 * weight).chunk(2, dim=1)
        head = {f"head.{name}.weight": half for name, half in zip(("cls", "distillation"), halves, strict=True)}
        head |= {f"head.{name}.bias": bias for name in ("cls", "distillation")}
    else:
        head = {"head.weight": weight, "head.bias": bias}
    weights |= {name: nn.Parameter(tensor) for name, tensor in head.items()}
    linear = _assembled(model, cfg, hf_config, weights)
    linear.carried.keep(model.carried.weights())
    return linear


def headed_config(model: HookedViT, id2label: Mapping[int, str]) -> HookedViTConfig:
    """Return the config of a model that has a linear classifier of these classes (see `linear_head`)."""
    family, _ = find_family(model.hf_config.model_type, [model.cfg.architecture], "The HookedViT")
    pooling = {} if model.cfg.n_classes else _family_pooling(family, model)
    cfg = dataclasses.replace(model.cfg, **pooling)
    return dataclasses.replace(
        cfg,
        n_classes=len(id2label),
        id2label=dict(id2label),
        problem_type=None,
        zero_shot=False,
        projection_dim=0,
        projection_bias=False,
        logit_bias=False,
        pooler="attention" if cfg.pooling == "attention" else "none",
        pooler_size=0,
        pooler_act="tanh",
        processing=tuple(step for step in cfg.processing if step != "center_unembed"),
    )


def _family_pooling(family: Family, model: HookedViT) -> dict[str, Any]:
    """Return the pooling and the final LayerNorm's place in the classifier of a bare encoder's family."""
    classifiers = [known for known in family.architectures.values() if known.classifier]
    if not classifiers:
        return {}
    vision = getattr(model.hf_config, "vision_config", model.hf_config)
    read = {**family.config, **classifiers[0].config}
    found: dict[str, Any] = {name: read[name](vision) for name in ("pooling", "final_norm") if name in read}
    if found.get("final_norm") == "pooled" and model.pooler is None:
        found["final_norm"] = "none"  # a BEiT without a pooler has no weights for it
    return found


def _own_weights(model: HookedViT) -> dict[str, Tensor]:
    """Return a model's own parameters by name."""
    return dict(model.named_parameters())


def encoder_source(model: HookedViT) -> HookedViT | None:
    """Return the model whose encoder a grafted model shares; None where its weights are its own (a copy's, too)."""
    source = None if model.encoder_of is None else model.encoder_of()
    if source is None:
        return None
    own, other = ({n: t.data_ptr() for n, t in _own_weights(m).items() if is_encoder(n)} for m in (model, source))
    return source if own == other else None


def _assembled(encoder: HookedViT, cfg: HookedViTConfig, hf_config: Any, weights: Mapping[str, Tensor]) -> HookedViT:
    """Build a model around given weights, which it shares; each has a parameter of its own."""
    with torch.device("meta"):
        model = HookedViT(dataclasses.replace(cfg, device=torch.device("meta")), hf_config, encoder.image_processor)
    model.load_state_dict({name: weight.detach() for name, weight in weights.items()}, assign=True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(weights[name].requires_grad)
    model.cfg = model.embed.cfg = cfg
    source = encoder_source(encoder) or encoder
    model.encoder_of = lambda: source
    return model
