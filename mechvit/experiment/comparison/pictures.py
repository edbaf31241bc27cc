"""Pictures of a comparison's report: the images whose predictions differ most, with attention and patch lens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mechvit.experiment.sections.views import write_views

if TYPE_CHECKING:
    import datasets
    import pandas as pd

    from mechvit.data.conditions import Condition
    from mechvit.models import HookedViT

EXPLORER_BYTES = 10_000_000
"""Largest size of the explorer's patterns in the report."""


def most_different(behaviour: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return the clean images with the largest KL(base | tuned) through the first head, the largest first."""
    own = behaviour[(behaviour["condition"] == "clean") & (behaviour["head"] == behaviour["head"].iloc[0])]
    return own.sort_values(["kl", "image_id"], ascending=[False, True], kind="stable").head(count)


def write_pictures(
    folder: Path,
    behaviours: Mapping[str, pd.DataFrame],
    classes: Mapping[str, Sequence[str]],
    models: Mapping[str, HookedViT],
    read: Mapping[str, HookedViT],
    images: datasets.Dataset,
    conditions: Sequence[Condition],
    *,
    count: int,
    seed: int,
) -> None:
    """Write the gallery, and where the models allow it the attention explorer and the patch lens.

    Args:
        folder: output folder: examples.safetensors (uint8 [3, height, width] by tuned model and image id),
            examples.json, explorer.json, lens.json, missing.json (what could not be shown: what, tuned, why).
        behaviours: tuned model -> its per-image table.
        classes: tuned model -> names of the classes that are predicted.
        models: models by title, for their attention.
        read: the same with heads of the same classes, for the patch lens.
        images: the images of the comparison.
        conditions: conditions besides clean.
        count: number of images of each tuned model.
        seed: seed of the conditions.
    """
    from mechvit.views.linked_views import TITLES, linked_views

    row_of = {image_id: row for row, image_id in enumerate(images["image_id"][:])}
    chosen = {tuned: most_different(table, count) for tuned, table in behaviours.items()}
    arrays, listed = {}, []
    for tuned, table in chosen.items():
        shown = images.select([row_of[image_id] for image_id in table["image_id"]])
        for row, pixels in zip(table.itertuples(), shown.with_format("numpy")[:]["pixels"], strict=True):
            key = f"{tuned}/{row.image_id}"
            arrays[key] = np.ascontiguousarray(pixels, dtype=np.uint8)
            listed.append({"key": key, "tuned": tuned, "image_id": row.image_id, "lines": _lines(row, classes[tuned])})
    together = list(dict.fromkeys(row_of[image_id] for table in chosen.values() for image_id in table["image_id"]))
    examples = images.select(together[:count])
    made, missing = linked_views(
        models, read, examples, conditions[:1], seed=seed, max_bytes=EXPLORER_BYTES, limit=count
    )
    unshown = [{"what": f"{TITLES[view]} of the pictures", "tuned": "", "why": why} for view, why in missing.items()]
    write_views(
        folder,
        {"examples": arrays},
        {"examples": listed, "missing": unshown},
        explorer=made.get("explorer"),
        lens=made.get("lens"),
    )


def _lines(row: Any, classes: Sequence[str]) -> list[str]:
    """Return what stands below a picture: label, both answers, and how far apart they are."""
    names = [
        classes[index] if 0 <= index < len(classes) else str(index)
        for index in (row.prediction_base, row.prediction_tuned)
    ]
    said = [f"base: {names[0]} ({row.confidence_base:.0%})", f"tuned: {names[1]} ({row.confidence_tuned:.0%})"]
    said += [f"KL {row.kl:.2f} nats"]
    return said if row.label < 0 else [f"label: {classes[row.label]}", *said]
