"""The commit that a wheel was made from, built into it as `mechvit/_built.py`."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CommitHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the commit to wheels; an editable install reads it from git each time."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        commit = self._git("rev-parse", "HEAD")
        changed = self._git("status", "--porcelain", "--untracked-files=no", "--", "mechvit")
        dirty = None if changed is None else bool(changed)
        self.written = tempfile.TemporaryDirectory()
        path = Path(self.written.name, "_built.py")
        path.write_text(f'"""Written when this wheel was built."""\n\nCOMMIT = {commit!r}\nDIRTY = {dirty!r}\n')
        build_data["force_include"][str(path)] = "mechvit/_built.py"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if version != "editable":
            self.written.cleanup()

    def _git(self, *words: str) -> str | None:
        if not Path(self.root, ".git").exists():
            return None
        try:
            done = subprocess.run(["git", *words], cwd=self.root, capture_output=True, text=True, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()
