"""What a run was made with: versions, hardware, seeds, stage times."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mechvit.code_version import code_version

from .config import ExperimentConfig

PACKAGES = (
    "mechvit", "torch", "transformer-lens", "sae-lens", "transformers", "datasets", "circuitsvis", "plotly", "kornia",
    "scikit-image", "numpy", "scipy", "pandas", "pyarrow", "safetensors",
)  # fmt: skip


def provenance(
    stages: list[dict[str, Any]], config: ExperimentConfig, revisions: dict[str, str | None]
) -> dict[str, Any]:
    """What `provenance.json` holds: the code's commit, versions, hardware, seeds, the hub's commits, stages (with
    seconds and peak memory), start and end.

    Args:
        stages: the records of the run's stages.
        config: of the run.
        revisions: the commits of the hub's model and images; None of what is not of the hub.
    """
    return {
        "code": code_version(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "hardware": hardware(config.device),
        "revisions": revisions,
        "seeds": {
            "images and noise": config.seed,
            "base": config.base.seed + config.seed,
            "fine-tuning": config.finetuning.seed + config.seed,
            "SAEs": config.saes.seed + config.seed,
            "bootstrap": config.rules.seed,
        },
        "stages": stages,
        "started": min(stage["started"] for stage in stages),
        "finished": max(stage["finished"] for stage in stages),
    }


def hardware(device: str | None = None) -> dict[str, Any]:
    """Processor, cores, memory and GPU of this machine.

    Args:
        device: whose name the GPU's is, as in cuda:1; the current CUDA device's otherwise.
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
