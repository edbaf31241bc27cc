"""Waiting times of a user: for `import mechvit`, for each script's --help, and for the logits of a first image.

    benchmarks/startup.py --out runs/benchmarks/startup

Each is a process of its own, timed from its start to its end, after one that is not counted (the files are then in
memory). "First image" loads a ViT-B/16 checkpoint of random weights and runs one image.

The limits are in seconds; beside them stands the time over that of a Python that does nothing, in the same rounds.

OUT/result.json holds every time, OUT/table.md the table, OUT/figure.html draws the ratios.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from timing import Contender

from mechvit.cli.command_line import read, run
from mechvit.files import check_out
from mechvit.settings_checks import COUNT, check, check_common

SCRIPTS = Path(__file__).parents[1] / "scripts"
PYTHON, IMPORT, FIRST = "python -c pass", "import mechvit", "first image, ViT-B/16"
LIMITS = {IMPORT: 0.5}
HELP_LIMIT = 1.5
FIRST_IMAGE = """
import sys, torch
from mechvit import HookedViT
model = HookedViT.from_pretrained(sys.argv[1], device="cpu")
print(model(torch.zeros(1, 3, 224, 224)).shape)
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the benchmark."""

    out: str
    """Folder of the result: result.json, table.md, figure.html."""
    rounds: int = 6
    """Times that everything is started; even is better."""
    first_image: bool = True
    """Measure the first image, too, which writes a checkpoint of 350 MB to a temporary folder."""
    overwrite: bool = False
    """Replace an earlier result at OUT."""

    def __post_init__(self) -> None:
        check_common(self)
        check(self, COUNT, "rounds")


def process(name: str, *arguments: str) -> Contender:
    """Return a contender that runs a Python process, which must succeed."""
    command = [sys.executable, *arguments]
    return Contender(name=name, call=lambda: subprocess.run(command, check=True, capture_output=True))


def main(options: Options) -> None:
    """Start everything, print the table and write it."""
    check_out(options.out, "benchmark", overwrite=options.overwrite, flag="--overwrite")
    from report import Beginning, Measure, publish
    from timing import time_interleaved

    beginning = Beginning.now()
    scripts = {f"scripts/{path.name} --help": str(path) for path in sorted(SCRIPTS.glob("*.py"))}
    contenders = [process(PYTHON, "-c", "pass"), process(IMPORT, "-c", IMPORT)]
    contenders += [process(name, path, "--help") for name, path in scripts.items()]
    with tempfile.TemporaryDirectory() as folder:
        if options.first_image:
            from transformers import ViTConfig, ViTForImageClassification

            ViTForImageClassification(ViTConfig()).save_pretrained(folder)
            contenders.append(process(FIRST, "-c", FIRST_IMAGE, folder))
        timing = time_interleaved(contenders, rounds=options.rounds, progress="start-up")
    limits = LIMITS | dict.fromkeys(scripts, HELP_LIMIT)
    measures = [
        Measure(
            part="start-up",
            contender=name,
            over="",
            seconds=timing.of(name),
            value=timing.of(name),
            unit="s",
            limit=limits.get(name),
        )
        for name in timing.seconds
    ]
    measures += [Measure.ratio("start-up", timing, name, PYTHON) for name in timing.seconds if name != PYTHON]
    publish(options, beginning, title="Starting up", measures=measures, timings={"start-up": timing})


if __name__ == "__main__":
    run(main, read(Options, __doc__))
