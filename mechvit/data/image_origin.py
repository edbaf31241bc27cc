"""The sources of a data set's images and their commits on the Hub, in its description, which every view of it keeps."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import datasets

ORIGIN = "mechvit images from"
"""Key in a set's description: source -> its commit on the Hub, or null."""


def with_origin(images: datasets.Dataset, source: str, revision: str | None = None) -> datasets.Dataset:
    """Return a view of the images that records their source and, from the Hub, its commit."""
    found = images.select_columns(images.column_names)
    found.info.description = json.dumps({ORIGIN: {source: revision}})
    return found


def image_origins(images: Any) -> dict[str, str | None]:
    """Return source -> commit (None outside the Hub) of a set, or of all the sets that it is joined from.

    The source is `owner/name@split`, `folder:NAME` or `photos`; the result is empty where nothing was recorded.
    """
    found = [pair for about in descriptions(images, ORIGIN) for pair in about[ORIGIN].items()]
    commits: dict[str, list[str]] = {source: [] for source, _ in found}
    for source, commit in found:
        if commit is not None and commit not in commits[source]:
            commits[source].append(commit)
    return {source: " and ".join(own) or None for source, own in commits.items()}


def descriptions(images: Any, key: str) -> list[dict[str, Any]]:
    """Return the entries with a key in a set's description: one, or those of all the sets that it is joined from."""
    texts = (getattr(getattr(images, "info", None), "description", None) or "").split("\n\n")
    return [json.loads(text) for text in texts if key in text]


def image_revisions(images: Any) -> dict[str, str]:
    """Return the part of `image_origins` that is from the Hub: `owner/name@split` -> commit."""
    return {source: commit for source, commit in image_origins(images).items() if commit is not None}
