"""Settings of an image processor with impossible types or values, refused before they are used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mechvit.models.checkpoints.stored_files import invalid
from mechvit.settings_checks import COUNT, FINITE, POSITIVE, Range

FLAGS = ("default_to_square", "offset", "rescale_offset")
"""Boolean settings whose names do not begin with `do_`."""
SIDES = ("size", "crop_size", "pad_size")
MOST_PIXELS = 8192
"""Longest side, in pixels, of a processor's output."""
NUMBER_RANGES: dict[str, Range] = {
    "rescale_factor": POSITIVE,
    "image_mean": FINITE,
    "image_std": POSITIVE,
    "resample": Range(0, 5),  # transformers treats any filter's name as bilinear
    "max_num_patches": COUNT,
    "patch_size": COUNT,
}
"""Setting -> the numbers that it, or each member of its list, may be."""
NEEDED_BY_FLAG = {
    "do_rescale": ("rescale_factor",),
    "do_normalize": ("image_mean", "image_std"),
    "do_center_crop": ("crop_size",),
}
"""Switch -> the settings that must not be null where it is on."""


def check_processor_values(settings: Mapping[str, Any], where: str, file: str) -> None:
    """Raise a ValueError for an impossible setting of an image processor; null means not set.

    Args:
        settings: the settings of one image processor.
        where: the checkpoint, for errors.
        file: the file that holds them, for errors.
    """

    def refuse(name: str, must: str, value: Any) -> ValueError:
        return invalid(where, name, f"be {must}", value, file)

    kind = settings.get("image_processor_type")
    if not isinstance(kind, str | None):
        raise refuse("image_processor_type", "the name of a class", kind)
    for name, value in settings.items():
        if value is None:
            continue
        if (name.startswith("do_") or name in FLAGS) and not isinstance(value, bool):
            raise refuse(name, "true or false", value)
        if name in SIDES and (fault := _side_fault(value)):
            raise refuse(name, fault, value)
        if name in NUMBER_RANGES:
            several = name.startswith("image_") and isinstance(value, list) and value
            for number in value if several else [value]:
                if not (_is_number(number) and number in NUMBER_RANGES[name]):
                    must = "numbers" if name.startswith("image_") else "a number"
                    raise refuse(name, f"{must} {_words(NUMBER_RANGES[name])}", value)
    mean, std = settings.get("image_mean"), settings.get("image_std")
    if isinstance(mean, list) and isinstance(std, list) and len(mean) != len(std):
        raise refuse("image_std", f"one number, or as many as image_mean, {len(mean)}", std)
    for switch, names in NEEDED_BY_FLAG.items():
        if settings.get(switch):
            for name in names:
                if name in settings and settings[name] is None:
                    raise refuse(name, f"given where {switch} is true", None)


def _side_fault(value: Any) -> str | None:
    """Return the rule that a size breaks; None for a valid one."""
    sides = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else [value]
    whole = [side for side in sides if side is not None]
    if not whole or any(not _is_number(side) or side not in COUNT for side in whole):
        return "sides in pixels, whole numbers of at least 1"
    return f"at most {MOST_PIXELS} pixels" if max(whole) > MOST_PIXELS else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _words(allowed: Range) -> str:
    """Return a range in words, to follow `numbers` or `a number`."""
    return "that are finite" if allowed is FINITE else str(allowed)
