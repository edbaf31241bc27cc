"""Numbers and names are fields: nothing in the package and the scripts takes apart a text that people read."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CUTS = {"split", "rsplit", "partition", "rpartition", "removeprefix", "removesuffix"}
"""Calls that take a text apart; only at a mark that keys and file names have, such as `_`, is it no sentence."""
STARTS = {"startswith", "endswith", "find", "rfind", "index", "rindex"}
LIBRARY = "tyro's box of lines: it has no public object for a missing or unknown argument or a bad value"
ALLOWED = {
    # a file's name, wherever it lies; by what it reads: what is read there
    ("steering_directions.py", "re"): "hook points' names",
    ("bit_depth.py", "re"): "Pillow's names of raw modes",
    ("class_names.py", "re"): "classes' names, which are the user's",
    ("folder_source.py", "re"): "names of folders",
    ("hub.py", "re"): "a set as a command line names it",
    ("groups.py", "re"): "names of files, by the user's own expression",
    ("labels.py", "re"): "classes' names, which are the user's",
    ("image_origin.py", "split"): "JSON texts, which datasets sets apart so when it joins sets",
    ("corruption_spec.py", "re"): "corruptions' keys",
    ("conditions.py", "re"): "conditions' keys",
    ("functions.py", "re"): "conditions' keys, and names of modules",
    ("mixture_spec.py", "re"): "mixtures' names",
    ("synsets.py", "re"): "WordNet ids",
    ("command_line.py", "re"): LIBRARY,
    ("command_line.py", "partition"): LIBRARY,
    ("command_line.py", "startswith"): LIBRARY,
    ("disk.py", "re"): "the system's error number in messages of safetensors and Arrow, which have no field for it",
    ("faults.py", "re"): "torch's RuntimeErrors on memory, which have no type; Python names that become flags",
    ("preflight.py", "re"): "hook points' names",
    ("provenance.py", "startswith"): "/proc/cpuinfo",
    ("open_questions.py", "split"): "names of parts in one cell of a table",
    ("run_folder.py", "re"): "hashes",
    ("stages.py", "split"): "/proc/self/status",
    ("markers.py", "re"): "file names",
    ("hook_table.py", "re"): "hook points' names",
    ("hook_table.py", "split"): "shapes as jaxtyping writes them",
    ("weight_files.py", "re"): "names of weights and of files",
    ("hook_site.py", "re"): "hook points' names",
    ("hook_site.py", "split"): "shapes as jaxtyping writes them",
    ("terminal.py", "re"): "blanks, which are made single",
    ("gain_captions.py", "split"): "names of parts in one cell of a table",
    ("signed.py", "re"): "the hash at the end of a page of ours",
    ("print_panels.py", "split"): "a label that is set in lines",
    ("train_sae.py", "re"): "a repository's name",
}


def found_in(source: str) -> list[tuple[str, int]]:
    """Places that read a sentence: each `re`, and each cut or search at a blank or at no given mark, with its line.

    A list of columns written as one text is none, nor is a text whose blanks are made single; tensors are split by
    numbers, or by names of no text.
    """
    tree = ast.parse(source)
    texts = dict(_named_texts(tree))
    joined = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and _called(node) == "join"
        for arg in node.args
        for part in ast.walk(arg)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
            found += [("re", node.lineno) for name in names if name in ("re", "regex")]
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice):
            ends = [end for end in (node.slice.lower, node.slice.upper) if end is not None]
            found += [(_called(part), node.lineno) for end in ends for part in ast.walk(end) if _called(part) in STARTS]
        name = _called(node)
        if name not in CUTS | STARTS:
            continue
        assert isinstance(node, ast.Call)
        assert isinstance(node.func, ast.Attribute)
        mark = _text(node.args[0], texts) if node.args else ""
        columns = name == "split" and not node.args and _text(node.func.value, texts) is not None
        blank = mark is not None and (" " in mark or "\n" in mark or (not mark and name in CUTS))
        if blank and not columns and id(node) not in joined:
            found.append((name, node.lineno))
    return found


def _called(node: ast.AST) -> str:
    return node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else ""


def _named_texts(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and (text := _text(node.value, {})) is not None:
            for target in node.targets:
                if isinstance(target, ast.Name):
                    yield target.id, text


def _text(node: ast.expr, texts: dict[str, str]) -> str | None:
    """The constant parts of a text in the source; None if it may be no text."""
    if isinstance(node, ast.Name):
        return texts.get(node.id)
    if isinstance(node, ast.Tuple):
        return "".join(filter(None, (_text(part, texts) for part in node.elts))) or None
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant)) or None
    return str(node.value) if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)) else None


def test_no_sentence_is_taken_apart():
    used, wrong = set(), []
    for path in (path for top in ("mechvit", "scripts") for path in sorted((ROOT / top).rglob("*.py"))):
        for what, line in found_in(path.read_text(encoding="utf-8")):
            if (path.name, what) in ALLOWED:
                used.add((path.name, what))
            else:
                wrong.append(f"{path.relative_to(ROOT)}:{line} reads by {what}")
    assert not wrong, "keep numbers and names in fields: " + "; ".join(wrong)
    assert used == set(ALLOWED), "an exception that nothing needs any more"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import re\nfrom re import match", ["re", "re"]),
        ("what, found, rest = claim['rule'].partition(f'. {opening} ')", ["partition"]),
        ("for text in measured.split('; '): ...", ["split"]),
        ("first, second = scope.rsplit(MARK)\nMARK = ' minus '", ["rsplit"]),
        ("said.removeprefix('not measured: ')", ["removeprefix"]),
        ("caption.split()[0]; 'a b'.split(); text.strip('| ')", ["split"]),
        ("rule[: rule.index('.')]; rule[rule.find('±') + 1 :]", ["index", "find"]),
        ("rule.startswith(('Yes when', 'x'))", ["startswith"]),
        ("names = 'a b'\npd.DataFrame(rows, columns=names.split())", []),
        ("' '.join(str(error).split())", []),
        ("key.rpartition('_'); hook.split('.'); x.split(rows); x.split(256); line.split('\\t')", []),
        ("key.startswith('blocks.'); key.removesuffix('_bytes'); names.index(name)", []),
    ],
)
def test_the_test_finds_what_it_looks_for(source, found):
    assert [what for what, _ in found_in(source)] == found
