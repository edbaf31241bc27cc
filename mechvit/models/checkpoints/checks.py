"""Checks that a HookedViT's arguments pass before anything is computed."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mechvit.models.config import HookedViTConfig
from mechvit.models.families import FAMILIES, Family

ON_REQUEST = {
    "hook_result": "set_use_attn_result(True)",
    "hook_q_input": "set_use_split_qkv_input(True)",
    "hook_k_input": "set_use_split_qkv_input(True)",
    "hook_v_input": "set_use_split_qkv_input(True)",
    "hook_mlp_in": "set_use_hook_mlp_in(True)",
}
"""Hook points that exist only after a call, because they cost memory and time, and that call."""

BEFORE_BLOCKS = ("hook_embed", "hook_pos_embed", "ln_pre")


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


def check_reached(
    targets: Iterable[Any],
    points: Collection[str],
    stop_at_layer: int | None,
    n_layers: int,
    start_at_layer: int | None = None,
) -> None:
    """Raise a ValueError for a hook that would never fire: unknown, or outside the layers that run."""
    if stop_at_layer is None and start_at_layer is None:
        return
    start, stop = layer_range(n_layers, start_at_layer, stop_at_layer)
    for name in targets:
        if not isinstance(name, str):
            continue  # a predicate may also select points that run
        check_name(name, points)
        place, _, rest = name.partition(".")
        layer = int(rest.split(".")[0]) if place == "blocks" else -1 if place in BEFORE_BLOCKS else n_layers
        if start_at_layer is not None and layer < start:
            raise ValueError(
                f"start_at_layer={start_at_layer} begins the run after {name!r}. Start earlier, or leave the name out."
            )
        if stop_at_layer is not None and layer >= stop:
            raise ValueError(
                f"stop_at_layer={stop_at_layer} ends the run before {name!r}. Stop later, or leave the name out."
            )


def layer_range(n_layers: int, start_at_layer: int | None, stop_at_layer: int | None) -> tuple[int, int]:
    """Return the first block that runs and the first that does not run any more, both 0 to n_layers."""
    start, stop, _ = slice(start_at_layer, stop_at_layer).indices(n_layers)
    return start, stop


def check_input(
    cfg: HookedViTConfig,
    given: Tensor,
    return_type: str | None,
    labels: Tensor | None,
    stop_at_layer: int | None,
    start_at_layer: int | None = None,
    *,
    incl_bwd: bool = False,
    interpolate_pos_encoding: bool = False,
    check_finite: bool = False,
) -> None:
    """Raise a ValueError unless `forward` (and backward, with `incl_bwd`) can run on these arguments."""
    if start_at_layer is None:
        check_pixels(cfg, given, interpolate_pos_encoding, check_finite)
    else:
        check_residual(cfg, given, start_at_layer, stop_at_layer, interpolate_pos_encoding, check_finite)
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
        if cfg.no_softmax is not None:
            raise ValueError(
                f"The loss needs a softmax classifier; this {cfg.architecture} is not one: {cfg.no_softmax}. Take the "
                "logits."
            )
        if labels is None:
            raise ValueError(f'return_type="{return_type}" needs labels. Pass labels=[batch] class indices.')
        check_labels(cfg, labels, len(given))


def check_labels(cfg: HookedViTConfig, labels: Any, n_images: int) -> None:
    """Raise a ValueError unless there is one valid class index per image."""
    fits = isinstance(labels, Tensor) and not labels.is_floating_point() and not labels.is_complex()
    if not fits or tuple(labels.shape) != (n_images,):
        got = f"{labels.dtype} {list(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
        raise ValueError(f"labels must be a tensor of {n_images} class indices, one per image; got {got}.")
    if n_images and not labels.is_meta and not (int(labels.min()) >= 0 and int(labels.max()) < cfg.n_classes):
        raise ValueError(
            f"labels must be classes of the model, 0 to {cfg.n_classes - 1}; got {int(labels.min())} to "
            f"{int(labels.max())}. Map them with mechvit.data.align_labels."
        )


def check_backward(model: nn.Module, given: Tensor) -> None:
    """Raise a ValueError where a backward pass would reach no parameter and no input."""
    if not torch.is_grad_enabled():
        raise ValueError(
            "incl_bwd needs gradients, and they are switched off here. Call it outside torch.no_grad and "
            "torch.inference_mode."
        )
    if not given.requires_grad and not any(weight.requires_grad for weight in model.parameters()):
        raise ValueError(
            "incl_bwd needs something that takes a gradient, and all weights of the model are frozen. Call "
            "pixels.requires_grad_() (or model.requires_grad_(True)) first."
        )


def check_pixels(cfg: HookedViTConfig, pixels: Tensor, any_size: bool, check_finite: bool) -> None:
    """Raise a ValueError unless pixels fit the model's channels and size (with `any_size`, hold at least one patch)."""
    size = cfg.image_size
    fits = isinstance(pixels, Tensor) and pixels.dim() == 4 and pixels.is_floating_point()
    fits = fits and pixels.shape[1] == cfg.n_channels
    if fits and any_size:
        fits = min(pixels.shape[2:]) >= cfg.patch_size
    elif fits and tuple(pixels.shape[2:]) != (size, size):
        raise ValueError(
            f"pixel_values must be floats [batch, {cfg.n_channels}, {size}, {size}]; got {pixels.dtype} "
            f"{list(pixels.shape)}. Use the checkpoint's image processor, or pass interpolate_pos_encoding=True."
        )
    if not fits:
        side = f"at least {cfg.patch_size}" if any_size else str(size)
        got = f"{pixels.dtype} {list(pixels.shape)}" if isinstance(pixels, Tensor) else type(pixels).__name__
        one = isinstance(pixels, Tensor) and pixels.dim() == 3 and pixels.is_floating_point()
        step = "Add the batch's dimension, as in pixels[None]." if one else "Use the checkpoint's image processor."
        raise ValueError(f"pixel_values must be floats [batch, {cfg.n_channels}, {side}, {side}]; got {got}. {step}")
    if check_finite:
        bad = [i for i, image in enumerate(pixels) if not image.isfinite().all()]
        if bad:
            raise ValueError(f"pixel_values must be finite; images {bad} of the batch are not. Leave them out.")


def check_residual(
    cfg: HookedViTConfig, resid: Tensor, start: int, stop: int | None, any_size: bool, check_finite: bool
) -> None:
    """Raise a ValueError unless a run can start at layer `start` with this residual stream."""
    n_layers = cfg.n_layers
    if not -n_layers <= start <= n_layers:
        raise ValueError(f"start_at_layer must lie within -{n_layers}..{n_layers}; got {start}.")
    first, last = layer_range(n_layers, start, stop)
    if stop is not None and -n_layers <= stop <= n_layers and last < first:
        raise ValueError(f"stop_at_layer must not lie before start_at_layer; got {stop} and {start}. Stop later.")
    if any_size:
        raise ValueError(
            "interpolate_pos_encoding is for pixels, whose shape gives the grid of patches; start_at_layer takes a "
            "residual stream. Call model.set_image_size and leave interpolate_pos_encoding out."
        )
    shape = tuple(resid.shape) if isinstance(resid, Tensor) and resid.is_floating_point() else ()
    if len(shape) != 3 or shape[1:] != (cfg.n_tokens, cfg.d_model):
        got = f"{resid.dtype} {list(resid.shape)}" if isinstance(resid, Tensor) else type(resid).__name__
        raise ValueError(
            f"start_at_layer={start} takes the residual stream there, floats [batch, {cfg.n_tokens}, {cfg.d_model}]; "
            f"got {got}. Pass what stop_at_layer={start} returns."
        )
    if check_finite and not bool(resid.isfinite().all()):
        bad = [i for i, image in enumerate(resid) if not image.isfinite().all()]
        raise ValueError(f"The residual stream must be finite; images {bad} of the batch are not. Leave them out.")


def check_text_embeds(
    architecture: str, family: Family, hf_config: Any, text_embeds: Tensor | None, class_names: Sequence[str] | None
) -> dict[int, str]:
    """Return the classes of a zero-shot head, index -> name (empty without embeddings).

    Raises:
        ValueError: the embeddings or names do not fit the checkpoint.
    """
    if text_embeds is None and class_names is None:
        return {}
    if family.architectures[architecture].zero_shot is None:
        known = [n for f in FAMILIES.values() for n, a in f.architectures.items() if a.zero_shot is not None]
        raise ValueError(f"text_embeds are for {', '.join(known)}; this is a {architecture}. Leave them out.")
    if text_embeds is None or class_names is None:
        raise ValueError("A zero-shot head needs both text_embeds [class, projection] and class_names, one name each.")
    width = getattr(hf_config, "projection_dim", None) or hf_config.vision_config.hidden_size
    if isinstance(class_names, str) or not all(isinstance(name, str) for name in class_names):
        raise ValueError(f"class_names must be a list of names, one per class; got {class_names!r}.")
    if not isinstance(text_embeds, Tensor):
        raise ValueError(f"text_embeds must be a tensor [class, {width}]; got a {type(text_embeds).__name__}.")
    shape, names = tuple(text_embeds.shape), list(class_names)
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        places = ", ".join(str(i) for i, name in enumerate(names) if name == twice[0])
        raise ValueError(
            f"A zero-shot head needs different class_names; {twice[0]!r} stands at {places}. Rename these."
        )
    if shape != (len(names), width) or not names:
        raise ValueError(
            f"text_embeds must be [{len(names)}, {width}], one row for each of the class_names; got "
            f"{list(shape)}. Take them from the checkpoint's own text tower."
        )
    if not (text_embeds.isfinite().all() and (text_embeds != 0).any(-1).all()):
        raise ValueError("text_embeds must be finite and none of them zero.")
    return dict(enumerate(names))


def check_unprocessed_config(config: Mapping[str, Any], where: str) -> None:
    """Raise a ValueError for a checkpoint whose config asks for quantised weights or code of its own."""
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "unknown")
        raise ValueError(
            f"{where}: its weights are quantised ({method}), which hooks cannot see through. "
            "Load the checkpoint that it was made from, or dequantise and save it."
        )
    known = {n for f in FAMILIES.values() if config.get("model_type") in f.model_types for n in f.architectures}
    if config.get("auto_map") and not known & set(config.get("architectures") or []):  # known classes need no such code
        raise ValueError(
            f"{where}: it needs code of its own ({', '.join(sorted(config['auto_map']))}), which is never run. "
            "Use a checkpoint of a class that transformers has."
        )


def check_head_tokens(cfg: HookedViTConfig, resid: Tensor) -> None:
    """Raise a ValueError unless a residual stream holds exactly the tokens that the head reads."""
    wanted = {"cls": 1, "cls+distillation": 2}.get(cfg.pooling)
    enough = resid.dim() == 3 and (resid.shape[1] == wanted if wanted else resid.shape[1] > 0)
    if not enough or resid.shape[2] != cfg.d_model:
        raise ValueError(
            f"resid must be [batch, {wanted or 'token'}, d_model], at the head's tokens; got {list(resid.shape)}. "
            "Pass resid[:, model.head_tokens]."
        )


def no_head(cfg: HookedViTConfig) -> str:
    """Return the error text for a model without classes."""
    return f"This {cfg.architecture} has no classification head. Load a checkpoint that has one."


def check_one_dtype(configs: Mapping[str, HookedViTConfig]) -> None:
    """Raise a ValueError where models to be compared (name -> config) compute in different dtypes."""
    (first, cfg), *others = configs.items()
    for name, other in others:
        if other.dtype != cfg.dtype:
            raise ValueError(
                f"Models that are compared must compute in the same dtype and so round alike; {first} computes in "
                f"{cfg.dtype} and {name} in {other.dtype}. Load both with dtype=torch.float32."
            )
