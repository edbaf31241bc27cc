"""HookedViTs as folders of safetensors and JSON, for models that are no longer plain Hugging Face checkpoints."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import torch

from mechvit.files import library_writes, new_folder, write_tensors, write_text
from mechvit.models.config import HookedViTConfig
from mechvit.models.devices import device_named
from mechvit.models.families import find_family
from mechvit.models.hooked_vit import HookedViT
from mechvit.models.processors.image_processor import read_image_processor

from .checkpoint_config import MOST_LABELS, check_counts, make_hf_config, one_line
from .stored_files import check_finite, read_object, read_tensors
from .weight_files import check_shapes, shapes_of

CONFIG_FILE, WEIGHTS_FILE = "hooked_vit.json", "hooked_vit.safetensors"


def is_hooked_vit(folder: str | os.PathLike[str]) -> bool:
    """Return whether a folder was written by `save_hooked_vit`."""
    return (Path(folder).expanduser() / CONFIG_FILE).is_file()


def save_hooked_vit(model: HookedViT, folder: str | os.PathLike[str]) -> None:
    """Write the weights unchanged, both configs and the image processor; see `HookedViT.save_pretrained`.

    Everything is written beside the folder and renamed into it.

    Raises:
        FileExistsError: the folder exists and holds something other than a saved HookedViT.
    """
    try:
        with new_folder(folder, "hooked model", overwrite=True) as new:
            _write(model, new)
    except ValueError as error:
        raise FileExistsError(str(error)) from error


def _write(model: HookedViT, folder: Path) -> None:
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    write_tensors(folder / WEIGHTS_FILE, weights, metadata={"format": "pt"})
    hf_config = model.hf_config.to_dict() | {"model_type": model.hf_config.model_type}
    about = {"hooked_vit": _to_json(model.cfg), "hugging_face": hf_config}
    write_text(folder / CONFIG_FILE, json.dumps(about, indent=2, default=str) + "\n")
    if model.image_processor is not None:
        with library_writes(folder):
            model.image_processor.save_pretrained(folder)


def load_hooked_vit(
    folder: str | os.PathLike[str], device: torch.device | str | None, dtype: torch.dtype | None
) -> HookedViT:
    """Load a folder that `save_hooked_vit` wrote.

    Raises:
        ValueError: a file is missing or damaged, or weights are missing, left over or mis-shaped.
    """
    place = Path(folder).expanduser()
    weights = read_tensors(place / WEIGHTS_FILE)
    about = read_object(place / CONFIG_FILE, ("hooked_vit", "hugging_face"))
    try:
        cfg, hf_config = _from_json(about["hooked_vit"]), dict(about["hugging_face"])
        counted = {"hooked_vit": {"num_hidden_layers": cfg.n_layers}, **hf_config}
        check_counts(counted, str(place), len(weights), MOST_LABELS)
        family, _ = find_family(hf_config["model_type"], [cfg.architecture], str(place))
        if family.name != cfg.family:
            raise ValueError(f"a {cfg.architecture} is of the family {family.name}; got {cfg.family!r}")
        config = make_hf_config(hf_config, cfg.architecture, str(place))
        with torch.device("meta"):
            shapes = shapes_of(HookedViT(dataclasses.replace(cfg, device=torch.device("meta")), config))
    except Exception as error:  # damaged files raise exceptions of many kinds
        raise ValueError(
            f"{place / CONFIG_FILE} must describe a complete saved HookedViT: {one_line(error)} Save it again."
        ) from error
    carried = {name.removeprefix("carried."): t for name, t in weights.items() if name.startswith("carried.")}
    own = {name: weight for name, weight in weights.items() if not name.startswith("carried.")}
    check_shapes(str(place), own, shapes)
    check_finite(weights, place)
    model = HookedViT(cfg, config, read_image_processor(place))
    model.carried.keep(carried)
    model.load_state_dict(weights)
    return model.to(device_named(device), dtype)


def _to_json(cfg: HookedViTConfig) -> dict[str, Any]:
    fields = {field.name: getattr(cfg, field.name) for field in dataclasses.fields(cfg)}
    return fields | {"device": str(cfg.device), "dtype": str(cfg.dtype).removeprefix("torch.")}


def _from_json(fields: dict[str, Any]) -> HookedViTConfig:
    fields = fields | {
        "id2label": {int(index): name for index, name in fields["id2label"].items()},
        "processing": tuple(fields["processing"]),
        "device": torch.device("cpu"),
        "dtype": getattr(torch, fields["dtype"]),
    }
    return HookedViTConfig(**fields)
