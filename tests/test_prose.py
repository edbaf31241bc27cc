"""Docstrings begin in one way: an imperative for functions, a noun phrase for everything else."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mechvit"
FOLDERS = ("*.py", *(f"{path.name}/**/*.py" for path in sorted(PACKAGE.iterdir()) if (path / "__init__.py").is_file()))
"""Patterns of files in the package; `*.py` are those at its root."""
WORDS = """
Ablate Add Allocate Allow Answer Append Apply Approximate Arrange Assemble Assign Attach Attribute Average Blend
Blur Break Build Cache Call Change Check Choose Classify Close Compare Compile Compute Concatenate Convert
Convolve Copy Corrupt Count Create Decide Decode Decorate Deflate Describe Disable Divide Draw Embed Encode End
Enlarge Escape Evaluate Extract Fill Filter Find Fine-tune Finish Flush Fold Follow Format Generate Group Hold
Import Infer Initialise Join Judge Keep List Load Locate Lock Make Map Mark Match Measure Move Multiply Name
Normalise Offer Open Order Pack Parse Patch Place Poll Pool Prepare Print Project Provide Publish Put Raise Read
Rearrange Record Refuse Register Release Remove Rename Reorder Replace Report Rescale Reset Resize Restore
Restrict Resume Return Rewrite Rotate Round Run Sample Save Scale Score Scroll Seed Select Set Shift Show Shrink
Silence Smear Splice Split Stack Start State Steer Store Stream Study Sum Swap Switch Synchronise Tabulate Take
Test Train Translate Turn Unlock Update Upload Wait Whiten Wrap Write Yield
"""
VERBS = frozenset(WORDS.split())
"""First words of functions' docstrings; add a plain verb where none of these fits."""
RIDDLES = {"Give", "Gives", "How", "Let", "Lets", "Of", "Say", "Says", "Tell", "Tells", "What", "Whose"}
"""First words that no docstring has: their subject is missing or comes too late."""


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_function_begins_with_an_imperative(folder):
    functions = [(where, text) for where, kind, text in _docstrings(folder) if kind == "function"]
    assert functions
    assert [(where, text) for where, text in functions if _first(text) not in VERBS] == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_everything_else_begins_with_a_noun_phrase(folder):
    others = [(where, text) for where, kind, text in _docstrings(folder) if kind == "noun"]
    assert others
    assert [(where, text) for where, text in others if _first(text) in {"Return", "Returns", "Returned"}] == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_docstring_begins_with_a_riddle(folder):
    assert [(where, text) for where, _, text in _docstrings(folder) if _first(text) in RIDDLES] == []


def test_kinds_are_told_apart():
    source = """
"module"
class C:
    "class"
    x: int
    "field"
    y = 1
    @property
    def p(self): "property"
    def f(self):
        "method"
        def g(): "inner"
    def __len__(self): "dunder"
if True:
    def h(): "conditional"
"""
    assert [(kind, text) for _, kind, text in _kinds(ast.parse(source), "")] == [
        *(("noun", "module"), ("noun", "class"), ("noun", "field"), ("noun", "property"), ("function", "method")),
        *(("function", "inner"), ("dunder", "dunder"), ("function", "conditional")),
    ]


def _docstrings(folder: str) -> Iterator[tuple[str, str, str]]:
    for path in sorted(PACKAGE.glob(folder)):
        yield from _kinds(ast.parse(path.read_text()), path.relative_to(PACKAGE.parent).as_posix())


def _kinds(node: ast.AST, where: str, kind: str = "noun") -> Iterator[tuple[str, str, str]]:
    """Yield (place, kind, text) for the docstring of a node, of its fields and of all that it defines."""
    before: ast.AST = node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant) and isinstance(child.value.value, str):
            if before is node and not isinstance(node, ast.If | ast.Try | ast.With | ast.For):
                yield f"{where}:{child.lineno}", kind, child.value.value
            elif isinstance(before, ast.Assign | ast.AnnAssign):
                yield f"{where}:{child.lineno}", "noun", child.value.value
        if isinstance(child, ast.Module | ast.ClassDef | ast.FunctionDef | ast.If | ast.Try | ast.With | ast.For):
            yield from _kinds(child, where, _kind(child))
        if isinstance(child, ast.stmt):
            before = child


def _kind(node: ast.AST) -> str:
    if not isinstance(node, ast.FunctionDef):
        return "noun"
    if any(ast.unparse(decorator).endswith("property") for decorator in node.decorator_list):
        return "noun"
    return "dunder" if node.name.startswith("__") and node.name.endswith("__") else "function"


def _first(text: str) -> str:
    return (text.split() or [""])[0].rstrip(",.:;")
