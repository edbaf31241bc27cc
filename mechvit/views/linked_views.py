"""Attention explorer and patch lens of the same pictures, as far as the models allow them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from .attention_explorer import attention_explorer
from .patch_lens import patch_lens_view

if TYPE_CHECKING:
    from mechvit.data.corruption_spec import Condition
    from mechvit.models import HookedViT

TITLES = {"explorer": "Attention", "lens": "Patch lens"}


def linked_views(
    models: Mapping[str, HookedViT],
    read: Mapping[str, HookedViT],
    images: Any,
    conditions: Sequence[Condition | str],
    *,
    max_bytes: int = 20_000_000,
    **settings: Any,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the views that the models allow, `explorer` and `lens`, and for each other the reason.

    Attention side by side needs models of one shape; the patch lens, the same classes.

    Args:
        models: models by title, for their attention.
        read: the same with heads of the same classes, for the patch lens.
        images, conditions, max_bytes: as in `attention_explorer`.
        settings: arguments that both views take: limit, seed.
    """
    makers: dict[str, Callable[..., Any]] = {
        "explorer": partial(attention_explorer, models, max_bytes=max_bytes),
        "lens": partial(patch_lens_view, read),
    }
    made, missing = {}, {}
    for name, make in makers.items():
        try:
            made[name] = make(images, conditions, **settings)
        except ValueError as error:
            missing[name] = str(error)
    return made, missing
