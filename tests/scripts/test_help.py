"""Every script and benchmark teaches its use and explains its options, without a heavy import: one process asks all."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from script_calls import SCRIPTS, script

ROOT = SCRIPTS.parent
COMMANDS = sorted(
    path
    for folder in ("scripts", "benchmarks")
    for path in (ROOT / folder).glob("*.py")
    if "__main__" in path.read_text(encoding="utf-8")
)
LIGHT = [path for path in COMMANDS if path.parent == SCRIPTS or path.stem == "model_cost"]
NAMES = ("finetune", "evaluate", "analyze", "cache_activations", "train_sae", "evaluate_sae", "visualize_attention")
NAMES += ("explore_attention", "browse_features", "patch_models", "swap_weights", "steer", "compare_representations")
NAMES += ("ablate_features",)
BENCHMARKS = ("attention_statistics", "cache_activations", "model_cost", "model_patching", "report_load", "startup")

ASKING = """
import contextlib, io, json, runpy, sys

HEAVY = {"torch", "transformers", "transformer_lens", "datasets", "pandas", "plotly"}
found = {}
for path in sys.argv[1:]:
    before, said, code = HEAVY & sys.modules.keys(), io.StringIO(), "it went on"
    sys.argv = [path, "--help"]
    sys.path.insert(0, path.rpartition("/")[0])
    with contextlib.redirect_stdout(said):
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as end:
            code = end.code
    del sys.path[0]
    found[path] = {"code": code, "said": said.getvalue(), "heavy": sorted((HEAVY & sys.modules.keys()) - before)}
print(json.dumps(found))
"""

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def helps() -> dict[Path, dict[str, Any]]:
    """Each command's answer to --help; those that must be light come first, so that none finds another's imports."""
    paths = [*LIGHT, *(path for path in COMMANDS if path not in LIGHT)]
    done = subprocess.run([sys.executable, "-c", ASKING, *map(str, paths)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return {Path(path): found for path, found in json.loads(done.stdout).items()}


def test_every_command_is_asked():
    assert len([path for path in COMMANDS if path.parent == SCRIPTS]) == len(list(SCRIPTS.glob("*.py"))) >= 20
    assert {path.stem for path in COMMANDS if path.parent != SCRIPTS} >= set(BENCHMARKS)


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_help_ends_well(path, helps):
    assert helps[path]["code"] == 0
    assert "--help" in helps[path]["said"]


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_help_imports_nothing_heavy(path, helps):
    assert helps[path]["heavy"] == []


@pytest.mark.parametrize("name", NAMES)
def test_help_explains_every_option(name, helps):
    said = helps[SCRIPTS / f"{name}.py"]["said"]
    shown = "".join(said.replace("│", " ").split())
    assert 2 <= said.count(f"mechvit {name.replace('_', '-')} --") <= 4  # examples
    explained = {}
    for kind in reversed(script(name).Options.__mro__[:-1]):
        (options,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        explained |= {
            node.target.id: options.body[i + 1].value.value
            for i, node in enumerate(options.body)
            if isinstance(node, ast.AnnAssign) and isinstance(options.body[i + 1], ast.Expr)
        }
    assert len(explained) >= 9
    assert ("config" in script(name).Options.__dataclass_fields__) == ("--config.epochs" in said)
    for field, text in explained.items():
        assert f"--{field.replace('_', '-')}" in said
        assert "".join(text.split()) in shown, field


def test_caching_is_taught(helps):
    shown = " ".join(helps[SCRIPTS / "cache_activations.py"]["said"].replace("│", " ").split())
    assert shown.count("mechvit cache-activations --model") == 3
    assert "torchrun --nproc-per-node 4" in shown
    for option in ("hooks", "tokens", "part", "dtype", "batch-size", "shard-megabytes", "sae-lens", "overwrite"):
        assert f"--{option}" in shown


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmarks_teach(name, helps):
    said = helps[ROOT / "benchmarks" / f"{name}.py"]["said"]
    assert said.count(f"benchmarks/{name}.py --") >= (3 if name == "model_cost" else 1)
    assert f"benchmarks/{name}.py --out" in said
    assert "--rounds" in said
