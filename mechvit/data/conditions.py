"""Conditions by name, in a light module that command lines import without torch: what is done to an image before it is
shown.

| text | condition |
|---|---|
| `clean`, `gaussian_blur_4`, `haze_3` | nothing, a corruption, a registered function (`register_corruption`) |
| `my_file.py:haze_3`, `mymodule:haze_3` | the same, after the file or module was imported |
"""

from __future__ import annotations

from .corruption_spec import CORRUPTION_FAMILIES, Condition, Corruption
from .functions import function_fingerprint, load_function


def parse_condition(text: str) -> Condition:
    """Parse a condition as it is written on a command line, or its key.

    Raises:
        ValueError: an unknown condition, or a level that it does not have; a file or module that cannot be imported, or
            that lacks the function.
    """
    if ":" in text:
        load_function(text)
        text = text.rpartition(":")[2]
    return Corruption.parse(text)


def as_condition(condition: Condition | str) -> Condition:
    """Return a condition unchanged, or parse it."""
    return parse_condition(condition) if isinstance(condition, str) else condition


def of_pixels(condition: Condition | str) -> Corruption:
    """Return a condition that depends on an image's pixels alone: a corruption or a registered function.

    Raises:
        ValueError: it needs a model or the image's file.
    """
    condition = as_condition(condition)
    if not isinstance(condition, Corruption):
        raise ValueError(
            f"{condition.key} is not made of an image's pixels alone, as is needed here: give a corruption such as "
            "gaussian_blur_4, or a registered function"
        )
    return condition


def fingerprint(condition: Condition | str) -> str | None:
    """Return a hash of what a condition does beyond its key; None for those that the key determines.

    A registered function is hashed by its source and by what it makes of fixed images.
    """
    condition = as_condition(condition)
    if isinstance(condition, Corruption) and CORRUPTION_FAMILIES[condition.family].function is not None:
        return function_fingerprint(condition)
    return None
