"""Checks of the settings in a published SAE's `cfg.json`: each known, of the right type and within its range.

sae-lens itself accepts a string in place of a boolean or a number, and silently drops unknown settings: the SAE would
compute something else than its file says.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from mechvit.settings_checks import NOT_NEGATIVE, POSITIVE

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


def invalid(path: Path, name: str, must: str, got: Any) -> ValueError:
    """Return the error for a setting of a `cfg.json`; `must` states the rule."""
    return ValueError(f"{path}: {name} must {must}; got {got!r}")


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
        raise invalid(path, "sae_lens_version", "be a version, as in 6.0.0", version) from error
    if old and about:
        must = "name the version of sae-lens, 6 or later, in sae_lens_version, or sae-lens leaves the metadata out"
        raise invalid(path, "metadata", must, version)
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
            raise invalid(path, f"metadata.{name}", "name a hook point", about[name])
    if about.get("hook_tokens") not in (None, *TOKENS):
        raise invalid(path, "metadata.hook_tokens", f"be {', '.join(TOKENS)}", about["hook_tokens"])
    for name in NUMBERS:
        if not is_a(about.get(name), float | None):
            raise invalid(path, f"metadata.{name}", "be a number", about[name])
    hook = about.get("hook_name") or config.get("hook_name")
    if config.get("reshape_activations") == "hook_z" and isinstance(hook, str) and not hook.endswith("_z"):
        raise invalid(path, "reshape_activations", f"be none for an SAE of {hook}", "hook_z")


def check_old_settings(path: Path, config: Mapping[str, Any]) -> None:
    """Refuse settings from before version 6 that sae-lens no longer reads and that describe another function.

    Raises:
        ValueError: names the file, the setting and its value.
    """
    for name in ("activation_fn", "activation_fn_str"):
        if config.get(name, "relu") not in ("relu", "topk"):
            raise invalid(path, name, "be relu or topk, which sae-lens still computes", config[name])
    arguments = config.get("activation_fn_kwargs", {})
    if not isinstance(arguments, dict):
        raise invalid(path, "activation_fn_kwargs", "be a JSON object", arguments)
    by_topk = "topk" in (config.get("activation_fn"), config.get("activation_fn_str"))
    k: Any = arguments.get("k", config.get("k") if config["architecture"] == "topk" else None)
    if (by_topk or "k" in arguments) and not (is_a(k, int) and 1 <= k <= _size(config, "d_sae")):
        raise invalid(path, "activation_fn_kwargs.k", f"be 1 to d_sae, {config['d_sae']}", k)
    if not isinstance(scaled := config.get("finetuning_scaling_factor", False), bool):
        raise invalid(path, "finetuning_scaling_factor", "be true or false", scaled)


def check_settings(path: Path, config: Mapping[str, Any], config_class: Any) -> None:
    """Refuse settings that an architecture does not declare, of another type than declared, or out of range, and what
    its own configuration class refuses, such as an unknown normalisation.

    Raises:
        ValueError: names the file, the setting and its value.
    """
    from sae_lens.loading.pretrained_sae_loaders import LLM_METADATA_KEYS

    declared = typing.get_type_hints(config_class)
    settings = [field.name for field in fields(config_class) if field.name not in ("metadata", "device", "dtype")]
    for name in settings:
        if name in config and name != "normalize_activations" and not is_a(config[name], declared[name]):
            raise invalid(path, name, f"be {_words(declared[name])}", config[name])
    for name in settings:
        _check_range(path, name, config.get(name), config)
    given = {name: config[name] for name in settings if name in config}
    if is_old(path, config) and isinstance(config.get("normalize_activations"), bool | None):
        given.pop("normalize_activations", None)
    try:
        config_class(**given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}; got {given}") from error
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
        raise invalid(path, name, f"be 1 to d_sae, {config['d_sae']}", value)
    if name in ("residual_threshold", "activation_normalization_factor"):
        allowed = NOT_NEGATIVE if name == "residual_threshold" else POSITIVE
        if value not in allowed:
            raise invalid(path, name, f"be {allowed}", value)
    elif value < 1:
        raise invalid(path, name, "be at least 1", value)


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
