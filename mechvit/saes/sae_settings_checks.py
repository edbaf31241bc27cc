"""Checks of the settings in a published SAE's `cfg.json`: each known, of the right type and within its range.

sae-lens itself accepts a string in place of a boolean or a number, and silently drops unknown settings: the SAE would
compute something else than its file says.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

OWN = ("architecture", "metadata", "sae_lens_version")
"""Entries besides the settings of the architecture."""
OLD = (
    "activation_fn",
    "activation_fn_kwargs",
    "activation_fn_str",
    "dataset_trust_remote_code",
    "finetuning_scaling_factor",
    "hook_layer",
    "hook_layer_out",
    "hook_point",
    "hook_point_head_index",
    "hook_point_layer",
)
"""Further settings written by sae-lens before its version 6, when there was no `metadata`."""
TOKENS = ("all", "patches", "cls")
NUMBERS = ("k", "lr")
"""Entries of the metadata that a table of SAEs shows as numbers."""


def is_old(path: Path, config: Mapping[str, Any]) -> bool:
    """Return whether sae-lens reads a configuration as one from before its version 6.

    Raises:
        ValueError: the version cannot be parsed, or `metadata` would be dropped for lack of one; names the file.
    """
    about = config.get("metadata", {})
    version = config.get("sae_lens_version") or about.get("sae_lens_version")
    try:
        old = version is None or Version(version) < Version("6.0.0rc0")
    except (InvalidVersion, TypeError) as error:
        raise ValueError(f"{path}: sae_lens_version must be a version, as in 6.0.0; got {version!r}") from error
    if old and about:
        raise ValueError(
            f"{path}: metadata must name the version of sae-lens, 6 or later, in sae_lens_version; got {version!r}, by "
            "which sae-lens leaves the metadata out"
        )
    return old


def check_metadata(path: Path, config: Mapping[str, Any]) -> None:
    """Refuse metadata that are no object, or whose entries have the wrong type or value.

    Raises:
        ValueError: names the file, the setting and its value.
    """
    about = config.get("metadata", {})
    if not isinstance(about, dict):
        raise ValueError(f"{path}: metadata must be a JSON object; got {type(about).__name__}")
    for name in ("hook_name", "hook_name_out"):
        if not isinstance(about.get(name), (str, types.NoneType)):
            raise ValueError(f"{path}: metadata.{name} must name a hook point; got {about[name]!r}")
    if about.get("hook_tokens") not in (None, *TOKENS):
        raise ValueError(f"{path}: metadata.hook_tokens must be {', '.join(TOKENS)}; got {about['hook_tokens']!r}")
    for name in NUMBERS:
        if not is_a(about.get(name), float | None):
            raise ValueError(f"{path}: metadata.{name} must be a number; got {about[name]!r}")
    hook = about.get("hook_name") or config.get("hook_name")
    if config.get("reshape_activations") == "hook_z" and isinstance(hook, str) and not hook.endswith("_z"):
        raise ValueError(f"{path}: reshape_activations must be none for an SAE of {hook}; got 'hook_z'")


def check_old_settings(path: Path, config: Mapping[str, Any]) -> None:
    """Refuse settings from before version 6 that sae-lens no longer reads and that describe another function.

    Raises:
        ValueError: names the file, the setting and its value.
    """
    for name in ("activation_fn", "activation_fn_str"):
        if config.get(name, "relu") not in ("relu", "topk"):
            raise ValueError(
                f"{path}: {name} must be relu or topk, which sae-lens still computes; got {config[name]!r}"
            )
    arguments = config.get("activation_fn_kwargs", {})
    if not isinstance(arguments, dict):
        raise ValueError(f"{path}: activation_fn_kwargs must be a JSON object; got {arguments!r}")
    by_topk = "topk" in (config.get("activation_fn"), config.get("activation_fn_str"))
    k: Any = arguments.get("k", config.get("k") if config["architecture"] == "topk" else None)
    if (by_topk or "k" in arguments) and not (is_a(k, int) and 1 <= k <= _size(config, "d_sae")):
        raise ValueError(f"{path}: activation_fn_kwargs.k must be 1 to d_sae, {config['d_sae']}; got {k!r}")
    if not isinstance(config.get("finetuning_scaling_factor", False), bool):
        raise ValueError(
            f"{path}: finetuning_scaling_factor must be true or false; got {config['finetuning_scaling_factor']!r}"
        )


def check_settings(path: Path, config: Mapping[str, Any], config_class: Any) -> None:
    """Refuse settings that an architecture does not declare, of another type than declared, or out of range.

    Raises:
        ValueError: names the file, the setting and its value.
    """
    from sae_lens.loading.pretrained_sae_loaders import LLM_METADATA_KEYS

    declared = typing.get_type_hints(config_class)
    settings = [field.name for field in fields(config_class) if field.name not in ("metadata", "device", "dtype")]
    for name in settings:
        if name in config and name != "normalize_activations" and not is_a(config[name], declared[name]):
            raise ValueError(f"{path}: {name} must be {_words(declared[name])}; got {config[name]!r}")
    for name in settings:
        _check_range(path, name, config.get(name), config)
    by_truth = is_old(path, config) and isinstance(config.get("normalize_activations"), bool | None)
    _check_by_class(
        path,
        {
            name: config[name]
            for name in settings
            if name in config and not (by_truth and name == "normalize_activations")
        },
        config_class,
    )
    known = {*settings, *OWN, *OLD, *LLM_METADATA_KEYS, "device", "dtype"}
    if unknown := [name for name in config if name not in known]:
        raise ValueError(
            f"{path}: sae-lens has no setting {unknown[0]} (it is {config[unknown[0]]!r} here) for the architecture "
            f"{config['architecture']}, and would leave it out: remove it, or keep it under metadata"
        )


def _check_range(path: Path, name: str, value: Any, config: Mapping[str, Any]) -> None:
    """Refuse sizes below 1, more active latents than d_sae, and other numbers that are negative or not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if name in ("k", "kval_topk") and not 1 <= value <= config["d_sae"]:
        raise ValueError(f"{path}: {name} must be 1 to d_sae, {config['d_sae']}; got {value}")
    if name in ("residual_threshold", "activation_normalization_factor"):
        least = 0 if name == "residual_threshold" else math.ulp(0)
        if not least <= value < math.inf:
            raise ValueError(f"{path}: {name} must be finite and {'at least' if not least else 'above'} 0; got {value}")
    elif value < 1:
        raise ValueError(f"{path}: {name} must be at least 1; got {value}")


def _check_by_class(path: Path, settings: Mapping[str, Any], config_class: Any) -> None:
    """Refuse what the architecture's own configuration class refuses, such as an unknown normalisation."""
    try:
        config_class(**settings)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}; got {dict(settings)}") from error


def _size(config: Mapping[str, Any], name: str) -> int:
    """Return a size, or 0 if it is no whole number, which a later check reports."""
    return config[name] if is_a(config[name], int) else 0


def is_a(value: Any, wanted: Any) -> bool:
    """Return whether a JSON value has a declared type; whole numbers count as floats, booleans not as numbers."""
    if typing.get_origin(wanted) is typing.Literal:
        return isinstance(value, str) and value in typing.get_args(wanted)
    if typing.get_origin(wanted) in (types.UnionType, typing.Union):
        return any(is_a(value, part) for part in typing.get_args(wanted))
    if wanted in (int, float):
        return isinstance(value, (int, float) if wanted is float else int) and not isinstance(value, bool)
    return isinstance(value, wanted) if isinstance(wanted, type) else True


def _words(wanted: Any) -> str:
    """Return the name of a declared type."""
    return wanted.__name__ if isinstance(wanted, type) else str(wanted).replace("typing.", "")
