"""A small result, written as commands write theirs, and the content of a folder."""

from __future__ import annotations

from pathlib import Path

from mechvit import files


def make(out: Path, kind: str = "analysis", text: str = "x", **options: object) -> None:
    with files.new_folder(out, kind, **{"flag": "--overwrite"} | options) as folder:
        files.write_text(folder / "performance.parquet", text)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
