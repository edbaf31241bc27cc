"""README and docs name only what there is: links, files, folders, commands and their options."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from mechvit.cli.main import COMMANDS as GROUPS
from mechvit.cli.main import read_options

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "benchmarks" / "README.md"])
COMMANDS = {path.stem.replace("_", "-"): path for path in (ROOT / "scripts").glob("*.py")}


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """The headings of a page as links name them."""
    titles = re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_within_the_repository_leads_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", text_of(page))
    for link in links:
        if link.startswith(("http:", "https:", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_of_docs_is_reached_from_the_readme():
    linked = {(ROOT / link).resolve() for link in re.findall(r"\]\(([^)\s#]+)\)", text_of(ROOT / "README.md"))}
    assert {page for page in PAGES if page != ROOT / "README.md"} <= linked


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_file_and_folder_that_is_named_is_there(page):
    for name in re.findall(r"(?<![\w./-])(?:scripts|mechvit|docs|tests|benchmarks)/[\w/.-]*\w/?", text_of(page)):
        if not name.endswith("/NAME.py"):
            assert (ROOT / name).exists(), name


def test_the_architecture_lists_every_folder():
    """The folders of the package, and the folders in these."""
    listed = re.findall(r"^\| `([\w/]+)` \|", text_of(ROOT / "docs" / "architecture.md"), re.MULTILINE)
    package = ROOT / "mechvit"
    folders = {path.parent.relative_to(package).as_posix() for path in package.rglob("__init__.py")} - {"."}
    assert len(set(listed)) == len(listed)
    assert set(listed) == folders


# commands


def command_lines(page: Path) -> list[list[str]]:
    """The words of each call of `mechvit` in a page's blocks of bash."""
    blocks = re.findall(r"```bash\n(.*?)```", text_of(page), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    calls = [re.search(r"(?:^|\s|/)mechvit ([a-z-]+.*)", line) for line in lines]
    return [shlex.split(call[1], comments=True) for call in calls if call]


def test_commands_stand_under_the_headings_of_the_help():
    text = text_of(ROOT / "docs" / "commands.md").partition("## The paper")
    stand = re.findall(r"^(?:## (.+)|\*\*`mechvit ([a-z-]+)`\*\*)", text[1] + text[2], re.MULTILINE)
    listed = [
        words for heading, commands in GROUPS.items() for words in [(heading, ""), *(("", name) for name in commands)]
    ]
    assert stand == listed


def test_every_command_is_explained_and_no_other_is_named():
    explained = re.findall(r"^\*\*`mechvit ([a-z-]+)`\*\*", text_of(ROOT / "docs" / "commands.md"), re.MULTILINE)
    assert sorted(explained) == sorted(COMMANDS)
    named = {word for page in PAGES for word in re.findall(r"[`/]mechvit ([a-z][a-z-]*)", text_of(page))}
    named |= {words[0] for page in PAGES for words in command_lines(page)}
    assert named == set(COMMANDS)


def test_the_examples_use_options_that_there_are(capsys):
    calls = [(page.name, words) for page in PAGES for words in command_lines(page)]
    assert len(calls) > 25
    options = {}
    for name in sorted({words[0] for _, words in calls}):
        with pytest.raises(SystemExit) as end:
            read_options(name, ["--help"])
        assert end.value.code == 0
        options[name] = set(re.findall(r"--[a-z][\w.-]*", capsys.readouterr().out))
    for page, (name, *words) in calls:
        assert {word for word in words if word.startswith("--")} <= options[name], (page, name)
