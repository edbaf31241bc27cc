"""The running code: the package's version and its commit."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from typing import Any


@cache
def code_version() -> dict[str, Any]:
    """Return the version of this package's code, as JSON values.

    Returns:
        `version`, `commit` (40 hex digits; None if unknown) and `dirty`: whether tracked files of the package differ
        from that commit (None if unknown). In a git checkout both are read from git; in an installed wheel they are as
        they were when it was built.
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
    """Return a version of the code in words, as in `mechvit 0.1.0 (commit 1a2b3c4d5e6f, with changes)`."""
    if not code or not code.get("commit"):
        return f"mechvit {code['version']} (commit unknown)" if code else "an earlier mechvit (commit unknown)"
    changes = ", with changes" if code.get("dirty") else ""
    return f"mechvit {code['version']} (commit {code['commit'][:12]}{changes})"


def _git(folder: Path, *words: str) -> str | None:
    """Return git's output in a folder; None if git is missing or fails."""
    try:
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
