"""Run the whole paper: models, tables, figures and one report.

    mechvit reproduce                                   # a small ViT on embedded photographs, in minutes
    mechvit reproduce --preset imagenet                 # ViT-B/16 on ImageNet, the paper's own setting
    mechvit reproduce --preset imagenet --model DIR --images folder:DIR --limit 200 --out runs/mine
    mechvit reproduce --saes.epochs 15 --finetuning.learning-rate 5e-5

Run it again to continue after an interruption: finished stages are kept, and a changed setting repeats only the stages
that depend on it. The report is OUT/report.html.
"""

from __future__ import annotations

import os
import time

from mechvit.experiment.config import PRESETS as PRESETS
from mechvit.experiment.config import ExperimentConfig
from mechvit.files.reading import read_object
from mechvit.terminal import say


def main(config: ExperimentConfig) -> None:
    """Run the experiment, and print the path of the report and each stage's time and memory."""
    # Spinning threads would wait for each other whenever another process uses one of the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from pathlib import Path

    from mechvit.experiment import reproduce
    from mechvit.experiment.inputs import check_device

    started = time.perf_counter()
    check_device(config.device)
    report = reproduce(config)
    stages = read_object(Path(config.out) / "provenance.json", ("stages",))["stages"]
    say(f"\n{'stage':32} seconds  peak GB")
    for stage in stages:
        say(f"{stage['name']:32} {stage['seconds']:7.1f}  {stage['peak_memory_bytes'] / 1e9:7.2f}")
    total, peak = sum(s["seconds"] for s in stages), max(s["peak_memory_bytes"] for s in stages)
    say(f"{'all stages':32} {total:7.1f}  {peak / 1e9:7.2f}")
    say(f"\nthis call took {time.perf_counter() - started:.0f} s; open {report}")
