"""Settings of a checkpoint's config.json with impossible values, refused before anything is computed.

transformers looks at the types of most settings, and at few of their values: a patch of no pixels or an activation that
it does not know raise where they are first used, in errors that name neither the file nor the setting.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mechvit.settings_checks import COUNT, COUNT_OR_ZERO, FINITE, NOT_NEGATIVE, POSITIVE, SHARE_BELOW_ONE, Range

from .stored_files import invalid

SIZES = (
    "decoder_hidden_size",
    "decoder_intermediate_size",
    "decoder_num_attention_heads",
    "decoder_num_hidden_layers",
    "head_dim",
    "hidden_size",
    "image_size",
    "intermediate_size",
    "max_num_patches",
    "max_position_embeddings",
    "num_attention_heads",
    "num_channels",
    "num_hidden_layers",
    "num_patches",
    "patch_size",
    "pooler_output_size",
    "projection_dim",
    "projection_size",
    "vocab_size",
)
DROPOUTS = ("attention_dropout", "attention_probs_dropout_prob", "drop_path_rate", "hidden_dropout_prob")
RANGES: dict[str, Range] = {
    **dict.fromkeys(SIZES, COUNT),
    **dict.fromkeys(DROPOUTS, SHARE_BELOW_ONE),
    "encoder_stride": Range(1, 1024),
    "initializer_range": NOT_NEGATIVE,
    "layer_norm_eps": NOT_NEGATIVE,
    "layerscale_value": FINITE,
    "logit_scale_init_value": FINITE,
    "mlp_ratio": POSITIVE,
    "num_register_tokens": COUNT_OR_ZERO,
    "rope_theta": POSITIVE,
}
"""Setting -> the numbers that it may be."""
TOWERS = ("vision_config", "text_config")
MOST_PATCH = 8192
"""The longest side of a patch, in pixels."""


def check_values(config: Mapping[str, Any], where: str, part: str = "") -> None:
    """Raise a ValueError for an impossible number, or an activation that transformers does not know.

    Args:
        config: as `read_config` returns it.
        where: the checkpoint, for errors.
        part: the tower whose settings these are, with a full stop behind it; empty for the whole model.
    """
    from transformers.activations import ACT2FN

    for tower in TOWERS:
        if isinstance(config.get(tower), dict):
            check_values(config[tower], where, f"{tower}.")
    if config.get("per_layer_config"):
        raise ValueError(
            f"{where}: its config.json gives single layers settings of their own ({part}per_layer_config), which are "
            "not followed. Use a checkpoint whose layers are alike."
        )
    for name, allowed in RANGES.items():
        value = config.get(name)
        if isinstance(value, list) and len(value) != 2:
            raise invalid(where, f"{part}{name}", "be one number or two", value)
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int | float) and not isinstance(number, bool) and number not in allowed:
                must = "a whole number" if allowed.whole and number >= 1 else str(allowed)
                raise invalid(where, f"{part}{name}", f"be {must}", value)
    _check_together(config, where, part)
    for name, value in config.items():
        if name.endswith("_act") and isinstance(value, str) and value not in ACT2FN:
            raise invalid(where, f"{part}{name}", "be an activation that transformers has, as gelu", value)


def _check_together(config: Mapping[str, Any], where: str, tower: str) -> None:
    """Raise a ValueError for heads that do not divide the width, a patch larger than the picture, or whole
    numbers where transformers needs a weight."""
    for part in ("", "decoder_"):
        width, heads = config.get(f"{part}hidden_size"), config.get(f"{part}num_attention_heads")
        if isinstance(width, int) and isinstance(heads, int) and config.get("head_dim") is None and width % heads:
            raise invalid(where, f"{tower}{part}num_attention_heads", f"divide {part}hidden_size, {width}", heads)
    image, patch = config.get("image_size"), config.get("patch_size")
    if isinstance(image, int) and isinstance(patch, int) and patch > image:
        raise invalid(where, f"{tower}patch_size", f"be at most image_size, {image}", patch)
    if isinstance(patch, int) and patch > MOST_PATCH:  # for families without an image_size
        raise invalid(where, f"{tower}patch_size", f"be at most {MOST_PATCH}", patch)
    if isinstance(scale := config.get("logit_scale_init_value"), int):
        must = "have a decimal point, as in 2.6592, since transformers cannot make a weight of a whole number"
        raise invalid(where, f"{tower}logit_scale_init_value", must, scale)
