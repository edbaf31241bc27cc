"""The hook points of a model as a Markdown table: name, shape, what it is, when it exists.

    scripts/hook_points.py --model google/vit-base-patch16-224
    scripts/hook_points.py --model openai/clip-vit-base-patch32 --zero-shot
    scripts/hook_points.py --out docs/hook_points.md --overwrite

Of a checkpoint only the config is read. Without --model the table is that of all supported families.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mechvit.experiment.command_line import read, run
from mechvit.terminal import say


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which table, and where to."""

    model: str | None = None
    """Folder or hub id of a checkpoint; None takes all supported families."""
    zero_shot: bool = False
    """The table of the checkpoint with text embeddings as its head (CLIPModel, SiglipModel, Siglip2Model)."""
    out: str | None = None
    """Markdown file for the table; None prints it."""
    overwrite: bool = False
    """Replace an earlier file at OUT."""


def main(options: Options) -> None:
    """Make the table; print or write it."""
    if options.zero_shot and options.model is None:
        raise ValueError("--zero-shot is about one checkpoint: give its --model")
    if options.out is not None and os.path.lexists(options.out) and not options.overwrite:
        raise ValueError(f"{options.out} exists: give another --out, or --overwrite to replace it")
    if options.out is not None and Path(options.out).is_dir():
        raise ValueError(f"{options.out} is a folder: give --out a file's name")
    from mechvit.models.hook_table import checkpoint_table, family_table

    table = family_table() if options.model is None else checkpoint_table(options.model, options.zero_shot)
    if options.out is None:
        say(table, end="")
        return
    place = Path(options.out)
    beside = place.with_name(place.name + ".partial")
    beside.write_text(table, encoding="utf-8")
    os.replace(beside, place)


if __name__ == "__main__":
    run(main, read(Options, __doc__))
