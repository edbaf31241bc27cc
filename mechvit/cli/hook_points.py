"""Print or write the hook points of a model as a Markdown table: name, shape, content, and when each exists.

    mechvit hook-points --model google/vit-base-patch16-224
    mechvit hook-points --model openai/clip-vit-base-patch32 --zero-shot
    mechvit hook-points --out docs/hook_points.md --overwrite

Only a checkpoint's config is read. Without --model, the table covers all supported families.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mechvit.cli.options import OutputOptions, own_first
from mechvit.files import Lock, is_signed, write_signed
from mechvit.settings_checks import check_common
from mechvit.terminal import say


@own_first
@dataclass(frozen=True, kw_only=True)
class Options(OutputOptions):
    """Options of the table of hook points."""

    model: str | None = None
    """Folder or Hub id of a checkpoint; None selects all supported families."""
    zero_shot: bool = False
    """Show the table for the checkpoint with text embeddings as its head (CLIPModel, SiglipModel, Siglip2Model)."""
    out: str | None = None
    """Markdown file for the table; None prints it."""
    overwrite: bool = False
    """Replace an earlier file at OUT."""

    def __post_init__(self) -> None:
        check_common(self)


def main(options: Options) -> None:
    """Print or write the table."""
    if options.zero_shot and options.model is None:
        raise ValueError("--zero-shot needs one checkpoint: give its --model")
    if options.out is not None:
        check(Path(options.out), options.overwrite)
    from mechvit.models.hook_table import checkpoint_table, family_table

    table = family_table() if options.model is None else checkpoint_table(options.model, options.zero_shot)
    if options.out is None:
        say(table, end="")
        return
    with Lock(Path(options.out).resolve()):
        write_signed(options.out, table)


def check(place: Path, overwrite: bool) -> None:
    """Refuse, before the table is computed, a path that must not be written.

    Raises:
        ValueError: the path is a folder, an earlier table (without --overwrite), or another file.
    """
    if place.is_dir() or not place.name:
        raise ValueError(f"--out must be a file's name, as in hook_points.md; got {str(place)!r}")
    if place.exists() and not is_signed(place):
        raise ValueError(
            f"{place} exists and is no table of hook points, or was edited since: give another --out, or move it away"
        )
    if place.exists() and not overwrite:
        raise ValueError(f"{place} exists: give another --out, or --overwrite to replace it")
