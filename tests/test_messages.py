"""Messages of the package to a Python user: arguments by their Python names; the command line alone writes flags."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import mechvit
from mechvit.data import load_images, prepare
from mechvit.views import attention_explorer, attention_view, patch_lens_view

PACKAGE = Path(mechvit.__file__).parent
FLAG = re.compile(r"(?<![\w-])--[a-z]")
NO_MESSAGES = {
    "code_version.py": "calls git",
    "experiment/inputs.py": "reads what command lines name",
    "experiment/runs/stages.py": "tells a run on a terminal how to start over",
    "files/output_checks.py": "names an output by `flag`, which its callers give",
    "models/hook_table.py": "writes a table that tells how it was made",
}


def spoken(path: Path) -> Iterator[tuple[int, str]]:
    """The texts of a file that are no docstrings, and no flag alone, which tells a check what it is called."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or id(node) in bare or not isinstance(node.value, str):
            continue
        if not re.fullmatch(r"--[a-z-]+", node.value):
            yield node.lineno, node.value


def test_no_message_of_the_package_names_a_flag():
    found, looked = [], 0
    for path in PACKAGE.rglob("*.py"):
        if "cli" in path.parts:  # the command line itself
            continue
        if (name := path.relative_to(PACKAGE).as_posix()) not in NO_MESSAGES:
            looked += 1
            found += [f"{name}:{line}: {text}" for line, text in spoken(path) if FLAG.search(text)]
    assert found == []
    assert looked > 200


@pytest.fixture
def writers(tiny_model, tiny_processor) -> dict[str, Callable[[Any], Any]]:
    """Functions that write a result, with its path as the one argument that is left."""
    picture, photos = Image.new("RGB", (32, 32), "red"), load_images("photos", "test", limit=19, image_size=32)
    return {
        "model": tiny_model.save_pretrained,
        "images": lambda path: prepare(photos, tiny_processor, path=path),
        "attention": attention_view(tiny_model, picture).save,
        "explorer": attention_explorer({"a": tiny_model}, photos, limit=1).save,
        "lens": patch_lens_view({"a": tiny_model}, photos, limit=1).save,
    }


def test_a_place_that_cannot_be_is_refused_in_python_s_words(writers, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.txt").write_text("mine")
    for name, write in writers.items():
        for place in ("", " ", 3, ["a"], None, tmp_path / "notes.txt", tmp_path / "photos"):
            if name == "images" and place is None:
                continue  # keeps them in memory
            with pytest.raises((ValueError, FileExistsError)) as refused:
                write(place)
            line = str(refused.value)
            assert "\n" not in line
            assert not FLAG.search(line), f"{name} of {place!r}: {line}"
            assert "path" in line or "folder" in line or "file" in line or "page" in line, (
                f"{name} of {place!r}: {line}"
            )
    assert (tmp_path / "notes.txt").read_text() == (tmp_path / "photos" / "one.txt").read_text() == "mine"
