"""Export of an activation cache to a folder that sae-lens itself trains from, in its cached mode."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mechvit.arguments import checked
from mechvit.files import clear, library_writes, new_folder

from .reader import CachedActivations

KIND = "activations for sae-lens"


@checked
def export_for_sae_lens(cache: CachedActivations, out: str | os.PathLike[str], *hooks: str) -> Path:
    """Write a `datasets` folder: one row per image, one float32 column [token, width] per hook point.

    `sae_lens.ActivationsStore(model=None, dataset=None, cached_activations_path=out, hook_name=HOOK,
    context_size=cache.plan.tokens_per_image, d_in=cache.widths[HOOK], ...)` reads it. sae-lens reads its rows in order
    and drops a last partial batch of images. The folder is written under a temporary name and renamed; meanwhile the
    activations take twice the space.

    Args:
        cache: the activations to copy.
        out: the new folder; nothing may exist there.
        hooks: the hook points to copy; all of them when none is given.

    Raises:
        ValueError: `out` exists, or the cache lacks a hook point.

    Source: sae-lens's `CacheActivationsRunner`, whose format this is.
    """
    import datasets

    chosen, n_tokens = cache.chosen(hooks or None), cache.plan.tokens_per_image
    features = datasets.Features(
        {hook: datasets.Array2D(shape=(n_tokens, cache.widths[hook]), dtype="float32") for hook in chosen}
    )
    with new_folder(out, KIND, inputs=[cache.folder]) as folder, library_writes(folder):
        rows = datasets.Dataset.from_generator(
            _images,
            features=features,
            cache_dir=os.fspath(folder / "work"),
            gen_kwargs={"folder": os.fspath(cache.folder), "hooks": chosen},
        )
        rows.save_to_disk(folder)
        clear(folder / "work")
    return Path(out)


def _images(folder: str, hooks: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Yield each image's activations [token, width], by hook point."""
    cache = CachedActivations(folder)
    widths = np.cumsum([cache.widths[hook] for hook in hooks])[:-1]
    for rows in cache.in_order(cache.plan.tokens_per_image, hooks=hooks):
        yield dict(zip(hooks, np.split(rows.numpy(), widths, axis=1), strict=True))
