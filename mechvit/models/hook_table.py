"""Tables of hook points in Markdown, of one checkpoint's config or of every supported family; no weights are loaded."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
import transformers

from mechvit.models.checkpoints.checkpoint_config import one_line, read_hf_config
from mechvit.models.checkpoints.checks import ON_REQUEST
from mechvit.models.checkpoints.saving import is_hooked_vit, load_hooked_vit

from .config import HookedViTConfig
from .families import FAMILIES, Family, find_family
from .hooked_vit import HookedViT

LEARNED, ROTARY, GATED, HEAD = "learned positions", "rotary positions", "gated MLPs", "a head"
FIRST, FINAL = "a LayerNorm before the blocks", "a LayerNorm after the blocks"
ZERO_SHOT, POOLING = "a zero-shot head", "a head that pools by attention"
LN_SCALE = "√(variance + eps), by which the LayerNorm divides"

NEEDS: dict[str, Callable[[HookedViTConfig], bool]] = {
    LEARNED: lambda cfg: cfg.positions == "learned",
    FIRST: lambda cfg: cfg.ln_pre,
    ROTARY: lambda cfg: cfg.positions == "rotary",
    GATED: lambda cfg: cfg.gated_mlp,
    FINAL: lambda cfg: cfg.final_norm != "none",
    HEAD: lambda cfg: cfg.n_classes > 0,
    ZERO_SHOT: lambda cfg: cfg.zero_shot,
    POOLING: lambda cfg: cfg.n_classes > 0 and cfg.pooling == "attention",
}
"""Property of a model -> whether it has it; hook points depend on these."""

FLAGS = ("use_swiglu_ffn", "use_gated_mlp", "use_absolute_position_embeddings")  # options that add hook points


class Point(NamedTuple):
    """Dimensions of a hook point (as `sizes` names them), its meaning, and the key of NEEDS it depends on, if any."""

    shape: str
    meaning: str
    needs: str = ""


POINTS: dict[str, Point] = {
    "hook_embed": Point("batch, token, d_model", "special tokens and patches (CLIP: after ln_pre)"),
    "hook_pos_embed": Point("batch, token, d_model", "positions (CLIP: after ln_pre, with its bias)", LEARNED),
    "ln_pre.hook_scale": Point("batch, token, 1", LN_SCALE, FIRST),
    "blocks.{l}.hook_resid_pre": Point("batch, token, d_model", "residual stream that enters the block"),
    "blocks.{l}.hook_q_input": Point("batch, token, head, d_model", "a copy of the stream for each head's queries"),
    "blocks.{l}.hook_k_input": Point("batch, token, head, d_model", "a copy of the stream for each head's keys"),
    "blocks.{l}.hook_v_input": Point("batch, token, head, d_model", "a copy of the stream for each head's values"),
    "blocks.{l}.ln1.hook_scale": Point("batch, token, 1", LN_SCALE),
    "blocks.{l}.ln1.hook_normalized": Point("batch, token, d_model", "what attention reads, after gain and bias"),
    "blocks.{l}.attn.hook_q": Point("batch, token, head, d_head", "queries, before any rotation"),
    "blocks.{l}.attn.hook_k": Point("batch, token, head, d_head", "keys, before any rotation"),
    "blocks.{l}.attn.hook_v": Point("batch, token, head, d_head", "values"),
    "blocks.{l}.attn.hook_rot_q": Point("batch, token, head, d_head", "queries turned by position", ROTARY),
    "blocks.{l}.attn.hook_rot_k": Point("batch, token, head, d_head", "keys turned by position", ROTARY),
    "blocks.{l}.attn.hook_attn_scores": Point("batch, head, query, key", "q kᵀ / √d_head + any position bias"),
    "blocks.{l}.attn.hook_pattern": Point("batch, head, query, key", "softmax of the scores over the keys"),
    "blocks.{l}.attn.hook_z": Point("batch, token, head, d_head", "values averaged by the pattern"),
    "blocks.{l}.attn.hook_result": Point("batch, token, head, d_model", "what each head writes, layer scale included"),
    "blocks.{l}.hook_attn_out": Point("batch, token, d_model", "what attention adds, after layer scale"),
    "blocks.{l}.hook_resid_mid": Point("batch, token, d_model", "residual stream between attention and MLP"),
    "blocks.{l}.hook_mlp_in": Point("batch, token, d_model", "a copy of the stream for the MLP alone"),
    "blocks.{l}.ln2.hook_scale": Point("batch, token, 1", LN_SCALE),
    "blocks.{l}.ln2.hook_normalized": Point("batch, token, d_model", "what the MLP reads, after gain and bias"),
    "blocks.{l}.mlp.hook_pre": Point("batch, token, d_mlp", "before the activation (the gate's, if any)"),
    "blocks.{l}.mlp.hook_pre_linear": Point("batch, token, d_mlp", "what the activated gate multiplies", GATED),
    "blocks.{l}.mlp.hook_post": Point("batch, token, d_mlp", "after the activation and any gating"),
    "blocks.{l}.hook_mlp_out": Point("batch, token, d_model", "what the MLP adds, after layer scale"),
    "blocks.{l}.hook_resid_post": Point("batch, token, d_model", "residual stream that leaves the block"),
    "ln_final.hook_scale": Point("batch, token, 1", LN_SCALE, FINAL),
    "ln_final.hook_normalized": Point("batch, token, d_model", "what leaves it, after gain and bias", FINAL),
    "pooler.attn.hook_q": Point("batch, 1, head, d_head", "query of the learned probe", POOLING),
    "pooler.attn.hook_k": Point("batch, token, head, d_head", "keys of the tokens", POOLING),
    "pooler.attn.hook_v": Point("batch, token, head, d_head", "values of the tokens", POOLING),
    "pooler.attn.hook_attn_scores": Point("batch, head, 1, key", "q kᵀ / √d_head", POOLING),
    "pooler.attn.hook_pattern": Point("batch, head, 1, key", "softmax of the scores over the tokens", POOLING),
    "pooler.attn.hook_z": Point("batch, 1, head, d_head", "values averaged by the pattern", POOLING),
    "pooler.hook_attn_out": Point("batch, 1, d_model", "what is pooled", POOLING),
    "pooler.ln.hook_scale": Point("batch, 1, 1", LN_SCALE, POOLING),
    "pooler.ln.hook_normalized": Point("batch, 1, d_model", "what the MLP reads, after gain and bias", POOLING),
    "pooler.mlp.hook_pre": Point("batch, 1, d_mlp", "before the activation", POOLING),
    "pooler.mlp.hook_post": Point("batch, 1, d_mlp", "after the activation", POOLING),
    "pooler.hook_mlp_out": Point("batch, 1, d_model", "what the pooler's MLP adds", POOLING),
    "hook_head_input": Point("batch, d_head_input", "the pooled tokens that the classifier reads", HEAD),
    "head.hook_scale": Point("batch, 1", "length of the projected image, which divides it", ZERO_SHOT),
    "hook_logits": Point("batch, class", "what the model returns", HEAD),
}
"""Every hook point, `{l}` standing for the layer, in the order in which a forward pass reaches them."""

ABOUT = """\
# Hook points

Written by `mechvit hook-points --out docs/hook_points.md --overwrite`; with `--model DIR_OR_ID` that command prints
the table of one checkpoint, with sizes. `{l}` is a block. A family in brackets has the point in some of its models.
`d_head_input` is d_model, or twice that where the head reads two vectors side by side. After
`set_use_split_qkv_input(True)` ln1 is called for q, k and v in turn, each with a `head` dimension before the last.
"""


def sizes(cfg: HookedViTConfig) -> dict[str, int]:
    """Return the size of each named dimension for one image."""
    token = dict.fromkeys(("token", "query", "key"), cfg.n_tokens)
    widths = {name: getattr(cfg, name) for name in ("d_model", "d_head", "d_mlp", "d_head_input")}
    return {"batch": 1, "1": 1, "head": cfg.n_heads, "class": cfg.n_classes, **token, **widths}


def points_of(cfg: HookedViTConfig) -> dict[str, Point]:
    """Return the hook points of a model, with `{l}` for the layer, including those on request."""
    found = {name: point for name, point in POINTS.items() if not point.needs or NEEDS[point.needs](cfg)}
    if cfg.final_norm == "pooled":  # one vector per image
        for name in ("ln_final.hook_scale", "ln_final.hook_normalized"):
            found[name] = found[name]._replace(shape=found[name].shape.replace("token", "1"))
    return found


def request(name: str) -> str:
    """Return when a hook point exists: always, or after a call."""
    call = ON_REQUEST.get(name.rpartition(".")[2]) if name.startswith("blocks.") else None
    return "always" if call is None else f"after `model.{call}`"


def checkpoint_table(path_or_hub_id: str, zero_shot: bool = False) -> str:
    """Tabulate a checkpoint's hook points from its config; `zero_shot` adds a head of two text embeddings.

    Raises:
        ValueError: nothing is there, the model is of an unsupported kind, or `zero_shot` for a class without a
            zero-shot head.
    """
    if is_hooked_vit(path_or_hub_id) and not zero_shot:
        cfg = load_hooked_vit(path_or_hub_id, "cpu", None).cfg
    else:
        hf_config = read_hf_config(path_or_hub_id)
        _, architecture = find_family(hf_config.model_type, hf_config.architectures, path_or_hub_id)
        try:
            cfg = _model(architecture, hf_config, zero_shot).cfg
        except ValueError:
            raise
        except Exception as error:  # invalid settings raise exceptions of many kinds
            raise ValueError(
                f"{path_or_hub_id}: its config.json does not make a {architecture}: {one_line(error)}"
            ) from error
    size, rows = sizes(cfg), [("hook point", "shape", "one image", "meaning", "exists")]
    for name, point in points_of(cfg).items():
        numbers = [size[dim] for dim in point.shape.split(", ")]
        rows.append((f"`{name}`", f"[{point.shape}]", str(numbers), point.meaning, request(name)))
    return f"{cfg.architecture}: {cfg.n_layers} blocks, {{l}} from 0 to {cfg.n_layers - 1}\n\n" + _markdown(rows)


def family_table() -> str:
    """Tabulate the hook points of all families, from one-layer models of every supported class."""
    shapes: dict[str, dict[str, list[str]]] = {name: {family: [] for family in FAMILIES} for name in POINTS}
    for family in FAMILIES.values():
        for model in family_models(family):
            here, known = every_point(model), points_of(model.cfg)
            for name in POINTS:
                shapes[name][family.name].append(known[name].shape if name in here else "")
    rows = [("hook point", "shape", "families that have it", "meaning")]
    for name, point in POINTS.items():
        shape = " or ".join(dict.fromkeys(f"[{s}]" for found in shapes[name].values() for s in found if s))
        some = [family if all(found) else f"({family})" for family, found in shapes[name].items() if any(found)]
        everywhere = all(all(found) for found in shapes[name].values())
        when = [f"with {point.needs}"] * bool(point.needs) + [request(name)] * (request(name) != "always")
        meaning = "; ".join([point.meaning, *when])
        rows.append((f"`{name}`", shape, "all" if everywhere else ", ".join(some), meaning))
    return ABOUT + "\n" + _markdown(rows)


def every_point(model: HookedViT) -> set[str]:
    """Switch on every optional hook point of a model and return all names, with `{l}` for the layer."""
    for switch in (model.set_use_attn_result, model.set_use_split_qkv_input, model.set_use_hook_mlp_in):
        switch(True)
    return {re.sub(r"^blocks\.\d+\.", "blocks.{l}.", name) for name in model.hook_dict}


def family_models(family: Family) -> Iterator[HookedViT]:
    """Generate a family's one-layer models on the meta device: every class, and options that add hook points."""
    for architecture, known in family.architectures.items():
        config_class = getattr(transformers, architecture).config_class
        for flag in (None, *(flag for flag in FLAGS if hasattr(config_class(), flag))):
            config = config_class(**{flag: True} if flag else {})
            for part in (config, getattr(config, "vision_config", None), getattr(config, "text_config", None)):
                if part is not None:
                    part.num_hidden_layers = 1
            yield _model(architecture, config, False)
            if known.zero_shot is not None:
                yield _model(architecture, config, True)


def _model(architecture: str, hf_config: Any, zero_shot: bool) -> HookedViT:
    """Build a model on the meta device, which holds shapes and no values."""
    head: dict[str, Any] = {}
    if zero_shot:
        width = getattr(hf_config, "projection_dim", None) or getattr(hf_config, "vision_config", hf_config).hidden_size
        head = {"text_embeds": torch.ones(2, width), "class_names": ["first", "second"]}
    with torch.device("meta"):
        return HookedViT.from_hf(getattr(transformers, architecture)(hf_config), **head)


def _markdown(rows: Sequence[tuple[str, ...]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in (rows[0], ("---",) * len(rows[0]), *rows[1:]))
