"""The commit of a hub id, resolved once per process so that everything read in it is of one revision."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

_SETTLED: dict[tuple[str, str], str | None] = {}
"""(kind, hub id) -> the commit at the first request."""


def hub_revision(path_or_hub_id: str | os.PathLike[str], kind: Literal["model", "dataset"] = "model") -> str | None:
    """Return the commit of a hub id's main branch; it is resolved once per process.

    Offline, or where the hub cannot be reached, it is the commit in the hub's local cache.

    Returns:
        The commit's hash; None for a local file or folder, and where neither the hub nor its cache knows the id.
    """
    where = os.fspath(path_or_hub_id)
    if Path(where).expanduser().exists():
        return None
    if (kind, where) not in _SETTLED:
        _SETTLED[kind, where] = _resolved(where, kind)
    return _SETTLED[kind, where]


def _resolved(hub_id: str, kind: str) -> str | None:
    import huggingface_hub

    offline = huggingface_hub.constants.is_offline_mode()
    try:
        found = huggingface_hub.HfApi().resolve_revision(hub_id, repo_type=kind, local_files_only=offline)
    except Exception:  # unknown name, no access or no connection: reading its files reports which
        return None
    return str(found.resolved)
