"""`folder:PATH`: image folders as named on a command line, and checks that they are folders of classes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mechvit.terminal import printable

_PREFIX, _CLASSES = "folder:", ":class="
SPLIT_NAMES = ("train", "training", "validation", "valid", "val", "dev", "test", "testing", "eval", "evaluation")
"""Names of split folders that `datasets` recognises (its SPLIT_KEYWORDS)."""
_SPLIT = re.compile(
    rf"[\W\d_]*({'|'.join(SPLIT_NAMES)})([\W\d_]*(sets?|splits?|data|images?|imgs?|photos?|pictures?))?[\W\d_]*",
    re.IGNORECASE,
)
_SYSTEM = ("/proc", "/sys", "/dev")


@dataclass(frozen=True)
class FolderSource:
    """A folder with a sub-folder of images for each class: `folder:PATH`, or `folder:PATH:class=NAME,NAME`."""

    root: Path
    classes: tuple[str, ...] = ()
    """Sub-folders that are classes although they are named like a data set's splits."""

    @classmethod
    def parse(cls, source: str) -> FolderSource | None:
        """Parse a folder source; None for others. A folder with `:class=` in its name is taken literally."""
        if not source.startswith(_PREFIX):
            return None
        whole = Path(source.removeprefix(_PREFIX)).expanduser()
        path, mark, names = source.removeprefix(_PREFIX).rpartition(_CLASSES)
        if not mark or whole.is_dir():
            return cls(whole)
        return cls(Path(path).expanduser(), tuple(name for name in names.split(",") if name))


def is_split(name: str) -> bool:
    """Return whether a folder is named like a data set's split: train, Val, test2017, test_images."""
    return _SPLIT.fullmatch(name) is not None


def check_place(root: Path) -> None:
    """Refuse a system or home folder before all of it is listed.

    Raises:
        ValueError: the root of a file system, the home folder or one that holds it, or a system folder.
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
    """Refuse sub-folders that are named like splits and may therefore not be classes.

    Args:
        root: the folder.
        folders: its sub-folders.
        classes: those declared as classes.

    Raises:
        ValueError: names them, and says how to load a split or to declare the folders as classes.
    """
    if not (splits := [name for name in folders if is_split(name) and name not in classes]):
        return
    others = [name for name in folders if name not in splits]
    found = (
        f"mixes folders named like splits ({_some(splits)}) with others ({_some(others)})"
        if others
        else f"has folders named like splits, not like classes ({_some(splits)})"
    )
    raise ValueError(
        f"{printable(root)} {found}: load one split, as in folder:{printable(root / splits[0])}, or move away what "
        f"is not a class; if they are classes, write folder:{printable(root)}{_CLASSES}{_listed([*classes, *splits])}"
    )


def check_kinds(root: Path, below: Iterable[tuple[str, str]], classes: Sequence[str]) -> None:
    """Refuse classes whose images lie in folders named like splits, which would be mixed.

    Args:
        root: the folder.
        below: pairs of class and sub-folder.
        classes: sub-folders declared as classes, not splits.

    Raises:
        ValueError: names them, and says how to mix them deliberately.
    """
    pairs = [(name, kind) for name, kind in below if is_split(kind) and kind not in classes]
    if not pairs:
        return
    names, splits = (list(dict.fromkeys(part)) for part in zip(*pairs, strict=True))
    raise ValueError(
        f"{printable(root)} has classes ({_some(names)}) that contain folders named like splits ({_some(splits)}), "
        "whose images would be mixed: put the classes of each split into a separate folder; if they are kinds of the "
        f"class, write folder:{printable(root)}{_CLASSES}{_listed([*classes, *splits])}"
    )


def _some(names: Sequence[str], count: int = 5) -> str:
    return ", ".join(map(printable, names[:count])) + (", ..." if len(names) > count else "")


def _listed(names: Sequence[str]) -> str:
    return ",".join(map(printable, names))
