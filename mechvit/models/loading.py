"""Hugging Face checkpoint -> HookedViT, and back."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor

from .config import HookedViTConfig
from .families import Family, find_family
from .hooked_vit import HookedViT


def load_pretrained(
    path_or_hub_id: str | os.PathLike[str], device: torch.device | str | None, dtype: torch.dtype | None
) -> HookedViT:
    """Load a folder or a hub model; see `HookedViT.from_pretrained`."""
    where = os.path.expanduser(os.fspath(path_or_hub_id))
    config = _read_config(where)
    family, architecture = find_family(config.get("model_type"), config.get("architectures") or [], where)
    with _quiet():
        try:
            hf_model, info = getattr(transformers, architecture).from_pretrained(
                where,
                dtype=dtype or "auto",
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
        except (OSError, SafetensorError) as error:
            raise ValueError(
                f"{where} must hold its weights as whole safetensors files: {error} Save them with `save_pretrained`."
            ) from error
        image_processor = _read_image_processor(where)
    mismatched = {name: (tuple(found), tuple(wanted)) for name, found, wanted in info["mismatched_keys"]}
    missing = info["missing_keys"] - set(mismatched)
    if missing and missing == family.pooler_names(architecture):
        hf_model.pooler, missing = None, set()  # no config says that a checkpoint has no pooler; its weights do
    _check_weights(where, missing, info["unexpected_keys"], mismatched)
    model = from_hf(hf_model, image_processor)
    return model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def from_hf(hf_model: Any, image_processor: Any = None) -> HookedViT:
    """Copy a loaded Hugging Face model; see `HookedViT.from_hf`."""
    names = [base.__name__ for base in type(hf_model).__mro__]
    model_type = getattr(getattr(hf_model, "config", None), "model_type", None)
    family, architecture = find_family(model_type, names, f"The {names[0]}")
    theirs = hf_model.state_dict()
    model = HookedViT(_config(family, architecture, hf_model, theirs), copy.deepcopy(hf_model.config), image_processor)
    ours = model.state_dict()
    table = family.weight_names(architecture, list(ours))
    expected = {table[name]: tuple(tensor.shape) for name, tensor in ours.items()}
    mismatched = {
        name: (tuple(theirs[name].shape), shape)
        for name, shape in expected.items()
        if name in theirs and theirs[name].shape != shape
    }
    _check_weights(f"The {names[0]}", expected.keys() - theirs, theirs.keys() - expected, mismatched)
    model.load_state_dict({name: theirs[table[name]] for name in ours})
    return model


def to_hf(model: HookedViT) -> Any:
    """Build the Hugging Face model of a HookedViT; see `HookedViT.to_hf`."""
    family, architecture = find_family(model.cfg.family, [model.cfg.architecture], "The HookedViT")
    ours = model.state_dict()
    table = family.weight_names(architecture, list(ours))
    config = copy.deepcopy(model.hf_config)
    config.architectures, config.dtype = [architecture], model.cfg.dtype
    lacks_pooler = bool(family.pooler_names(architecture)) and model.pooler is None
    bare = {"add_pooling_layer": False} if lacks_pooler else {}
    with torch.device("meta"):
        hf_model = getattr(transformers, architecture)(config, **bare)
    hf_model.load_state_dict({table[name]: tensor.clone() for name, tensor in ours.items()}, assign=True)
    return hf_model.eval()


def _config(family: Family, architecture: str, hf_model: Any, theirs: Mapping[str, Tensor]) -> HookedViTConfig:
    hf_config = hf_model.config
    fields = {name: read(hf_config) for name, read in family.config.items()}
    head = family.architectures[architecture]
    classes = hf_config.num_labels if "head.weight" in head else 0
    pooler = family.pooler_names(architecture)
    if not (pooler and pooler <= theirs.keys()):
        fields["pooler_size"] = 0
    dtypes = {tensor.dtype for tensor in theirs.values()}
    if len(dtypes) != 1 or not all(dtype.is_floating_point for dtype in dtypes):
        raise ValueError(
            f"The weights must be floats of one dtype, not quantised; got {', '.join(sorted(map(str, dtypes)))}. "
            "Load the model with a single float dtype."
        )
    device = next(iter(theirs.values())).device
    return HookedViTConfig(
        **fields,
        family=family.model_type,
        architecture=architecture,
        n_classes=classes,
        id2label=dict(hf_config.id2label) if classes else {},
        device=device,
        dtype=dtypes.pop(),
    )


def _check_weights(
    where: str, missing: Any, extra: Any, mismatched: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
) -> None:
    faults = [f"missing {name}" for name in sorted(missing)] + [f"left over {name}" for name in sorted(extra)]
    faults += [f"{name} is {found}, must be {wanted}" for name, (found, wanted) in sorted(mismatched.items())]
    if faults:
        raise ValueError(
            f"{where}: the weights must be exactly those of its config; {'; '.join(faults)}. "
            "Correct the config, or save the model again."
        )


def _read_config(where: str) -> dict[str, Any]:
    looks_local = Path(where).exists() or where.startswith((".", os.sep)) or where.count("/") > 1
    if looks_local and not (Path(where) / "config.json").is_file():
        found = "a folder without one" if Path(where).is_dir() else "no such folder"
        raise ValueError(
            f"{where} must be a folder with a config.json, as `save_pretrained` writes it; got {found}. "
            "Pass the checkpoint's folder, or a hub id such as google/vit-base-patch16-224."
        )
    with _quiet():
        try:
            return transformers.PreTrainedConfig.get_config_dict(where)[0]
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"{where} must be a folder with a config.json or a model on the Hugging Face hub; it could not be "
                f"read: {reason} Check the name and the connection (and log in, if it is gated)."
            ) from error


def _read_image_processor(where: str) -> Any:
    """Load the checkpoint's image processor (PIL and numpy, no torchvision); None where it has none."""
    name = "preprocessor_config.json"
    if transformers.utils.cached_file(where, name, _raise_exceptions_for_missing_entries=False) is None:
        return None
    return transformers.AutoImageProcessor.from_pretrained(where, backend="pil")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' log and progress bar; what matters is raised here."""
    log = transformers.utils.logging
    verbosity, bar = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bar:
            log.enable_progress_bar()
