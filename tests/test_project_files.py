"""The files around the package agree: the Pythons that are promised, the checks of `make lint`, the citation."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import longest
import pytest
import yaml

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def read_yaml(name: str):
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_every_promised_python_is_tested_and_no_tool_reads_another():
    classifiers = [text.rpartition(" ")[2] for text in PYPROJECT["project"]["classifiers"] if "Python :: 3." in text]
    matrix = read_yaml(".github/workflows/ci.yml")["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert matrix == classifiers == ["3.11", "3.12", "3.13"]
    lowest = matrix[0]
    assert PYPROJECT["project"]["requires-python"] == f">={lowest}"
    assert PYPROJECT["tool"]["ruff"]["target-version"] == f"py{lowest.replace('.', '')}"
    assert PYPROJECT["tool"]["mypy"]["python_version"] == lowest
    assert f"mechvit needs Python {lowest} or newer" in MAKEFILE
    assert f"Python {lowest}" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_longest_files_of_tests_are_there():
    names = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert set(longest.FILES) <= names
    assert len(set(longest.FILES)) == len(longest.FILES)


def test_a_commit_is_checked_as_make_lint_checks():
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)[1]
    commands = [line.strip().replace("$(BIN)", ".venv/bin").removesuffix(" .") for line in lint.splitlines()]
    (repository,) = read_yaml(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    entries = [hook["entry"].removesuffix(" --force-exclude") for hook in repository["hooks"]]
    assert entries == [command.removesuffix(" --check") for command in commands]
    assert len(entries) == 3


def test_the_citation_names_the_paper_that_the_readme_names():
    citation = read_yaml("CITATION.cff")
    (paper,) = citation["references"]
    assert paper["title"] in (ROOT / "README.md").read_text(encoding="utf-8").replace("\n", " ")
    assert [author["family-names"] for author in paper["authors"]] == ["Gao", "Agarwal", "Hadfield-Menell", "Ma"]
    assert citation["license"] == PYPROJECT["project"]["license"]


@pytest.mark.processes
@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_refuses_a_python_that_is_not_the_environments(tmp_path):
    """With PYTHON named, another Python's .venv is not used in silence; without, .venv is used as it is."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho 3.9\n")
    python.chmod(0o755)
    (tmp_path / ".venv" / ".installed").touch()

    def make(*arguments: str, **names: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if name != "PYTHON" and not name.startswith("MAKE")}
        return subprocess.run(
            ["make", "setup", *arguments], cwd=tmp_path, env=kept | names, capture_output=True, text=True, check=False
        )

    wanted = f"{sys.version_info[0]}.{sys.version_info[1]}"
    for done in (make(f"PYTHON={sys.executable}"), make(PYTHON=sys.executable)):
        assert done.returncode != 0
        assert f".venv is of Python 3.9, and PYTHON={sys.executable} is {wanted}" in done.stderr
    assert make().returncode == 0
    python.write_text(f"#!/bin/sh\necho {wanted}\n")
    assert make(f"PYTHON={sys.executable}").returncode == 0
