"""`folder:PATH`: a folder of images as it is named on a command line, and what is no folder of classes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mechvit.terminal import printable

_PREFIX, _CLASSES = "folder:", ":class="
SPLITS = ("train", "training", "validation", "valid", "val", "dev", "test", "testing", "eval", "evaluation")
"""What folders of splits are called, as `datasets` knows them (its SPLIT_KEYWORDS)."""
_SPLIT = re.compile(
    rf"[\W\d_]*({'|'.join(SPLITS)})([\W\d_]*(sets?|splits?|data|images?|imgs?|photos?|pictures?))?[\W\d_]*",
    re.IGNORECASE,
)
_SYSTEM = ("/proc", "/sys", "/dev")


@dataclass(frozen=True)
class FolderSource:
    """A folder with a sub-folder of images for each class: `folder:PATH`, or `folder:PATH:class=NAME,NAME`."""

    root: Path
    classes: tuple[str, ...] = ()
    """Sub-folders that are classes (or kinds of one), although they are called as the splits of a data set are."""

    @classmethod
    def parse(cls, source: str) -> FolderSource | None:
        """Read one; None of other sources. A folder that has `:class=` in its own name is taken as it is."""
        if not source.startswith(_PREFIX):
            return None
        whole = Path(source.removeprefix(_PREFIX)).expanduser()
        path, mark, names = source.removeprefix(_PREFIX).rpartition(_CLASSES)
        if not mark or whole.is_dir():
            return cls(whole)
        return cls(Path(path).expanduser(), tuple(name for name in names.split(",") if name))


def is_split(name: str) -> bool:
    """Whether a folder is called as a split of a data set: train, Val, test2017, test_images."""
    return _SPLIT.fullmatch(name) is not None


def check_place(root: Path) -> None:
    """Refuse a folder that holds a whole system, before all of it is listed.

    Raises:
        ValueError: the root of a file system, the home folder or one that holds it, or a folder of the system's own.
    """
    place = root.resolve()
    try:
        home = Path.home().resolve()
    except RuntimeError:
        home = place / "nowhere"
    if place == Path(place.anchor):
        what = "is the root of the file system"
    elif place == home or place in home.parents:
        what = "is your home folder" if place == home else "holds your home folder"
    elif any(place.is_relative_to(own) for own in _SYSTEM):
        what = "belongs to the system"
    else:
        return
    raise ValueError(
        f"{printable(root)} {what}, and would be listed as a whole: name the folder that has a sub-folder of images "
        "for each class"
    )


def check_splits(root: Path, folders: Sequence[str], classes: Sequence[str]) -> None:
    """Refuse sub-folders that are called as splits, and so may be no classes.

    Args:
        root: the folder.
        folders: its sub-folders.
        classes: those that are classes all the same.

    Raises:
        ValueError: names them, and says how to load a split, or the folders as classes.
    """
    if not (splits := [name for name in folders if is_split(name) and name not in classes]):
        return
    others = [name for name in folders if name not in splits]
    found = (
        f"mixes folders that are called as splits ({_some(splits)}) with others ({_some(others)})"
        if others
        else f"has folders that are called as splits, not as classes ({_some(splits)})"
    )
    raise ValueError(
        f"{printable(root)} {found}: load one split, as in folder:{printable(root / splits[0])}, or move what is no "
        f"class away; if they are classes, say so: folder:{printable(root)}{_CLASSES}{_listed([*classes, *splits])}"
    )


def check_kinds(root: Path, below: Iterable[tuple[str, str]], classes: Sequence[str]) -> None:
    """Refuse classes whose images lie in folders that are called as splits, and would be mixed.

    Args:
        root: the folder.
        below: the classes with their own sub-folders, pairs.
        classes: sub-folders that are no splits all the same.

    Raises:
        ValueError: names them, and says how to mix them all the same.
    """
    pairs = [(name, kind) for name, kind in below if is_split(kind) and kind not in classes]
    if not pairs:
        return
    names, splits = (list(dict.fromkeys(part)) for part in zip(*pairs, strict=True))
    raise ValueError(
        f"{printable(root)} has classes ({_some(names)}) with folders in them that are called as splits "
        f"({_some(splits)}), whose images would be mixed: put the classes of each split into a folder of its own; if "
        f"they are kinds of the class, say so: folder:{printable(root)}{_CLASSES}{_listed([*classes, *splits])}"
    )


def _some(names: Sequence[str], count: int = 5) -> str:
    return ", ".join(map(printable, names[:count])) + (", ..." if len(names) > count else "")


def _listed(names: Sequence[str]) -> str:
    return ",".join(map(printable, names))
