"""Drawing runs no model: nothing here imports torch, or the experiment that made the numbers."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mechvit.visualization

FOLDER = Path(mechvit.visualization.__file__).parent


@pytest.mark.processes
def test_importing_every_module_imports_no_torch_and_no_experiment():
    names = [
        "mechvit.visualization" + "".join(f".{part}" for part in path.relative_to(FOLDER).with_suffix("").parts)
        for path in FOLDER.rglob("*.py")
        if path.name != "__init__.py"
    ]
    assert len(names) > 12
    code = f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "mechvit.visualization.report.report_page" in loaded
    heavy = {"torch", "transformers", "transformer_lens", "sae_lens", "circuitsvis", "datasets"}
    above = ("mechvit.experiment", "mechvit.models", "mechvit.analysis", "mechvit.data", "mechvit.saes")
    assert not [name for name in loaded if name in heavy or name.startswith(above)]


def test_visualization_names_nothing_of_the_experiment():
    for path in FOLDER.rglob("*.py*"):
        if path.suffix not in (".py", ".pyi"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
            assert not [name for name in names if "experiment" in name], path
