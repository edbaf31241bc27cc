"""Provenance rows of a page: its models, its images, their commits on the Hub, and the code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechvit.code_version import code_version, described
from mechvit.data.image_origin import image_origins
from mechvit.models.checkpoints.fingerprint import checkpoint_hash

if TYPE_CHECKING:
    from mechvit.models import HookedViT


def page_provenance(models: Mapping[str, HookedViT], images: Any = None) -> dict[str, str]:
    """Return the rows of a page's provenance, title -> text.

    Args:
        models: models by title; one under several titles makes one row.
        images: a data set, whose recorded sources are named; anything else names none.
    """
    titles: dict[int, list[str]] = {}
    for title, model in models.items():
        titles.setdefault(id(model), []).append(title)
    distinct = {id(model): model for model in models.values()}
    rows = {f"model {', '.join(titles[key])}".strip(): _model(model) for key, model in distinct.items()}
    sources = [f"{name} at commit {commit}" if commit else name for name, commit in image_origins(images).items()]
    return rows | ({"images": ", ".join(sources)} if sources else {}) | {"made by": described(code_version())}


def _model(model: HookedViT) -> str:
    """Return a model's Hub id and commit, or the last part of its folder's name and the start of its weights' hash."""
    name = str(getattr(model.hf_config, "name_or_path", "") or model.cfg.architecture)
    commit = getattr(model.hf_config, "_commit_hash", None)
    if commit is not None:
        return f"{name} at commit {commit}"
    return f"{Path(name).name or name} (SHA-256 of its weights {checkpoint_hash(model)[:16]}…)"
