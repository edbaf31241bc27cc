"""Each model's parts -> the run's tables, their summaries, and the claims."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import ExperimentConfig

if TYPE_CHECKING:
    import pandas as pd


def make_tables(folder: Path, models: list[str], sae_models: list[str], config: ExperimentConfig) -> None:
    """Join the parts of a run, summarise them, judge the claims; write `tables/` and `claims.json`.

    Args:
        folder: of the run, with `parts/` and `saes/`.
        models: keys of all models, the base first.
        sae_models: keys of those that have SAEs.
        config: of the run.
    """
    from mechvit.analysis import (
        attention_summary,
        first_correct,
        first_correct_summary,
        lens_summary,
        performance_summary,
    )
    from mechvit.saes import distance_table

    from .claims import claims
    from .reproduce import write_tables
    from .stages import write_json

    rules = config.rules
    options: dict[str, Any] = {"resamples": rules.resamples, "level": rules.level, "seed": rules.seed}
    tables = {name: joined(folder / "parts" / "study", models, name) for name in ("performance", "lens", "attention")}
    for name in ("sae_quality", "sae_cosine"):
        tables[name] = joined(folder / "parts" / "saes", sae_models, name)
    tables["sae_history"] = histories(folder / "saes", sae_models)
    tables["first_correct"] = first_correct(tables["lens"])
    tables["performance_summary"] = performance_summary(tables["performance"], **options)
    tables["lens_summary"] = lens_summary(tables["lens"], **options)
    base = "base" if "base" in set(tables["first_correct"]["model"]) else None  # none: the base is right nowhere
    tables["first_correct_summary"] = first_correct_summary(tables["first_correct"], base=base, **options)
    tables["attention_summary"] = attention_summary(tables["attention"], **options)
    tables["sae_distance"] = distance_table(tables["sae_cosine"], **options)
    write_tables(folder / "tables", tables)
    write_json(folder / "claims.json", [dataclasses.asdict(claim) for claim in claims(tables, rules)])


def joined(folder: Path, models: list[str], name: str) -> pd.DataFrame:
    """One table of every model, in the order of `models`."""
    import pandas as pd

    return pd.concat([pd.read_parquet(folder / key / f"{name}.parquet") for key in models], ignore_index=True)


def histories(folder: Path, models: list[str]) -> pd.DataFrame:
    """The training histories of all SAEs, with the model in the first column."""
    import pandas as pd

    from mechvit.saes import read_history

    parts = []
    for key in models:
        part = read_history(folder / key)
        part.insert(0, "model", key)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)
