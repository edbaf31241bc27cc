"""Errors that a HookedViT raises before it computes anything."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable
from typing import Any

from torch import Tensor

from .config import HookedViTConfig

ON_REQUEST = {
    "hook_result": "set_use_attn_result(True)",
    "hook_q_input": "set_use_split_qkv_input(True)",
    "hook_k_input": "set_use_split_qkv_input(True)",
    "hook_v_input": "set_use_split_qkv_input(True)",
    "hook_mlp_in": "set_use_hook_mlp_in(True)",
}
"""Hook points that exist only after a call, because they cost memory and time."""


def check_target(target: str | Callable[[str], bool], points: Collection[str]) -> None:
    """Raise a ValueError unless a hook's target, a name or a predicate, selects a hook point."""
    if isinstance(target, str):
        check_name(target, points)
    elif not any(map(target, points)):
        raise ValueError("The filter selects no hook point, so the hook would do nothing; see model.hook_dict.")


def check_name(name: str, points: Collection[str]) -> None:
    """Raise a ValueError with the nearest name, or the call that makes the point, unless `name` is a hook point."""
    if name in points:
        return
    request = ON_REQUEST.get(name.rsplit(".", 1)[-1])
    if request is not None:
        raise ValueError(f"The hook point {name!r} exists on request only. Call model.{request} first.")
    near = difflib.get_close_matches(name, points, n=1, cutoff=0.0)
    raise ValueError(f"There is no hook point {name!r}. Did you mean {near[0]!r}? All are in model.hook_dict.")


def check_reached(targets: Iterable[Any], points: Collection[str], stop_at_layer: int | None, n_layers: int) -> None:
    """Raise a ValueError where a hook's target is a name beyond `stop_at_layer`, or unknown: it would never fire."""
    if stop_at_layer is None:
        return
    stop = stop_at_layer + n_layers if stop_at_layer < 0 else stop_at_layer
    for name in targets:
        if not isinstance(name, str):
            continue  # a predicate may select points on both sides
        check_name(name, points)
        place, _, rest = name.partition(".")
        beyond = int(rest.split(".")[0]) >= stop if place == "blocks" else place not in ("hook_embed", "hook_pos_embed")
        if beyond:
            raise ValueError(
                f"stop_at_layer={stop_at_layer} ends the run before {name!r}. Stop later, or leave the name out."
            )


def check_input(
    cfg: HookedViTConfig,
    pixels: Tensor,
    return_type: str | None,
    labels: Tensor | None,
    stop_at_layer: int | None,
    incl_bwd: bool = False,
) -> None:
    """Raise a ValueError unless `forward` (and backward, with `incl_bwd`) can run on these arguments."""
    expected = (cfg.n_channels, cfg.image_size, cfg.image_size)
    if pixels.dim() != 4 or tuple(pixels.shape[1:]) != expected or not pixels.is_floating_point():
        raise ValueError(
            f"pixel_values must be floats [batch, {', '.join(map(str, expected))}]; got {pixels.dtype} "
            f"{list(pixels.shape)}. Use the checkpoint's image processor."
        )
    if return_type not in ("logits", "loss", "both", None):
        raise ValueError(f'return_type must be "logits", "loss", "both" or None; got {return_type!r}.')
    if incl_bwd and (return_type != "loss" or stop_at_layer is not None):
        raise ValueError(f'incl_bwd needs return_type="loss" and no stop; got {return_type!r} and {stop_at_layer}.')
    if stop_at_layer is not None:
        if not -cfg.n_layers <= stop_at_layer <= cfg.n_layers:
            raise ValueError(f"stop_at_layer must lie within -{cfg.n_layers}..{cfg.n_layers}; got {stop_at_layer}.")
    elif return_type in ("loss", "both"):
        if not cfg.n_classes:
            raise ValueError(no_head(cfg))
        if labels is None:
            raise ValueError(f'return_type="{return_type}" needs labels. Pass labels=[batch] class indices.')


def check_head_tokens(resid: Tensor) -> None:
    """Raise a ValueError unless a residual stream holds the head's tokens and no others."""
    if resid.dim() != 3 or resid.shape[1] != 1:
        raise ValueError(
            f"resid must be [batch, 1, d_model], at the head's tokens; got {list(resid.shape)}. "
            "Pass resid[:, model.head_tokens]."
        )


def no_head(cfg: HookedViTConfig) -> str:
    """Say that a bare encoder has no classes."""
    return f"This {cfg.architecture} has no classification head. Load a checkpoint that has one."
