"""Provenance of a run: versions, hardware, seeds, stage times."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mechvit.code_version import code_version
from mechvit.experiment.config import ExperimentConfig

from .stages import Stages, write_json

PACKAGES = (
    "mechvit",
    "torch",
    "transformer-lens",
    "sae-lens",
    "transformers",
    "datasets",
    "circuitsvis",
    "plotly",
    "kornia",
    "scikit-image",
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
    "safetensors",
)


def describe_run(stages: Stages, config: Any, revisions: Mapping[str, str | None], seeds: Mapping[str, int]) -> None:
    """Write a run's `config.json` and `provenance.json` for its report: with the times of all stages, in every call.

    Args:
        stages: stages of the run.
        config: settings of the run, with the device that was asked for.
        revisions, seeds: see `provenance`.
    """
    write_json(stages.folder / "config.json", config)
    about = provenance(stages.records(), config.device, revisions, seeds)
    write_json(stages.folder / "provenance.json", about)
    stages.say("report ...")


def provenance(
    stages: list[dict[str, Any]], device: str | None, revisions: Mapping[str, str | None], seeds: Mapping[str, int]
) -> dict[str, Any]:
    """Return the content of `provenance.json`: the code's commit, versions, hardware, seeds, the Hub's commits, stages
    (with seconds and peak memory), start and end.

    Args:
        stages: records of the run's stages.
        device: the device that was asked for.
        revisions: commits of the Hub's models and images; None for those not from the Hub.
        seeds: use -> seed.
    """
    return {
        "code": code_version(),
        "versions": versions(),
        "hardware": hardware(device),
        "revisions": dict(revisions),
        "seeds": dict(seeds),
        "stages": stages,
        "started": min(stage["started"] for stage in stages),
        "finished": max(stage["finished"] for stage in stages),
    }


def seeds_of(config: ExperimentConfig) -> dict[str, int]:
    """Return the seeds of a run of the experiment, by use."""
    return {
        "images and noise": config.seed,
        "base": config.base.seed + config.seed,
        "fine-tuning": config.finetuning.seed + config.seed,
        "SAEs": config.saes.seed + config.seed,
        "bootstrap": config.rules.seed,
    }


def provenance_of_command(options: Any, kind: str, inputs: Sequence[str | os.PathLike[str] | None]) -> dict[str, Any]:
    """Return the content of a command's `provenance.json`: settings, versions, hardware, the Hub's commits.

    Args:
        options: the command's options, with images.
        kind: kind of the result.
        inputs: models and SAEs that it read.
    """
    return {
        "kind": kind,
        "settings": json.loads(json.dumps(dataclasses.asdict(options), default=str)),
        "revisions": revisions_of(inputs, options.images),
        "code": code_version(),
        "versions": versions(),
        "hardware": hardware(options.device),
    }


def revisions_of(models: Iterable[str | os.PathLike[str] | None], images: str | None) -> dict[str, str | None]:
    """Return the commit of each model and data set from the Hub; local ones are left out.

    Args:
        models: folders or Hub ids.
        images: `photos`, `folder:PATH` or a Hub id.
    """
    from mechvit.data.sources.hub import HubSet
    from mechvit.models.checkpoints.revisions import hub_revision

    names = [os.fspath(name) for name in models if name is not None]
    found = {name: hub_revision(name) for name in names if not Path(name).expanduser().exists()}
    if images is not None and images != "photos" and not images.startswith("folder:"):
        found[images] = hub_revision(HubSet.parse(images).name, "dataset")
    return found


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def hardware(device: str | None = None) -> dict[str, Any]:
    """Return this machine's processor, cores, memory and GPU.

    Args:
        device: the GPU to name, such as cuda:1; by default the current CUDA device.
    """
    import torch

    about: dict[str, Any] = {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        about["memory_bytes"] = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    chosen = device if device is not None and device.startswith("cuda") else None
    about["gpu"] = torch.cuda.get_device_name(chosen) if torch.cuda.is_available() else "none"
    return about


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
