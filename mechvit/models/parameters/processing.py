"""Weight processing that leaves the function unchanged: transformer-lens's, for vision transformers."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from mechvit.models.hooked_vit import HookedViT
from mechvit.models.interrupts import sigint_held
from mechvit.models.layers.attention import Attention
from mechvit.models.layers.block import MLP, LayerNorm
from mechvit.models.layers.head import AttentionPooler, DistilledHead, LinearHead, ZeroShotHead


@torch.no_grad()
def process_weights(
    model: HookedViT,
    fold_ln: bool = False,
    center_writing_weights: bool = False,
    center_unembed: bool = False,
    fold_value_biases: bool = False,
) -> HookedViT:
    """Rewrite a model's weights in place and return it; sums are taken in float64, and Ctrl-C is deferred.

    Args:
        fold_ln: fold each LayerNorm's gain and bias into the weights that read it: W' = W diag(w), b' = b + W b_ln;
            then w = 1, b_ln = 0, and `cfg.normalization_type` is "LNPre". The final one of a bare encoder stays, since
            its output is the result. Biases appear where the checkpoint had none.
        center_writing_weights: subtract from everything that writes into the residual stream (patches, special tokens,
            positions, attention, MLPs) its mean over d_model, so that the stream's mean is zero at every layer. Layer
            scales are folded into the weights before them first.
        center_unembed: subtract the mean over classes from the classifier, so that the logits' mean is zero.
        fold_value_biases: move the value biases through W_O into the output biases: a pattern's rows sum to 1.

    Raises:
        ValueError: a step would change what this model computes; nothing is changed then.
    """
    steps = {
        "fold_ln": fold_ln,
        "center_writing_weights": center_writing_weights,
        "center_unembed": center_unembed,
        "fold_value_biases": fold_value_biases,
    }
    _check_valid(model, steps)
    with sigint_held():
        if model.encoder_of is not None:
            _own_copies(model)
        if fold_ln:
            fold_layer_norms(model)
        if center_writing_weights:
            _center_writing_weights(model)
        if center_unembed:
            _center_unembed(model)
        if fold_value_biases:
            for attn in _attentions(model):
                _fold_value_bias(attn)
        done = [name for name, asked in steps.items() if asked and name not in model.cfg.processing]
        return _describe(model, processing=(*model.cfg.processing, *done))


def _own_copies(model: HookedViT) -> None:
    """Copy the weights of a grafted model, so that the models that it was made of stay as they are."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    model.encoder_of = None


def _check_valid(model: HookedViT, steps: dict[str, bool]) -> None:
    cfg = model.cfg
    if steps["center_writing_weights"]:
        reason = None
        if cfg.ln_pre:
            reason = "ln_pre writes into its residual stream, and its gain leaves a mean that no weight can take out"
        elif cfg.final_norm == "none":
            reason = "its last residual stream is read without a LayerNorm"
        if reason:
            raise ValueError(f"center_writing_weights would change a {cfg.architecture}: {reason}. Leave it out.")
    if steps["center_unembed"] and model.head is None:
        raise ValueError(f"center_unembed needs a classification head, and this {cfg.architecture} has none.")


@torch.no_grad()
def fold_layer_norms(model: HookedViT) -> HookedViT:
    """Fold each LayerNorm's gain and bias into the weights that read it (`fold_ln` of `process_weights`)."""
    for block in model.blocks:
        _fold(block.ln1, [block.attn.q, block.attn.k, block.attn.v])
        _fold(block.ln2, [fc for fc in (block.mlp.gate, block.mlp.fc1) if fc is not None])
        _set_bias(block.mlp.fc2, _bias(block.mlp.fc2))  # an MLP has all biases or none
    if model.head is not None and model.ln_final is not None:
        _fold(model.ln_final, _readers_of_final(model))
    if isinstance(model.pooler, AttentionPooler) and model.head is not None:
        _fold(model.pooler.ln, [model.pooler.mlp.fc1])
    done = () if "fold_ln" in model.cfg.processing else ("fold_ln",)
    return _describe(model, normalization_type="LNPre", processing=(*model.cfg.processing, *done))


def _readers_of_final(model: HookedViT) -> list[nn.Linear]:
    if isinstance(model.pooler, AttentionPooler):
        return [model.pooler.attn.k, model.pooler.attn.v]
    if isinstance(model.head, DistilledHead):
        return [model.head.cls, model.head.distillation]
    if isinstance(model.head, ZeroShotHead):
        assert model.head.projection is not None
        return [model.head.projection]
    assert isinstance(model.head, LinearHead)
    return [model.head]


def _fold(ln: LayerNorm, readers: list[nn.Linear]) -> None:
    for linear in readers:
        times = linear.in_features // len(ln.w)  # two tokens side by side for a CLS + mean head
        weight = linear.weight.double()
        _set_bias(linear, weight @ ln.b.double().repeat(times) + _bias(linear))
        linear.weight.copy_(weight * ln.w.double().repeat(times))
    ln.w.fill_(1.0)
    ln.b.fill_(0.0)


def _center_writing_weights(model: HookedViT) -> None:
    embed = model.embed
    for token in (embed.cls_token, embed.distillation_token, embed.register_tokens, embed.positions):
        if token is not None:
            _subtract_mean(token, -1)
    _subtract_mean(embed.patch.weight, 0)
    if embed.patch.bias is not None:
        _subtract_mean(embed.patch.bias, 0)
    for block in model.blocks:
        _center_output(block.attn, block.attn.o)
        _center_output(block.mlp, block.mlp.fc2)


def _center_output(module: Attention | MLP, out: nn.Linear) -> None:
    if module.scale is not None:
        out.weight.copy_(out.weight.double() * module.scale.double()[:, None])
        if out.bias is not None:
            out.bias.copy_(out.bias.double() * module.scale.double())
        module.scale.fill_(1.0)
    _subtract_mean(out.weight, 0)
    if out.bias is not None:
        _subtract_mean(out.bias, 0)


def _center_unembed(model: HookedViT) -> None:
    head = model.head
    if isinstance(head, ZeroShotHead):
        _subtract_mean(head.text_embeds, 0)
        if head.logit_bias is not None:
            if "center_unembed" not in model.cfg.processing:  # kept for `to_hf`, unlike text embeddings
                model.carried.keep({"logit_bias": head.logit_bias.clone()})
            head.logit_bias.fill_(0.0)
        return
    for linear in (head.cls, head.distillation) if isinstance(head, DistilledHead) else (head,):
        assert isinstance(linear, nn.Linear)
        _subtract_mean(linear.weight, 0)
        _subtract_mean(linear.bias, 0)


def _attentions(model: HookedViT) -> list[Attention]:
    """List the attention modules of the blocks, and of the head where it pools by attention."""
    pooler = [model.pooler.attn] if isinstance(model.pooler, AttentionPooler) and model.head is not None else []
    return [block.attn for block in model.blocks] + pooler


def _fold_value_bias(attn: Attention) -> None:
    if attn.v.bias is None:
        return
    _set_bias(attn.o, attn.o.weight.double() @ attn.v.bias.double() + _bias(attn.o))
    attn.v.bias.fill_(0.0)


def _subtract_mean(weight: Tensor, dim: int) -> None:
    wide = weight.double()
    weight.copy_(wide - wide.mean(dim, keepdim=True))


def _bias(linear: nn.Linear) -> Tensor:
    return linear.weight.new_zeros(linear.out_features).double() if linear.bias is None else linear.bias.double()


def _set_bias(linear: nn.Linear, bias: Tensor) -> None:
    linear.bias = nn.Parameter(bias.to(linear.weight.dtype))


def _describe(model: HookedViT, **changes: object) -> HookedViT:
    """Update the config's record of which biases exist."""
    attn, mlp = model.blocks[0].attn, model.blocks[0].mlp
    biases = {f"{name}_bias": getattr(attn, name).bias is not None for name in "qkvo"}
    biases["mlp_bias"] = mlp.fc1.bias is not None
    projection = model.head.projection if isinstance(model.head, ZeroShotHead) else None
    biases["projection_bias"] = projection is not None and projection.bias is not None
    model.cfg = dataclasses.replace(model.cfg, **biases, **changes)  # type: ignore[arg-type]
    return model
