"""Make null models: what would be seen if nothing of the kind had been done to BASE.

    mechvit nulls runs/photos/models/base --like runs/photos/models/gaussian_blur_4 --out nulls
    mechvit nulls BASE --like TUNED --images folder:scans --kind seeds --count 3 --out seeds
    mechvit nulls BASE --like TUNED --images folder:scans --corruption clean --learning-rate 5e-5 --epochs 3 \\
        --batch-size 32 --kind seeds --out seeds

TUNED's training is repeated by its training_log.json (of `mechvit finetune`), else by its trainer_state.json (of
Hugging Face's Trainer), and what these do not tell must be given. OUT/KIND_SEED are ordinary checkpoints, and
OUT/nulls.json says by which recipe they were made and where each of its settings is from. An interrupted run continues
when the command is given again.
"""

from __future__ import annotations

from dataclasses import dataclass

from tyro.conf import Positional

from mechvit.cli.options import own_first
from mechvit.experiment.nulls.config import NullsConfig
from mechvit.terminal import say


@own_first
@dataclass(frozen=True, kw_only=True)
class Options(NullsConfig):
    """Options of null models."""

    base: Positional[str]
    """The base: a folder or Hub id of an image classifier; for seeds also a bare encoder."""


def main(options: Options) -> None:
    """Make the nulls, and print where they are."""
    from mechvit.experiment.nulls import make_nulls

    say(str(make_nulls(options, say)))
