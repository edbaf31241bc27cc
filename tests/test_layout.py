"""The folders are the architecture: which may import which, how many files a folder holds, and no circle of imports.

Read from the syntax tree, imports inside functions and those for type checking included; names that a folder's face
(`__init__.pyi`) gives are followed to the file that holds them.
"""

from __future__ import annotations

import ast
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mechvit"
ORDER = (
    "files",
    "models",
    "kernels",
    "data",
    "analysis",
    "saes",
    "finetuning",
    "visualization",
    "views",
    "experiment",
    "benchmark",
    "cli",
)
"""A folder imports only from those before it, and from the single files beside these folders."""
INSIDE = {
    "data": ("sources", "corruptions"),
    "analysis": (
        "statistics",
        "pairs",
        "behaviour",
        "summaries",
        "heads",
        "lenses",
        "attention",
        "interventions",
        "weights",
        "representations",
        "relevance",
        "circuits",
        "robustness",
    ),
    "saes": ("activations", "activation_cache", "training", "latents", "evaluation", "crosscoders", "dashboard"),
    "visualization": ("html_page", "figures", "attention", "pages", "report", "comparison", "export"),
}
"""The same among the folders of one."""
CROWDED = {"families", "figures", "cli"}
"""Folders with one file a family, a figure or a command, however many those are."""
MOST_FILES = 14
CIRCLES = {
    # A HookedViT loads, saves and processes itself, and each of these gives one back.
    frozenset(
        {"models.hooked_vit", "models.checkpoints.loading", "models.checkpoints.saving", "models.parameters.processing"}
    ),
}
"""Circles of imports between files that are there on purpose."""

SHARED_NAMES = {
    "Options": "each command's file calls its own command line so, and no other file reads it",
}
"""Class names that more than one file may define, and why."""

Edges = dict[str, dict[str, bool]]


@cache
def modules() -> dict[str, Path]:
    """Every module by its name below `mechvit`."""
    paths = sorted(PACKAGE.rglob("*.py"))
    names = (".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in paths)
    return {name.removesuffix("__init__").rstrip("."): path for name, path in zip(names, paths, strict=True)}


@cache
def face(folder: str) -> dict[str, str]:
    """Where each name that a folder's face gives comes from."""
    path = PACKAGE.joinpath(*folder.split(".") if folder else (), "__init__.pyi")
    if not path.exists():
        return {}
    nodes = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ImportFrom)]
    return {
        alias.asname or alias.name: joined(folder, node.module or alias.name) for node in nodes for alias in node.names
    }


def joined(*names: str) -> str:
    return ".".join(name for name in names if name)


def source(module: str, name: str) -> str:
    """The file that `from module import name` reads."""
    own = face(module)
    if name in own:
        found = own[name]
        return source(found, name) if modules().get(found, PACKAGE).name == "__init__.py" and found != module else found
    return joined(module, name) if joined(module, name) in modules() else module


@cache
def edges() -> Edges:
    """Which file imports which, and whether for type checking alone."""
    found: Edges = {}
    for name, path in modules().items():
        tree = ast.parse(path.read_text())
        guarded = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            for inner in ast.walk(node)
        }
        folder = name if path.name == "__init__.py" else name.rpartition(".")[0]
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                targets = [(alias.name, "") for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                targets = [(absolute(node, folder), alias.name) for alias in node.names]
            else:
                continue
            for target, imported in targets:
                if target == "mechvit" or target.startswith("mechvit."):
                    file = source(target.removeprefix("mechvit").lstrip("."), imported)
                    mine = found.setdefault(name, {})
                    mine[file] = mine.get(file, True) and id(node) in guarded
    return found


def absolute(node: ast.ImportFrom, folder: str) -> str:
    """The module that an import names, from `mechvit` on."""
    if not node.level:
        return node.module or ""
    parts = folder.split(".") if folder else []
    return joined("mechvit", *parts[: len(parts) - node.level + 1], node.module or "")


def room(name: str, depth: int) -> str | None:
    """The folder that a module lies in, `depth` folders down; None where it lies above."""
    parts = name.split(".") if name else []
    is_folder = modules().get(name, PACKAGE).name == "__init__.py"
    return parts[depth] if len(parts) > depth + (0 if is_folder else 1) else None


def circles(graph: dict[str, set[str]]) -> list[frozenset[str]]:
    """The strongly connected components of more than one file (Tarjan's algorithm)."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(name: str) -> None:
        number[name] = low[name] = len(number)
        stack.append(name)
        for other in graph.get(name, ()):
            if other not in number:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], number[other])
        if low[name] == number[name]:
            members = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(members) > 1:
                found.append(frozenset(members))

    for name in graph:
        if name not in number:
            visit(name)
    return found


def test_every_folder_has_its_place():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert folders <= set(ORDER)
    for outer, inner in INSIDE.items():
        here = {path.name for path in (PACKAGE / outer).iterdir() if path.is_dir() and any(path.glob("*.py"))}
        assert here <= set(inner), outer


def test_imports_run_one_way():
    up = []
    for name, targets in edges().items():
        for target in targets:
            own, other = room(name, 0), room(target, 0)
            if (own is None and other is None) or name in ("", "__main__"):
                continue
            if own != other:
                if other is not None and (own is None or ORDER.index(other) > ORDER.index(own)):
                    up.append((name, target))
            elif own in INSIDE:
                inner, deeper = room(name, 1), room(target, 1)
                order = INSIDE[own]
                if inner and deeper and order.index(deeper) > order.index(inner):
                    up.append((name, target))
    assert not up


def test_no_file_imports_itself_by_way_of_others():
    """Imports for type checking aside, which never run."""
    graph = {
        name: {target for target, checking in targets.items() if not checking and target != name}
        for name, targets in edges().items()
    }
    assert set(circles(graph)) == CIRCLES


def test_no_class_name_is_defined_twice():
    """A leading underscore makes no other name."""
    classes = Counter(
        node.name.lstrip("_")
        for path in modules().values()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    )
    assert {name for name, times in classes.items() if times > 1} == set(SHARED_NAMES)


def test_no_folder_is_crowded():
    files = Counter(path.parent for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
    assert {str(folder): n for folder, n in files.items() if n > MOST_FILES and folder.name not in CROWDED} == {}


def test_drawing_runs_no_model_not_even_late():
    heavy = ("models", "kernels", "finetuning", "views", "experiment", "cli")
    found = [
        (name, target)
        for name, targets in edges().items()
        if name.startswith("visualization")
        for target, checking in targets.items()
        if not checking and target.split(".")[0] in heavy
    ]
    assert not found


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, []),
        ({"a": {"b"}, "b": {"a"}, "c": {"a"}}, [{"a", "b"}]),
        ({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": {"d"}}, [{"d", "e"}, {"a", "b", "c"}]),
    ],
)
def test_circles_are_found(graph, expected):
    assert circles(graph) == [frozenset(members) for members in expected]
