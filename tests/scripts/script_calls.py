"""Running commands in this process."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from mechvit.cli.main import command

SCRIPTS = Path(__file__).parents[2] / "scripts"


def script(name: str) -> ModuleType:
    """The module of a command, such as train_sae."""
    return command(name)


def call(name: str, **options: Any) -> None:
    """Run a command's main on the CPU."""
    module = script(name)
    module.main(module.Options(**{"device": "cpu", **options}))
