"""A whole synthetic run folder, as an experiment leaves it, with plausible random numbers: what the report reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import fake_tables as fake
import numpy as np
from fake_claims import claims
from fake_views import LABELS, large_views, write_views


def write_fake_run(
    run: Path, *, saes: bool = True, images: int = 60, seed: int = 0, labels: Sequence[str] = LABELS
) -> Path:
    """Write the run folder `run`; without `saes` it lacks every SAE table."""
    rng = np.random.default_rng(seed)
    tables = run / "tables"
    tables.mkdir(parents=True)
    first = fake.first_correct(rng, images)
    frames = {
        "performance": fake.performance(rng, images),
        "performance_summary": fake.performance_summary(rng),
        "lens_summary": fake.lens_summary(rng),
        "first_correct": first,
        "first_correct_summary": fake.first_correct_summary(first),
        "attention_summary": fake.attention_summary(rng),
        **(fake.sae_tables(rng, images) if saes else {}),
    }
    for name, frame in frames.items():
        frame.to_parquet(tables / f"{name}.parquet")
    write_views(rng, run, labels)
    (run / "claims.json").write_text(json.dumps(claims()))
    config = {
        "preset": "photos",
        "images": {"source": "photos", "size": 64, "seed": 0, "classes": list(labels)},
        "finetuning": {"learning_rate": 5e-5, "epochs": 10, "batch_size": 64},
        "saes": {"expansion": 32, "k": 32, "learning_rate": 1e-3},
    }
    (run / "config.json").write_text(json.dumps(config))
    provenance = {
        "versions": {"torch": "2.13.0", "transformer-lens": "3.9.0", "plotly": "7.1.0"},
        "hardware": {"cpu": "2 cores", "memory_bytes": 8 * 2**30},
        "seeds": {"data": 0, "bootstrap": 1},
        "stages": [
            {"name": "base", "seconds": 92.41, "peak_memory_bytes": 1.9e9},
            {"name": "evaluate", "seconds": 41.02, "peak_memory_bytes": 1.2e9},
            {"name": "saes", "seconds": 133.9, "peak_memory_bytes": 2.4e9},
        ],
        "started": "2030-01-02T03:04:05+00:00",
        "finished": "2030-01-02T03:09:11+00:00",
    }
    (run / "provenance.json").write_text(json.dumps(provenance))
    return run


def write_large_run(run: Path) -> Path:
    """A run of the size that the budgets are stated for: 8 pictures of 224 px, 12 layers of 12 heads, two models."""
    write_fake_run(run, images=200)
    large_views(np.random.default_rng(1), run / "views")
    return run
