"""Tables of a run from each model's parts, their summaries, and the claims."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .config import ExperimentConfig
from .sections.study import study_summaries

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
    from mechvit.experiment.claims.open_questions import questions
    from mechvit.experiment.claims.paper_claims import claims
    from mechvit.experiment.runs.stages import write_json, write_tables
    from mechvit.saes import distance_table

    rules = config.rules
    options = rules.bootstrap
    tables = joined_tables({key: [folder / "parts" / "study" / key] for key in models})
    tables |= joined_tables({key: [folder / "parts" / "saes" / key] for key in sae_models})
    tables["sae_history"] = histories(folder / "saes", sae_models)
    tables |= study_summaries(tables, options)
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

    tables = joined_tables({key: [parts / "gain" / key] for key in models[1:]}, "tuned_on")
    if config.others:
        others = pd.read_parquet(parts / "related" / "related.parquet")
        own = performance[performance["model"].isin(models) & performance["corruption"].isin(["clean", *models])]
        own = own[own["image_id"].isin(others["image_id"])]
        tested = pd.concat([own, others], ignore_index=True)
        found = transfer(tested, **config.rules.bootstrap)
        tables |= {"related": found.matrix, "related_means": found.means}
    return tables


def joined_tables(folders: Mapping[str, Iterable[Path]], label: str | None = None) -> dict[str, pd.DataFrame]:
    """Return every table of several models, joined over those that have it.

    Args:
        folders: model -> the folders of its tables, in the order of the rows.
        label: name of a first column with the model; None if the tables have one.
    """
    import pandas as pd

    from mechvit.analysis.statistics.tidy_tables import labelled

    found: dict[str, list[pd.DataFrame]] = {}
    for key, own in folders.items():
        for path in (path for folder in own for path in sorted(folder.glob("*.parquet"))):
            frame = pd.read_parquet(path)
            found.setdefault(path.stem, []).append(frame if label is None else labelled(frame, {label: key}))
    return {name: pd.concat(frames, ignore_index=True) for name, frames in found.items()}


def histories(folder: Path, models: list[str]) -> pd.DataFrame:
    """Return the training histories of all SAEs, with the model in the first column."""
    import pandas as pd

    from mechvit.analysis.statistics.tidy_tables import labelled
    from mechvit.saes import read_history

    parts = [labelled(read_history(folder / key), {"model": key}) for key in models]
    return pd.concat(parts, ignore_index=True)
