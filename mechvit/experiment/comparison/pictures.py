"""Pictures of a comparison's report: the images whose predictions differ most, with attention and patch lens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mechvit.data.corruption_spec import CLEAN
from mechvit.experiment.sections.views import write_views
from mechvit.visualization.style import title_of

if TYPE_CHECKING:
    import datasets
    import pandas as pd

    from mechvit.data.conditions import Condition
    from mechvit.models import HookedViT

EXPLORER_BYTES = 10_000_000
"""Largest size of the explorer's patterns in the report."""
OF_EACH = 2
"""Images of each condition, and of the groups, that the explorer and the patch lens show beside the first gallery's."""
VIEWED_CONDITIONS = 2
"""Conditions that the explorer and the patch lens show beside clean."""


@dataclass(frozen=True, kw_only=True)
class PicturedPair:
    """One pair as its pictures show it."""

    names: tuple[str, str]
    """Names of the base and of the tuned model."""
    behaviour: pd.DataFrame
    """Per-image table of its predictions."""
    models: tuple[HookedViT, HookedViT]
    """Base and tuned as they were loaded."""
    read: tuple[HookedViT, HookedViT]
    """The same with heads of the same classes."""
    own_heads: bool
    """Whether these are each model's own."""
    images: datasets.Dataset
    """The images, with class ids of these heads."""
    conditions: tuple[Condition, ...]
    """Conditions under which both are shown the same image, clean first."""
    groups: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """A row of pictures: those that differ most under one condition, or the one of each group."""

    title: str
    condition: Condition
    rows: pd.DataFrame
    by: str = ""
    """Column of groups; empty for none."""


def galleries(pair: PicturedPair, count: int) -> Iterator[Gallery]:
    """Yield the images with the largest KL(base | tuned) through the first head: under each condition, and of each of
    the groups that differ most by their mean over clean images, the largest first.
    """
    own = pair.behaviour[pair.behaviour["head"] == pair.behaviour["head"].iloc[0]]
    ordered = own.sort_values(["kl", "image_id"], ascending=[False, True], kind="stable")
    for condition in pair.conditions:
        name = "Clean images" if condition == CLEAN else title_of(condition.key)
        yield Gallery(title=name, condition=condition, rows=ordered[ordered["condition"] == condition.key].head(count))
    clean = ordered[ordered["condition"] == CLEAN.key]
    for by in pair.groups:
        means = clean.groupby(by, dropna=False)["kl"].mean().sort_values(ascending=False, kind="stable")
        first = clean.drop_duplicates(by).set_index(by, drop=False).loc[means.index[:count]]
        yield Gallery(title=f"Of each {by} the clean image that differs most", condition=CLEAN, rows=first, by=by)


def write_pictures(folder: Path, pairs: Sequence[PicturedPair], *, count: int, seed: int) -> None:
    """Write the galleries, and where the models allow it the attention explorer and the patch lens.

    Args:
        folder: output folder: examples.safetensors (uint8 [3, height, width], as the base sees them), examples.json,
            explorer.json, lens.json, missing.json (what could not be shown: what, tuned, why).
        pairs: the pairs.
        count: number of images of each gallery.
        seed: seed of the conditions.
    """
    from mechvit.views.linked_views import linked_views

    arrays, listed = dict[str, np.ndarray](), list[dict[str, Any]]()
    together, more = list[int](), list[int]()
    for pair in pairs:
        for place, gallery in enumerate(galleries(pair, count)):
            (more if place else together).extend(gallery.rows["image_id"].head(OF_EACH if place else count))
            for row, pixels in zip(gallery.rows.to_dict("records"), _pixels(pair, gallery, seed), strict=True):
                arrays[key := f"{len(arrays):05}"] = pixels
                about = {"key": key, "tuned": pair.names[1], "title": gallery.title, "image_id": row["image_id"]}
                listed.append(about | {"lines": _lines(row, pair, gallery.by)})
    images, conditions = pairs[0].images, pairs[0].conditions[1 : 1 + VIEWED_CONDITIONS]
    places = _places(images, list(dict.fromkeys([*together[:count], *more])), 2 * count)
    fitting, missing = _fitting(pairs, images.select(places[:1]), seed)
    made, why = linked_views(
        fitting["explorer"],
        fitting["lens"],
        images.select(places),
        conditions,
        seed=seed,
        max_bytes=EXPLORER_BYTES,
        limit=len(places),
    )
    alone = pairs[0].names[1] if len(pairs) == 1 else ""
    missing += [_unshown(view, alone, reason) for view, reason in why.items() if fitting[view]]
    write_views(
        folder,
        {"examples": arrays},
        {"examples": listed, "missing": missing},
        explorer=made.get("explorer"),
        lens=made.get("lens"),
    )


def _unshown(view: str, tuned: str, why: str) -> dict[str, str]:
    from mechvit.views.linked_views import TITLES

    return {"what": f"{TITLES[view]} of the pictures", "tuned": tuned, "why": why}


def _fitting(
    pairs: Sequence[PicturedPair], image: datasets.Dataset, seed: int
) -> tuple[dict[str, dict[str, HookedViT]], list[dict[str, str]]]:
    """Return for each view the base and those tuned models that it can show beside it, by title; and the others.

    Each of several is tried on one picture. A base with another head in each pair is shown with each.
    """
    from mechvit.views.linked_views import TITLES, linked_views

    if len(pairs) == 1:  # the views themselves are the trial
        pair = pairs[0]
        shown = {"explorer": pair.models, "lens": pair.read}
        return {view: dict(zip(pair.names, own, strict=True)) for view, own in shown.items()}, []
    found: dict[str, dict[str, HookedViT]] = {view: {} for view in TITLES}
    missing = []
    for pair in pairs:
        base, tuned = pair.names
        read_base = base if pair.own_heads else f"{base}, head of {tuned}"
        wanted = {
            "explorer": found["explorer"] | dict(zip(pair.names, pair.models, strict=True)),
            "lens": found["lens"] | dict(zip((read_base, tuned), pair.read, strict=True)),
        }
        made, why = linked_views(wanted["explorer"], wanted["lens"], image, (), seed=seed, limit=1)
        found |= {view: wanted[view] for view in made}
        missing += [_unshown(view, tuned, reason) for view, reason in why.items()]
    return found, missing


def _places(images: datasets.Dataset, image_ids: Sequence[int], most: int) -> list[int]:
    """Return the places of the first of some images."""
    place_of = {image_id: place for place, image_id in enumerate(images["image_id"][:])}
    return [place_of[image_id] for image_id in image_ids[:most]]


def _pixels(pair: PicturedPair, gallery: Gallery, seed: int) -> Iterator[np.ndarray]:
    """Yield each picture of a gallery as the base is shown it."""
    from mechvit.analysis.condition_images import shown
    from mechvit.analysis.inputs import model_batches

    ids = list(gallery.rows["image_id"])
    images = pair.images.select(_places(pair.images, ids, len(ids)))
    models = dict(zip(("base", "tuned"), pair.read, strict=True))
    for batches in model_batches(models, images):
        seen = shown(models, batches, gallery.condition, seed=seed)["base"].images
        for image in (seen * 255).round().clamp(0, 255).byte().cpu().numpy():
            yield np.ascontiguousarray(image)


def _lines(row: Mapping[str, Any], pair: PicturedPair, by: str) -> list[str]:
    """Return what stands below a picture: its group, its label, both answers, and how far apart they are."""
    names = pair.read[1].cfg.id2label
    said = [f"{by}: {row[by]}"] if by else []
    said += [f"label: {names.get(row['label'], row['label'])}"] if row["label"] >= 0 else []
    for model in ("base", "tuned"):
        answer = row[f"prediction_{model}"]
        said.append(f"{model}: {names.get(answer, answer)} ({row[f'confidence_{model}']:.0%})")
    return [*said, f"KL {row['kl']:.2f} nats"]
