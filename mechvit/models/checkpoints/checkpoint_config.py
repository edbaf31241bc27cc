"""Reading a checkpoint's config.json. No code that a checkpoint brings is ever run."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

from mechvit.files.reading import read_json
from mechvit.models.families import find_family
from mechvit.models.interrupts import temporary
from mechvit.terminal import printable

from .checks import check_unprocessed_config
from .config_values import check_values
from .revisions import hub_revision
from .stored_files import invalid

UNUSED = (
    "auto_map",
    "attn_implementation",
    "experts_implementation",
    "kernel_config",
    "use_kernels",
    "return_dict",
    "use_return_dict",
    "output_attentions",
    "output_hidden_states",
    "tie_last_hidden_states",
    "torchscript",
    "use_bfloat16",
    "use_cache",
    "chunk_size_feed_forward",
)
"""Settings without effect on the computation: they name code, or the form of transformers' outputs."""
POINTERS = {
    "configuration_files": "other configs",
    "transformers_weights": "other files of weights",
    "base_model_name_or_path": "another checkpoint",
    "fusion_config": "layers that are made anew",
}
"""Settings that refer to other configs, weights or layers, so that this config alone does not define the model."""


PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")
"""Values of `problem_type` that transformers writes."""
MOST_LAYERS, MOST_LABELS = 1000, 1_000_000
"""Upper bounds on a config's layers and labels where there are no weights to compare it with."""
MOST_WIDTH = 1_000_000
"""Width above which even shapes without weights take much memory (DINOv3's rotary angles)."""


def read_hf_config(path_or_hub_id: str | os.PathLike[str]) -> Any:
    """Read the Hugging Face config of a supported checkpoint, without its weights.

    Raises:
        ValueError: nothing is there, the model is not of a supported kind, or its config.json is damaged or invalid.
    """
    where = os.path.expanduser(os.fspath(path_or_hub_id))
    config = read_config(where)
    check_unprocessed_config(config, where)
    check_counts(config, where, MOST_LAYERS, MOST_LABELS)
    _, architecture = find_family(config.get("model_type"), config.get("architectures") or [], where)
    return make_hf_config(config, architecture, where)


def read_config(where: str) -> dict[str, Any]:
    """Read a checkpoint's config.json, from a folder or the hub, and check its structure."""
    if (Path(where) / "adapter_config.json").is_file():
        both = " beside a model" if (Path(where) / "config.json").is_file() else ""
        raise ValueError(
            f"{where} holds a PEFT adapter{both}, not a whole model. Load it with peft, merge it into its base with "
            "merge_and_unload(), and save what that returns, with its image processor, in a folder of its own."
        )
    looks_local = Path(where).exists() or where.startswith((".", os.sep)) or where.count("/") > 1
    if looks_local and not (Path(where) / "config.json").is_file():
        found = (
            "a folder without one" if Path(where).is_dir() else "a file" if Path(where).exists() else "no such folder"
        )
        raise ValueError(
            f"{where} must be a folder with a config.json, as `save_pretrained` writes it; got {found}. "
            "Pass the checkpoint's folder, or a hub id such as google/vit-base-patch16-224."
        )
    try:
        with quiet():
            path = Path(transformers.utils.cached_file(where, "config.json", revision=hub_revision(where)) or where)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{where} must be a folder with a config.json or a model on the Hugging Face hub; its config.json could "
            f"not be found: {one_line(error)} Check the name and the connection (and log in, if it is gated)."
        ) from error
    config = read_settings(path, where)
    _check_form(config, where)
    return dict(config)


def read_settings(path: Path, where: str) -> Any:
    """Read a JSON file of a checkpoint.

    Raises:
        ValueError: the file is damaged or cannot be read; names it and the checkpoint (`where`).
    """
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        named = str(error) if where in str(error) else f"{where}: {error}"
        raise ValueError(" ".join(named.split())) from error


def check_counts(config: Mapping[str, Any], where: str, layers: int, labels: int) -> None:
    """Refuse a config that asks for more layers or labels than the weights allow, before any module is built.

    Args:
        config: as `read_config` returns it; nested configs are checked too.
        where: the checkpoint, for errors.
        layers: upper bound on the layers: the number of weights, since each layer has at least one.
        labels: upper bound on the labels: the largest dimension of any weight, since a head has one row per label.

    Raises:
        ValueError: names the setting and the checkpoint.
    """
    for name, value in config.items():
        if isinstance(value, dict):
            check_counts(value, where, layers, labels)
        counted = {"num_labels": labels, "_num_labels": labels, "hidden_size": MOST_WIDTH}
        bound = layers if name.endswith("num_hidden_layers") else counted.get(name)
        if bound is not None and isinstance(value, int | float) and not value <= bound:
            raise ValueError(
                f"{where}: its config.json has {name} {value}, and its weights can be those of {bound} at most. "
                "Correct the config, or copy the weights again."
            )


def make_hf_config(config: Mapping[str, Any], architecture: str, where: str) -> Any:
    """Build the Hugging Face config of one of transformers' classes from what `read_config` returned.

    Raises:
        ValueError: a setting is missing, of another type, or of a value that the class refuses.
    """
    check_values(config, where)
    config_class = getattr(transformers, architecture).config_class
    own = config.get(config_class.base_config_key) if config_class.base_config_key else None
    settings = copy.deepcopy(dict(config if own is None else own))  # the vision tower's part of a two-tower config
    for part in (settings, settings.get("vision_config"), settings.get("text_config")):
        if isinstance(part, dict):
            for name in [name for name in part if name in UNUSED or name.startswith("_")]:
                del part[name]
            if methods := [name for name in part if callable(getattr(config_class, name, None))]:
                raise ValueError(
                    f"{where}: its config.json sets {', '.join(methods)}, which is not a setting. Remove it."
                )
    try:
        with quiet():
            found = config_class(**settings)
    except Exception as error:  # invalid settings raise exceptions of many kinds
        raise ValueError(
            f"{where}: its config.json does not make a {config_class.__name__}: {one_line(error)} Correct the setting."
        ) from error
    if not isinstance(found.dtype, torch.dtype | None):
        raise ValueError(f"{where}: its config.json has an invalid dtype: {config.get('dtype')!r}. Correct it.")
    found.name_or_path = where
    found._commit_hash = hub_revision(where)
    return found


def _check_form(config: Any, where: str) -> None:
    """Raise a ValueError unless a config has the structure that all later checks rely on."""
    if not isinstance(config, dict):
        raise ValueError(
            f"{where}: its config.json must hold settings by name, as `save_pretrained` writes them; it holds a "
            f"{type(config).__name__}. Save the model's config again."
        )
    classes = config.get("architectures")
    if not isinstance(config.get("model_type"), str | None):
        raise invalid(where, "model_type", "be a word", config["model_type"])
    if classes is not None and not (isinstance(classes, list) and all(isinstance(name, str) for name in classes)):
        raise invalid(where, "architectures", "be a list of names", classes)
    for name in ("auto_map", "quantization_config", "vision_config", "text_config", "id2label", "label2id"):
        if not isinstance(config.get(name), dict | None):
            raise invalid(where, name, "hold settings by name", config[name])
    _check_labels(config, where)
    for name, meaning in POINTERS.items():
        if config.get(name):
            raise ValueError(
                f"{where}: its config.json names {meaning} ({name}), which are not followed. Load the checkpoint with "
                "transformers and save it with `save_pretrained`."
            )


def _check_labels(config: Mapping[str, Any], where: str) -> None:
    """Raise a ValueError for invalid settings of the classes that transformers would accept unchecked."""
    kind, count, names = (config.get(name) for name in ("problem_type", "num_labels", "id2label"))
    if kind is not None and kind not in PROBLEM_TYPES:
        raise invalid(where, "problem_type", f"be {', '.join(PROBLEM_TYPES)} or null", kind)
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 0):
        raise invalid(where, "num_labels", "be the number of classes", count)
    must = 'name the classes by index, as in {"0": "cat"}'
    if "id2label" in config and names is None and count is None:
        raise invalid(where, "id2label", f"{must}, or be left out of two classes without names", None)
    for index, name in (names or {}).items():
        if not index.isdecimal() or isinstance(name, bool) or not isinstance(name, str | int | float):
            raise invalid(where, "id2label", must, {index: name})


def one_line(error: BaseException, longest: int = 300) -> str:
    """Return an error's text as one line that ends in a full stop, cut to `longest` characters."""
    text = printable(" ".join(str(error).split())) or type(error).__name__
    text = text if len(text) <= longest else f"{text[:longest]} ..."
    return text if text.endswith(".") else f"{text}."


@temporary
def quiet() -> Iterator[None]:
    """Silence transformers' log and progress bars; real faults are raised by the callers."""
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
