"""Nothing in the repository lets a file bring code: read off the syntax trees of all its modules."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MODULES = sorted(path for part in ("mechvit", "scripts", "benchmarks") for path in (ROOT / part).rglob("*.py"))
PROCESSOR_LOADER = "mechvit/models/processors/image_processor.py"
LOADERS = {
    PROCESSOR_LOADER: {"AutoImageProcessor.from_pretrained"},
    "mechvit/models/checkpoints/loading.py": {
        "hf_class.from_pretrained"
    },  # of a class of transformers' own, by the config read before
}
"""The only places that may load configs, processors and models by transformers, each by one call."""
OF_THIS_PACKAGE = ("HookedViT.",)
"""Classes whose `from_pretrained` may be called anywhere: it is the loader."""
UNPICKLERS = {
    "pickle.load",
    "pickle.loads",
    "torch.load",
    "joblib.load",
    "dill.load",
    "torch.hub.load",
    "torch.jit.load",
    "pandas.read_pickle",
    "pd.read_pickle",
    "eval",
    "exec",
    "get_class_from_dynamic_module",
    "transformers.pipeline",
    "pipeline",
}


def calls(source: str) -> Iterator[tuple[str, ast.Call]]:
    """Return each call with the name of what is called, as it is written there."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


USERS_OWN_CODE = {("mechvit/data/functions.py", "exec"): "a file of functions that the user names as a condition"}
"""Calls that run code on purpose, and whose it is."""


def faults(source: str, where: str) -> list[str]:
    """Name the calls of a module that could let a file bring code, or that load beside the loaders."""
    found = []
    for name, call in calls(source):
        settings = {word.arg: ast.unparse(word.value) for word in call.keywords}
        short = name.removeprefix("transformers.")
        if re.fullmatch(r"Auto[A-Z]\w*\.\w+", short):
            if settings.get("trust_remote_code") != "False":
                found.append(f"{name} without trust_remote_code=False")
            if short not in LOADERS.get(where, ()):
                found.append(f"{name} beside the loader")
        loads = short.endswith(".from_pretrained") and not short.startswith(("Auto", *OF_THIS_PACKAGE))
        if loads and short not in LOADERS.get(where, ()):
            found.append(f"{name} beside the loader")
        if settings.get("trust_remote_code", "False") != "False":
            found.append(f"{name} trusts remote code")
        if (name in UNPICKLERS and (where, name) not in USERS_OWN_CODE) or settings.get(
            "allow_pickle", "False"
        ) != "False":
            found.append(f"{name} unpickles")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_loads_code(path):
    where = path.relative_to(ROOT).as_posix()
    assert faults(path.read_text(), where) == []


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: path.stem)
def test_tests_trust_no_code_either(path):
    if path != Path(__file__):
        assert [fault for fault in faults(path.read_text(), "tests") if "trust" in fault] == []


def test_the_loaders_are_there():
    for where, wanted in LOADERS.items():
        written = [name.removeprefix("transformers.") for name, _ in calls((ROOT / where).read_text())]
        for name in wanted:
            assert written.count(name) == 1, (where, name)


@pytest.mark.parametrize(
    "line",
    [
        "AutoConfig.from_pretrained(where)",
        "transformers.AutoConfig.for_model(kind, trust_remote_code=False)",
        "transformers.AutoImageProcessor.from_pretrained(where, trust_remote_code=None)",
        "AutoTokenizer.from_pretrained(where, trust_remote_code=True)",
        "getattr(transformers, name).from_pretrained(where)",
        "ViTConfig.from_pretrained(where)",
        "datasets.load_dataset(name, trust_remote_code=True)",
        "torch.load(path, weights_only=True)",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_what_is_looked_for_is_found(line):
    assert faults(line, "mechvit/elsewhere.py")
