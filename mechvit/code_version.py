"""Which code runs: the package's version and the commit that it comes from."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from typing import Any


@cache
def code_version() -> dict[str, Any]:
    """Return what this package's code is, as JSON holds it.

    Returns:
        `version`, `commit` (40 hex digits; None where none is known) and `dirty`: whether tracked files of the package
        differ from that commit (None where that cannot be told). In a git checkout both are read from git; in an
        installed wheel they are as they were when it was built.
    """
    from . import __version__

    folder = Path(__file__).parent
    if (folder.parent / ".git").exists():
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".")
        return {"version": __version__, "commit": commit, "dirty": None if changed is None else bool(changed)}
    try:
        from ._built import COMMIT, DIRTY
    except ImportError:
        return {"version": __version__, "commit": None, "dirty": None}
    return {"version": __version__, "commit": COMMIT, "dirty": DIRTY}


def described(code: dict[str, Any] | None) -> str:
    """Name a version of the code in a message, as in `mechvit 0.1.0 (commit 1a2b3c4d5e6f, with changes)`."""
    if not code or not code.get("commit"):
        return f"mechvit {code['version']} (commit unknown)" if code else "an earlier mechvit (commit unknown)"
    changes = ", with changes" if code.get("dirty") else ""
    return f"mechvit {code['version']} (commit {code['commit'][:12]}{changes})"


def _git(folder: Path, *words: str) -> str | None:
    """What git says in a folder; None where there is no git, or it refuses."""
    try:
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
