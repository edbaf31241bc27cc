"""Hugging Face checkpoints to HookedViTs, and back."""

from __future__ import annotations

import copy
import inspect
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers.initialization import no_init_weights

from mechvit.models.config import HookedViTConfig
from mechvit.models.devices import device_named
from mechvit.models.families import Family, find_family
from mechvit.models.hooked_vit import HookedViT
from mechvit.models.interrupts import temporary
from mechvit.models.processors.image_processor import output_size, read_image_processor
from mechvit.wrapped_models import unwrapping

from .checkpoint_config import check_counts, make_hf_config, one_line, quiet, read_config
from .checks import check_text_embeds, check_unprocessed_config
from .saving import is_hooked_vit, load_hooked_vit
from .stored_files import check_finite
from .weight_files import check_shapes, check_weights, read_weights, shapes_of


def load_pretrained(
    path_or_hub_id: str | os.PathLike[str],
    device: torch.device | str | None,
    dtype: torch.dtype | None,
    text_embeds: Tensor | None = None,
    class_names: Sequence[str] | None = None,
) -> HookedViT:
    """Load a folder or hub model; see `HookedViT.from_pretrained`."""
    if is_hooked_vit(path_or_hub_id):
        if text_embeds is not None or class_names is not None:
            raise ValueError(f"{path_or_hub_id} is a saved HookedViT and has its head already; leave text_embeds out.")
        return load_hooked_vit(path_or_hub_id, device, dtype)
    where = os.path.expanduser(os.fspath(path_or_hub_id))
    hf_model = load_hf_model(where, dtype)
    with quiet():
        image_processor = read_image_processor(where)
    model = from_hf(hf_model, image_processor, text_embeds, class_names)
    size = None if image_processor is None else output_size(image_processor)
    if size is not None:
        model.set_image_size(size)
    return model.to(device_named(device))


def load_hf_model(path_or_hub_id: str | os.PathLike[str], dtype: torch.dtype | None = None) -> Any:
    """Load a checkpoint as a model of transformers' own class, with exactly the weights of its config.

    Only config.json and safetensors files are read: nothing is unpickled, and none of the checkpoint's code is run. The
    config is compared with the files' names and shapes before anything is built.

    Raises:
        ValueError: nothing is there, the model is of an unsupported kind or damaged, or its weights are missing, left
            over, mis-shaped or not finite.
    """
    where = os.path.expanduser(os.fspath(path_or_hub_id))
    hf_config, weights, options = _open(where)
    check_finite(weights, where)
    hf_model, _ = _load_hf(getattr(transformers, hf_config.architectures[0]), hf_config, weights, dtype, **options)
    hf_model.config.name_or_path = where
    return hf_model


def read_checked_config(path_or_hub_id: str | os.PathLike[str]) -> Any:
    """Read the Hugging Face config of a checkpoint and check that its files hold exactly its weights, without reading
    them.

    Raises:
        ValueError: as `load_hf_model`, except that values are not checked.
    """
    return _open(os.path.expanduser(os.fspath(path_or_hub_id)))[0]


def _open(where: str) -> tuple[Any, dict[str, Tensor], dict[str, bool]]:
    """Read a checkpoint's config and the headers of its weight files, and check that they fit together.

    Returns:
        The config, whose one architecture is the supported class; the weights, read from disk when they are used; the
        arguments of that class that no config records.
    """
    config = read_config(where)
    check_unprocessed_config(config, where)
    family, architecture = find_family(config.get("model_type"), config.get("architectures") or [], where)
    weights = read_weights(where, family.ignored)
    check_counts(config, where, len(weights), max((max(w.shape, default=0) for w in weights.values()), default=0))
    hf_config = make_hf_config(config, architecture, where)
    hf_config.architectures = [architecture]
    return hf_config, weights, _check_fit(family, architecture, hf_config, weights, where)


def _check_fit(
    family: Family, architecture: str, hf_config: Any, weights: Mapping[str, Tensor], where: str
) -> dict[str, bool]:
    """Raise a ValueError unless the weights are exactly those of the config, by loading shapes on the meta device.

    Returns:
        The constructor's arguments that the weights imply.
    """
    shapes, options = {name: weight.to("meta") for name, weight in weights.items()}, {}
    try:
        hf_model, info = _load_shapes(architecture, hf_config, shapes)
        if info["missing_keys"] or info["unexpected_keys"]:
            names = set(hf_model.state_dict()) - info["missing_keys"] | info["unexpected_keys"]
            if options := _options(family, architecture, names):
                hf_model, info = _load_shapes(architecture, hf_config, shapes, **options)
        mismatched = {name: (tuple(found), tuple(wanted)) for name, found, wanted in info["mismatched_keys"]}
        _config(family, architecture, hf_model.config, hf_model.state_dict(), {})
    except Exception as error:  # invalid settings raise exceptions of many kinds
        raise ValueError(f"{where}: its config.json does not make a {architecture}: {one_line(error)}") from error
    check_weights(where, weights, info["missing_keys"] - set(mismatched), info["unexpected_keys"], mismatched)
    return options


@torch.no_grad()
def from_hf(
    hf_model: Any,
    image_processor: Any = None,
    text_embeds: Tensor | None = None,
    class_names: Sequence[str] | None = None,
) -> HookedViT:
    """Copy a loaded Hugging Face model; see `HookedViT.from_hf`."""
    names = [base.__name__ for base in type(hf_model).__mro__]
    if step := unwrapping(hf_model):
        raise ValueError(f"The {names[0]} wraps a model, and hooks go into the model itself: {step}.")
    if not isinstance(hf_model, torch.nn.Module):
        step = (
            f"HookedViT.from_pretrained({hf_model!r})" if isinstance(hf_model, (str, os.PathLike)) else "transformers"
        )
        raise ValueError(f"from_hf takes a loaded Hugging Face model; got a {names[0]}. Load it with {step}.")
    hf_config = getattr(hf_model, "config", None)
    family, architecture = find_family(getattr(hf_config, "model_type", None), names, f"The {names[0]}")
    theirs = hf_model.state_dict()
    classes = check_text_embeds(architecture, family, hf_config, text_embeds, class_names)
    cfg = _config(family, architecture, hf_config, theirs, classes)
    where = f"The {names[0]}"
    check_shapes(where, theirs, shapes_of(_build(family, architecture, hf_config, theirs, "meta")))
    model = HookedViT(cfg, copy.deepcopy(hf_config), image_processor)
    ours = model.state_dict()
    stored = family.stored(cfg, list(ours))
    used = {place.name for place in stored.values()}
    left = theirs.keys() - used
    unknown = {name for name in left if not family.is_carried(architecture, name)}
    check_weights(where, theirs, used - theirs.keys(), unknown, {})
    loaded = {name: stored[name].read(theirs[stored[name].name], tuple(ours[name].shape)) for name in stored}
    if text_embeds is not None:
        embeds = text_embeds.to(cfg.device, torch.promote_types(cfg.dtype, torch.float32))
        loaded["head.text_embeds"] = (embeds / embeds.norm(dim=-1, keepdim=True)).to(cfg.dtype)
    model.load_state_dict(loaded)
    model.carried.keep({name: theirs[name].clone() for name in theirs if name in left})
    return model


def to_hf(model: HookedViT) -> Any:
    """Build the Hugging Face model of a HookedViT; see `HookedViT.to_hf`."""
    family, _ = find_family(model.hf_config.model_type, [model.cfg.architecture], "The HookedViT")
    ours = model.own_state_dict()
    if model.cfg.n_classes and not (family.architectures[model.cfg.architecture].classifier or model.cfg.zero_shot):
        raise ValueError(
            f"A {model.cfg.architecture} has no classifier in transformers, and this one was given a linear head. Keep "
            "it with `save_pretrained`, or convert the encoder as it was."
        )
    stored = family.stored(model.cfg, list(ours))
    config = copy.deepcopy(model.hf_config)
    config.architectures, config.dtype = [model.cfg.architecture], model.cfg.dtype
    for field, switch in family.switches.items():
        if getattr(model.cfg, field):
            setattr(config, switch, True)
    carried = model.carried.weights()
    names = [*(place.name for place in stored.values()), *carried]
    hf_model = _build(family, model.cfg.architecture, config, names)
    shapes = shapes_of(hf_model)
    placeless = [name for name in stored if stored[name].name not in shapes]
    if placeless:
        raise ValueError(
            f"A {model.cfg.architecture} has no place for {', '.join(placeless)}, which processing "
            f"({', '.join(model.cfg.processing)}) added. Save the model with `save_pretrained`, or convert it without "
            "processing."
        )
    parts: dict[str, list[tuple[int, Tensor]]] = {}
    for name, place in stored.items():
        parts.setdefault(place.name, []).append((place.third or 0, place.write(ours[name])))
    theirs = {name: _joined(found) for name, found in parts.items()}
    theirs |= carried
    hf_model.load_state_dict({name: t.reshape(shapes[name]).clone() for name, t in theirs.items()}, assign=True)
    # Buffers that are not weights (rotary frequencies) stay in float32, as from_pretrained leaves them, or wider.
    hf_model = hf_model.eval().to(model.cfg.device)
    return hf_model.to(torch.float64) if model.cfg.dtype == torch.float64 else hf_model


def _joined(parts: list[tuple[int, Tensor]]) -> Tensor:
    """Concatenate the thirds of a packed query-key-value projection; return a single tensor unchanged."""
    ordered = [part for _, part in sorted(parts, key=lambda numbered: numbered[0])]
    return ordered[0] if len(ordered) == 1 else torch.cat(ordered)


def _build(family: Family, architecture: str, hf_config: Any, names: Collection[str], device: str = "cpu") -> Any:
    """Build an uninitialised Hugging Face model that has weights of these names."""
    options = _options(family, architecture, names)
    with _uninitialised(device):
        return getattr(transformers, architecture)(copy.deepcopy(hf_config), **options)


@temporary
def _uninitialised(device: str) -> Iterator[None]:
    """Build modules on a device without initialising their weights, with transformers silenced."""
    with torch.device(device), no_init_weights(), quiet():
        yield


def _options(family: Family, architecture: str, names: Collection[str]) -> dict[str, bool]:
    """Infer the constructor's arguments that no config records from the names of a checkpoint's weights."""
    options = {}
    if family.architectures[architecture].optional_pooler:
        options["add_pooling_layer"] = any(name.startswith("pooler.") for name in names)
    takes = inspect.signature(getattr(transformers, architecture)).parameters
    if "use_mask_token" in takes and "embeddings.mask_token" in names:
        options["use_mask_token"] = True
    return options


def _config(
    family: Family, architecture: str, hf_config: Any, theirs: Mapping[str, Tensor], zero_shot: Mapping[int, str]
) -> HookedViTConfig:
    known = family.architectures[architecture]
    vision = getattr(hf_config, "vision_config", hf_config)
    fields = {name: read(vision) for name, read in family.config.items()}
    fields |= {name: read(hf_config) for name, read in known.config.items()}
    if zero_shot:
        fields |= {name: read(hf_config) for name, read in (known.zero_shot or {}).items()}
    if known.optional_pooler and not any(name.startswith("pooler.") for name in theirs):
        fields["pooler"] = "none"
    fields |= {name: _side(name, fields[name]) for name in ("image_size", "patch_size")}
    id2label = zero_shot or (dict(hf_config.id2label) if known.classifier else {})
    dtypes = {tensor.dtype for tensor in theirs.values()}
    if len(dtypes) != 1 or not all(dtype.is_floating_point for dtype in dtypes):
        raise ValueError(
            f"The weights must be floats of one dtype, not quantised; got {', '.join(sorted(map(str, dtypes)))}. "
            "Load the model with a single float dtype."
        )
    return HookedViTConfig(
        **fields,
        family=family.name,
        architecture=architecture,
        n_classes=len(zero_shot) if zero_shot else (hf_config.num_labels if known.classifier else 0),
        id2label=id2label,
        problem_type=None if zero_shot or not known.classifier else hf_config.problem_type,
        zero_shot=bool(zero_shot),
        device=next(iter(theirs.values())).device,
        dtype=dtypes.pop(),
    )


def _side(name: str, size: Any) -> Any:
    """Return the side of a square that a config may give as a pair."""
    if not isinstance(size, (list, tuple)):
        return size
    if len(set(size)) != 1:
        raise ValueError(f"{name} must be square; got {tuple(size)}. Use a checkpoint of square images.")
    return size[0]


def _load_shapes(
    architecture: str, hf_config: Any, shapes: Mapping[str, Tensor], **options: Any
) -> tuple[Any, dict[str, Any]]:
    """Load tensors on the meta device without initialising missing weights; positions may have any size."""
    known = getattr(transformers, architecture)
    own = {"__module__": known.__module__, "initialize_weights": lambda model: None}
    return _load_hf(type(architecture, (known,), own), hf_config, shapes, None, device_map="meta", **options)


def _load_hf(
    hf_class: Any, hf_config: Any, weights: Mapping[str, Tensor], dtype: torch.dtype | None, **options: Any
) -> tuple[Any, dict[str, Any]]:
    """Build a model of transformers' class from weights under their file names or the model's own.

    Returns:
        The model, and transformers' report of missing, unexpected and mismatched weights.
    """
    with quiet():
        return hf_class.from_pretrained(
            None,
            config=hf_config,
            state_dict=dict(weights),
            dtype=dtype or "auto",
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **options,
        )
