"""Which code runs: read from git in a checkout, from the wheel elsewhere, and unknown where neither says."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mechvit
from mechvit import code_version as module
from mechvit.code_version import code_version, described

PACKAGE = Path(mechvit.__file__).parent


def git(folder: Path, *words: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A git checkout of a package of this name, whose code_version is asked."""
    (tmp_path / "mechvit").mkdir()
    file = tmp_path / "mechvit" / "code_version.py"
    shutil.copy(module.__file__, file)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    monkeypatch.setattr(module, "__file__", str(file))
    code_version.cache_clear()
    yield tmp_path
    code_version.cache_clear()


def test_a_checkout_is_asked_each_time(checkout):
    assert code_version() == {
        "version": mechvit.__version__,
        "commit": git(checkout, "rev-parse", "HEAD"),
        "dirty": False,
    }
    (checkout / "notes.txt").write_text("untracked, and not of the package")
    code_version.cache_clear()
    assert code_version()["dirty"] is False
    with (checkout / "mechvit" / "code_version.py").open("a") as file:
        file.write("# changed")
    code_version.cache_clear()
    assert code_version()["dirty"] is True


def test_without_git_and_without_a_wheel_nothing_is_known(checkout):
    shutil.rmtree(checkout / ".git")
    assert code_version() == {"version": mechvit.__version__, "commit": None, "dirty": None}


def test_without_the_git_command_the_commit_is_unknown(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert code_version() == {"version": mechvit.__version__, "commit": None, "dirty": None}


def test_a_wheel_says_what_it_was_built_from(checkout, monkeypatch):
    shutil.rmtree(checkout / ".git")
    built = type(sys)("mechvit._built")
    built.COMMIT, built.DIRTY = "c" * 40, True
    monkeypatch.setitem(sys.modules, "mechvit._built", built)
    assert code_version() == {"version": mechvit.__version__, "commit": "c" * 40, "dirty": True}


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ({"version": "1.2", "commit": "a" * 40, "dirty": False}, "mechvit 1.2 (commit aaaaaaaaaaaa)"),
        ({"version": "1.2", "commit": "a" * 40, "dirty": True}, "mechvit 1.2 (commit aaaaaaaaaaaa, with changes)"),
        ({"version": "1.2", "commit": None, "dirty": None}, "mechvit 1.2 (commit unknown)"),
        (None, "an earlier mechvit (commit unknown)"),
    ],
)
def test_described(code, text):
    assert described(code) == text
