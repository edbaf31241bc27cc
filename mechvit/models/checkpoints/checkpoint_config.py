"""A checkpoint's config.json: the one place that reads it. No code that a checkpoint brings is ever run."""

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
"""Settings that name code, on the hub or beside the config, or that shape what transformers returns and in which
pieces: they change nothing of what is computed."""
POINTERS = {
    "configuration_files": "other configs",
    "transformers_weights": "other files of weights",
    "base_model_name_or_path": "another checkpoint",
    "fusion_config": "layers that are made anew",
}
"""Settings by which a config would not say itself what the model is."""


PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")
"""What transformers writes for the kind of a head."""
MOST_LAYERS, MOST_LABELS = 1000, 1_000_000
"""What a config may ask for where there are no weights to compare it with."""
MOST_WIDTH = 1_000_000
"""A width above which shapes alone, without weights, already take memory (DINOv3's rotary angles)."""


def read_hf_config(path_or_hub_id: str | os.PathLike[str]) -> Any:
    """Read the Hugging Face config of a supported checkpoint, without its weights.

    Raises:
        ValueError: nothing is there, it is of another kind, or its config.json is damaged or makes no config.
    """
    where = os.path.expanduser(os.fspath(path_or_hub_id))
    config = read_config(where)
    check_unprocessed_config(config, where)
    check_counts(config, where, MOST_LAYERS, MOST_LABELS)
    _, architecture = find_family(config.get("model_type"), config.get("architectures") or [], where)
    return make_hf_config(config, architecture, where)


def read_config(where: str) -> dict[str, Any]:
    """Read a checkpoint's config.json, of a folder or of the hub, as a dict whose kind and class are words."""
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
        ValueError: it is damaged or cannot be read; names the checkpoint and the file.
    """
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        named = str(error) if where in str(error) else f"{where}: {error}"
        raise ValueError(" ".join(named.split())) from error


def check_counts(config: Mapping[str, Any], where: str, layers: int, labels: int) -> None:
    """Raise a ValueError for a config that asks for more layers or labels than there can be, before they are made.

    Args:
        config: what `read_config` found; the parts of it that are configs, too, are looked at alike.
        where: whose it is.
        layers: a bound on the layers: the number of weights in the files, for each layer has one at least.
        labels: a bound on the labels: the longest dimension of any weight, for a head has a row for each.
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
    """Make the Hugging Face config of one of transformers' own classes out of what `read_config` found.

    Raises:
        ValueError: a setting is missing, of another type, or of a value that the class refuses.
    """
    check_values(config, where)
    config_class = getattr(transformers, architecture).config_class
    own = config.get(config_class.base_config_key) if config_class.base_config_key else None
    settings = copy.deepcopy(dict(config if own is None else own))  # a tower's own part of the config of two
    for part in (settings, settings.get("vision_config"), settings.get("text_config")):
        if isinstance(part, dict):
            for name in [name for name in part if name in UNUSED or name.startswith("_")]:
                del part[name]
            if methods := [name for name in part if callable(getattr(config_class, name, None))]:
                raise ValueError(f"{where}: its config.json sets {', '.join(methods)}, which is no setting. Remove it.")
    try:
        with quiet():
            found = config_class(**settings)
    except Exception as error:  # a setting of the wrong kind raises almost anything
        raise ValueError(
            f"{where}: its config.json does not make a {config_class.__name__}: {one_line(error)} Correct the setting."
        ) from error
    if not isinstance(found.dtype, torch.dtype | None):
        raise ValueError(f"{where}: its config.json has a dtype that is none: {config.get('dtype')!r}. Correct it.")
    found.name_or_path = where
    found._commit_hash = hub_revision(where)
    return found


def _check_form(config: Any, where: str) -> None:
    """Raise a ValueError unless a config has the form that every other check relies on."""
    if not isinstance(config, dict):
        raise ValueError(
            f"{where}: its config.json must hold settings by name, as `save_pretrained` writes them; it holds a "
            f"{type(config).__name__}. Save the model's config again."
        )
    classes = config.get("architectures")
    if not isinstance(config.get("model_type"), str | None):
        raise ValueError(f"{where}: model_type of its config.json must be a word; got {config['model_type']!r}.")
    if classes is not None and not (isinstance(classes, list) and all(isinstance(name, str) for name in classes)):
        raise ValueError(f"{where}: architectures of its config.json must be a list of names; got {classes!r}.")
    for name in ("auto_map", "quantization_config", "vision_config", "text_config", "id2label", "label2id"):
        if not isinstance(config.get(name), dict | None):
            raise ValueError(f"{where}: {name} of its config.json must hold settings by name; got {config[name]!r}.")
    _check_labels(config, where)
    for name, meaning in POINTERS.items():
        if config.get(name):
            raise ValueError(
                f"{where}: its config.json names {meaning} ({name}), which are not followed. Load the checkpoint with "
                "transformers and save it with `save_pretrained`."
            )


def _check_labels(config: Mapping[str, Any], where: str) -> None:
    """Raise a ValueError for settings of the classes that transformers takes whatever they are."""
    kind, count, names = (config.get(name) for name in ("problem_type", "num_labels", "id2label"))
    if kind is not None and kind not in PROBLEM_TYPES:
        raise ValueError(
            f"{where}: problem_type of its config.json must be {', '.join(PROBLEM_TYPES)} or null; got "
            f"{kind!r}. Correct the setting."
        )
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 0):
        raise ValueError(
            f"{where}: num_labels of its config.json must be the number of classes; got {count!r}. Correct the setting."
        )
    if "id2label" in config and names is None and count is None:
        raise ValueError(
            f'{where}: id2label of its config.json must name the classes by index, as in {{"0": "cat"}}; got null. '
            "Correct the setting, or leave it out of two classes without names."
        )
    for index, name in (names or {}).items():
        if not index.isdecimal() or isinstance(name, bool) or not isinstance(name, str | int | float):
            raise ValueError(
                f'{where}: id2label of its config.json must name the classes by index, as in {{"0": "cat"}}; got '
                f"{{{index!r}: {name!r}}}. Correct the setting."
            )


def one_line(error: BaseException, longest: int = 300) -> str:
    """Give what an error says on one line that ends in a full stop, cut where it is long."""
    text = printable(" ".join(str(error).split())) or type(error).__name__
    text = text if len(text) <= longest else f"{text[:longest]} ..."
    return text if text.endswith(".") else f"{text}."


@temporary
def quiet() -> Iterator[None]:
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
