"""Groups of images (a site, a scanner, a patient): from folders, from file names, or from a table beside the images."""

from __future__ import annotations

import csv
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from mechvit.arguments import checked
from mechvit.data.sources.picture import path_text
from mechvit.terminal import printable

if TYPE_CHECKING:
    import datasets

PARENT = "parent"
"""Word for the name of each image's folder, and the column that it gives."""
_TABLES = {".csv": ",", ".tsv": "\t"}
"""Ending of a table's name -> what separates its columns."""
_KEYS = ("path", "file")
"""Columns of a table that name the image."""
RESERVED = frozenset(
    [
        "image",
        "label",
        "image_id",
        "file",
        "path",
        "sha256",
        "pixels",
        "model",
        "corruption",
        "metric",
        "prediction",
        "rank",
        "rank_present",
        "confidence",
        "probability",
        "loss",
        "classes",
        "value",
        "low",
        "high",
        "n",
        "layer",
        "cluster",
        "stratum",
    ]
)
"""Names that columns of images or of results have already."""


def with_groups(rows: datasets.Dataset, groups: str, root: str) -> datasets.Dataset:
    """Return images with a column of text for each group.

    Args:
        rows: images with the columns `path` and `file`.
        groups: `parent` (the name of the folder that an image is in), a regular expression with named groups that is
            searched in each image's path, as in `(?P<site>[^/]+)/(?P<patient>\\d+)_`, or a table (.csv, .tsv) with a
            column `path` or `file` and one for each group.
        root: name of the folder to which paths are relative, the parent of images that lie in it.

    Raises:
        ValueError: none of these; a table without such columns, or with two rows for an image or names that columns
            have already; an expression that does not match an image.
    """
    import datasets

    for name, values in text_columns(rows, groups, root).items():
        rows = rows.add_column(name, list(values), feature=datasets.Value("string"))
    return rows


@checked
def group_columns(images: datasets.Dataset) -> list[str]:
    """Return the names of a data set's columns of text about its images, other than their paths and hashes."""
    import datasets

    return [
        name
        for name, feature in images.features.items()
        if isinstance(feature, datasets.Value) and feature.dtype == "string" and name not in RESERVED
    ]


def text_columns(
    rows: datasets.Dataset, groups: str, root: str, *, what: str = "groups", own: frozenset[str] = frozenset()
) -> dict[str, Sequence[str | None]]:
    """Return the columns that `with_groups` adds.

    Args:
        rows, groups, root: as in `with_groups`.
        what: name of the setting, for errors.
        own: names that the columns may have although they are reserved.

    Raises:
        ValueError: as in `with_groups`.
    """
    paths: list[str] = rows["path"][:]
    if groups == PARENT:
        return {PARENT: [PurePosixPath(path).parent.name or root for path in paths]}
    if Path(groups).suffix.lower() in _TABLES:
        return _from_table(Path(groups).expanduser(), paths, rows["file"][:], what, own)
    if "(?P<" in groups:
        return _from_names(groups, paths, what, own)
    raise ValueError(
        f"{what} must be 'parent', a table whose name ends in .csv or .tsv, or a regular expression with named groups, "
        f"as in (?P<{'cluster' if own else 'site'}>[^/]+)/; got {groups!r}"
    )


def _check_names(names: Iterable[str], what: str, own: frozenset[str]) -> None:
    """Refuse groups with the names of other columns."""
    if taken := [name for name in names if name not in own and (name in RESERVED or name.startswith("pixels"))]:
        raise ValueError(f"{what} cannot be called {', '.join(taken)}, as other columns are: rename them")


def _from_names(pattern: str, paths: Sequence[str], what: str, own: frozenset[str]) -> dict[str, Sequence[str | None]]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{what} is no regular expression: {error}; got {pattern!r}") from error
    _check_names(expression.groupindex, what, own)
    found = [(path, expression.search(path)) for path in paths]
    if missed := [path for path, match in found if match is None]:
        raise ValueError(
            f"the expression {pattern!r} of {what} matches {len(paths) - len(missed):,} of {len(paths):,} images; "
            f"not {_some(missed)}: write one that matches every path below the folder"
        )
    return {name: [match[name] for _, match in found if match is not None] for name in expression.groupindex}


def _from_table(
    table: Path, paths: Sequence[str], files: Sequence[str], what: str, own: frozenset[str]
) -> dict[str, Sequence[str | None]]:
    """Match the rows of a table with the images; rows and images without a partner are named in warnings."""
    shown = path_text(table)
    key, rows = _read(table, what)
    names = [name for name in rows[0] if name not in _KEYS]
    _check_names(names, what, own)
    places = _places(key, paths, files)
    row_of: dict[int, dict[str, str]] = {}
    unmatched: list[str] = []
    for row in rows:
        named = _plain(row[key])
        found = places.get(named, [])
        if len(found) > 1:
            raise ValueError(f"{shown}: {printable(named)} names {len(found)} images; write the path below the folder")
        if not found:
            unmatched.append(named)
        elif found[0] in row_of:
            raise ValueError(f"{shown} has two rows for {printable(named)}: leave one")
        else:
            row_of[found[0]] = row
    if not row_of:
        raise ValueError(
            f"none of the {len(rows):,} rows of {shown} names an image: its {key} is {_some(unmatched, 2)}, and the "
            f"images are {_some(paths, 2)}"
        )
    if unmatched:
        warnings.warn(f"rows of {shown} that name no image: {len(unmatched):,} ({_some(unmatched)})", stacklevel=2)
    if missed := [path for i, path in enumerate(paths) if i not in row_of]:
        warnings.warn(f"images that have no row in {shown}: {len(missed):,} ({_some(missed)})", stacklevel=2)
    return {name: [row_of[i][name] or None if i in row_of else None for i in range(len(paths))] for name in names}


def _read(table: Path, what: str) -> tuple[str, list[dict[str, str]]]:
    """Return the column that names the images, and the rows.

    Raises:
        ValueError: no such file, no such column, none besides, no row, or a row of another length.
    """
    shown = path_text(table)
    if not table.is_file():
        raise ValueError(f"{what} names the table {shown}, and there is no such file")
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            lines = list(csv.reader(file, delimiter=_TABLES[table.suffix.lower()], strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{shown} is no table in UTF-8 ({error})") from error
    header, *body = [line for line in lines if line] or [[]]
    key = next((name for name in _KEYS if name in header), None)
    names = [name for name in header if name not in _KEYS]
    twice = [name for name, count in Counter(header).items() if count > 1]
    if key is None or not names or twice or "" in names:
        raise ValueError(
            f"{shown} must have a column path or file and one column for each group, with names of their own; its "
            f"columns are {printable(', '.join(header)) or 'none'}"
        )
    if wrong := next((number for number, line in enumerate(body, 2) if len(line) != len(header)), None):
        raise ValueError(f"{shown}: row {wrong} has {len(body[wrong - 2])} columns, and the first {len(header)}")
    if not body:
        raise ValueError(f"{shown} has no row below its columns' names")
    return key, [dict(zip(header, line, strict=True)) for line in body]


def _places(key: str, paths: Sequence[str], files: Sequence[str]) -> dict[str, list[int]]:
    """Return what a table may call an image -> its indices: its path, whole or below the folder; `file`: its name."""
    found: dict[str, list[int]] = defaultdict(list)
    for i, (path, file) in enumerate(zip(paths, files, strict=True)):
        for name in {path, _plain(file), *([PurePosixPath(path).name] if key == "file" else [])}:
            found[name].append(i)
    return found


def _plain(path: str) -> str:
    return path.strip().replace("\\", "/").removeprefix("./")


def _some(items: Sequence[str], count: int = 3) -> str:
    return printable(", ".join(items[:count]) + (", ..." if len(items) > count else ""))
