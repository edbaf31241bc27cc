"""Tables of a run from each model's parts, their summaries, and the claims."""

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
        folder: folder of the run, with `parts/` and `saes/`.
        models: keys of all models, the base first.
        sae_models: keys of the models that have SAEs.
        config: settings of the run.
    """
    from mechvit.analysis import (
        attention_summary,
        first_correct,
        first_correct_summary,
        lens_summary,
        performance_summary,
    )
    from mechvit.experiment.claims.open_questions import questions
    from mechvit.experiment.claims.paper_claims import claims
    from mechvit.experiment.runs.stages import write_json, write_tables
    from mechvit.saes import distance_table

    rules = config.rules
    options: dict[str, Any] = rules.bootstrap
    tables = {name: joined(folder / "parts" / "study", models, name) for name in ("performance", "lens", "attention")}
    for name in ("sae_quality", "sae_cosine"):
        tables[name] = joined(folder / "parts" / "saes", sae_models, name)
    tables["sae_history"] = histories(folder / "saes", sae_models)
    tables["first_correct"] = first_correct(tables["lens"])
    tables["performance_summary"] = performance_summary(tables["performance"], **options)
    tables["lens_summary"] = lens_summary(tables["lens"], **options)
    base = "base" if "base" in set(tables["first_correct"]["model"]) else None  # None if the base is never right
    tables["first_correct_summary"] = first_correct_summary(tables["first_correct"], base=base, **options)
    tables["attention_summary"] = attention_summary(tables["attention"], **options)
    tables["sae_distance"] = distance_table(tables["sae_cosine"], **options)
    tables |= _open_questions(folder / "parts", sae_models, tables["performance"], config)
    write_tables(folder / "tables", tables)
    judged = [*claims(tables, rules), *questions(tables, rules)]
    write_json(folder / "claims.json", [dataclasses.asdict(claim) for claim in judged])


def _open_questions(
    parts: Path, models: list[str], performance: pd.DataFrame, config: ExperimentConfig
) -> dict[str, pd.DataFrame]:
    """Return the tables for the open questions: each tuned model's gain, and transfer to related filters."""
    import pandas as pd

    from mechvit.analysis import transfer

    tables = {
        path.stem: joined(parts / "gain", models[1:], path.stem, label="tuned_on")
        for path in sorted((parts / "gain" / models[1]).glob("gain_*.parquet"))
    }
    if config.others:
        others = pd.read_parquet(parts / "related" / "related.parquet")
        own = performance[performance["model"].isin(models) & performance["corruption"].isin(["clean", *models])]
        own = own[own["image_id"].isin(others["image_id"])]
        tested = pd.concat([own, others], ignore_index=True)
        found = transfer(tested, **config.rules.bootstrap)
        tables |= {"related": found.matrix, "related_means": found.means}
    return tables


def joined(folder: Path, models: list[str], name: str, label: str | None = None) -> pd.DataFrame:
    """Return one table of all models, in the order of `models`; `label` names a first column with the model."""
    import pandas as pd

    from mechvit.analysis.statistics.tidy_tables import labelled

    frames = [pd.read_parquet(folder / key / f"{name}.parquet") for key in models]
    if label is not None:
        frames = [labelled(frame, {label: key}) for key, frame in zip(models, frames, strict=True)]
    return pd.concat(frames, ignore_index=True)


def histories(folder: Path, models: list[str]) -> pd.DataFrame:
    """Return the training histories of all SAEs, with the model in the first column."""
    import pandas as pd

    from mechvit.analysis.statistics.tidy_tables import labelled
    from mechvit.saes import read_history

    parts = [labelled(read_history(folder / key), {"model": key}) for key in models]
    return pd.concat(parts, ignore_index=True)
