"""`folder:DIR`: image folders as named on a command line, their splits, and checks that they are folders of classes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mechvit.terminal import printable

_PREFIX, _CLASSES, _AT = "folder:", ":class=", "@"
SPLIT_NAMES = ("train", "training", "validation", "valid", "val", "dev", "test", "testing", "eval", "evaluation")
"""Names of split folders that `datasets` recognises (its SPLIT_KEYWORDS)."""
_SPLIT = re.compile(
    rf"[\W\d_]*({'|'.join(SPLIT_NAMES)})"
    r"([\W\d_]*(sets?|splits?|data|images?|imgs?|photos?|pictures?))?(\.X)?[\W\d_]*",
    re.IGNORECASE,
)
_KINDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Word in a split folder's name -> what the split is for, which `dev` and `eval` leave open."""
_SYSTEM = ("/proc", "/sys", "/dev")


@dataclass(frozen=True)
class FolderSource:
    """A folder of images, with a sub-folder for each class or without: `folder:DIR[@SPLIT][:class=NAME,NAME]`."""

    root: Path
    classes: tuple[str, ...] = ()
    """Sub-folders that are classes although they are named like a data set's splits."""
    split: str = ""
    """The one of its train, val and test folders that is meant."""

    @classmethod
    def parse(cls, source: str) -> FolderSource | None:
        """Parse a folder source; None for others. A folder with `:class=` or @ in its name is taken literally."""
        if not source.startswith(_PREFIX):
            return None
        path, names = source.removeprefix(_PREFIX), ""
        if _CLASSES in path and not _is_folder(path):
            path, _, names = path.rpartition(_CLASSES)
        split = ""
        if _AT in path and not _is_folder(path):
            place, _, last = path.rpartition(_AT)
            path, split = (path, "") if "/" in last or not last else (place, last)
        return cls(Path(path).expanduser(), tuple(name for name in names.split(",") if name), split)

    def of_split(self) -> FolderSource:
        """Return the folder of the split that is named, as a source of its own; itself where none is named.

        Raises:
            ValueError: there is no such folder, or several that the name can mean.
        """
        if not self.split or not self.root.is_dir():
            return self
        names = visible_folders(self.root)
        alike = [name for name in names if name.casefold() == self.split.casefold()]
        kind = split_kind(self.split)
        same = [name for name in names if kind is not None and split_kind(name) == kind]
        found = [self.split] if self.split in names else alike or same
        if len(found) != 1:
            what = f"several folders that {self.split} can mean" if found else f"no folder {self.split}"
            has = _some(found or [name for name in names if is_split(name)] or names, 8) or "no folder at all"
            raise ValueError(
                f"{printable(self.root)} has {what}: {has}; name one, as in folder:{printable(self.root)}@NAME"
            )
        return FolderSource(self.root / found[0], self.classes)


def is_split(name: str) -> bool:
    """Return whether a folder is named like a data set's split: train, Val, test2017, test_images, train.X1."""
    return _SPLIT.fullmatch(name) is not None


def split_kind(name: str) -> str | None:
    """Return what a folder named like a split is for, `train`, `val` or `test`; None for any other folder."""
    found = _SPLIT.fullmatch(name)
    return None if found is None else _KINDS.get(found[1].casefold())


def visible_folders(root: Path) -> list[str]:
    """Return the names of the folders in a folder, without those whose names begin with a dot."""
    return sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def given_parts(source: FolderSource) -> dict[str, str]:
    """Return the train, val and test folders that a folder consists of, kind -> name.

    It is empty where the source names one of them, or the folder has others too, two of a kind, or no train folder
    beside a val or test folder.
    """
    if source.split or not source.root.is_dir():
        return {}
    names = [name for name in visible_folders(source.root) if name not in source.classes]
    kinds = [split_kind(name) for name in names]
    if len(names) < 2 or "train" not in kinds or None in kinds or len(set(kinds)) < len(kinds):
        return {}
    return {str(kind): name for kind, name in zip(kinds, names, strict=True)}


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
    held_out = next((name for kind in ("val", "test") for name in splits if split_kind(name) == kind), splits[0])
    raise ValueError(
        f"{printable(root)} {found}: name one of them, as in folder:{printable(root)}{_AT}{printable(held_out)}, or "
        f"move away what is not a class; if they are classes, write folder:{printable(root)}{_CLASSES}"
        f"{_listed([*classes, *splits])}"
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


def _is_folder(path: str) -> bool:
    return Path(path).expanduser().is_dir()


def _some(names: Sequence[str], count: int = 5) -> str:
    return ", ".join(map(printable, names[:count])) + (", ..." if len(names) > count else "")


def _listed(names: Sequence[str]) -> str:
    return ",".join(map(printable, names))
