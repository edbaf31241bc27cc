"""The benchmark as one run that can be interrupted: bases, clean tunings, plants, readings, scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mechvit.arguments import checked
from mechvit.experiment.runs.run_folder import open_run
from mechvit.experiment.runs.stages import Stages, write_json, write_tables

from .bases import TEST, images_of, train_base, tune_clean
from .choice import choose_readings, frozen_readings, sealed
from .config import COSTLY, EVERYWHERE, BenchmarkConfig
from .dose import mean_divergence
from .planting import Truth, plant
from .readings import read_places
from .scores import NULL, detection, divide_by_nulls, place_scores
from .summary import summarise, table_text

if TYPE_CHECKING:
    import datasets
    import pandas as pd

    from mechvit.models import HookedViT

KIND = "scores of planted changes"
LIMITS = (
    "Bases are tiny ViTs trained on crops of 19 photographs; intervals are over plants, which share bases. What holds "
    "here need not hold for larger models, other images or changes made by training."
)
"""Limits, which stand beside every table."""


@checked
def run_benchmark(config: BenchmarkConfig, say: Callable[[str], None] = print) -> Path:
    """Make the bases, null pairs and plants of a plan, read them by every method, and score the readings.

    Folder: `models/` (bases and clean tunings, ordinary checkpoints), `parts/` (readings of every pair), `tables/`
    (Parquet: places, detection, truth, summary), `benchmark.json`, `table.md`, `stages/`. With `develop` also
    `frozen_readings.json`, the choice made on these plants.

    Args:
        config: the plan, and where.
        say: called with a line for each stage.

    Returns:
        the folder.

    Raises:
        ValueError: `out` holds something else, or the frozen choice was changed.
    """
    choice = None if config.develop else frozen_readings()
    with open_run(config.out, KIND) as folder:
        run = _BenchmarkRun(config, folder, say)
        for shape in config.plan.shapes:
            for seed in config.plan.base_seeds:
                run.models(shape, seed)
                run.read(shape, seed)
        run.score(choice)
        return folder


class _BenchmarkRun:
    """The stages of one run."""

    def __init__(self, config: BenchmarkConfig, folder: Path, say: Callable[[str], None]) -> None:
        self.plan, self.folder = config.plan, folder
        self.stages = Stages(folder, say, verify=config.verify, fresh=config.fresh)

    @cached_property
    def images(self) -> dict[str, datasets.Dataset]:
        """The images, resized when they are first asked for."""
        return images_of(self.plan)

    def names(self) -> list[str]:
        """Return the names of all bases."""
        return [f"{shape}_{seed}" for shape in self.plan.shapes for seed in self.plan.base_seeds]

    def tunings(self, name: str) -> list[Path]:
        """Return the checkpoints of a base's clean tunings: that which is planted in, then those of the null pairs."""
        return [self.folder / "models" / name / f"clean_{i}" for i in range(1 + self.plan.nulls)]

    def models(self, shape: str, seed: int) -> None:
        """Train a base and its clean tunings."""
        plan, name = self.plan, f"{shape}_{seed}"
        base, tunings = self.folder / "models" / name / "base", self.tunings(name)
        made = (plan.image_size, plan.d_model, plan.n_layers, plan.n_heads, plan.d_mlp)
        self.stages.run(
            f"base/{name}",
            lambda: train_base(plan, shape, seed, self.images["train"], base),
            settings=[shape, seed, made, plan.train, plan.base_epochs],
            outputs=[base],
        )

        def tune() -> None:
            for i, out in enumerate(tunings):
                tune_clean(plan, base, 1000 * (seed + 1) + i, self.images["finetune"], out)

        self.stages.run(
            f"clean/{name}",
            tune,
            settings=[seed, plan.tune, plan.tune_epochs, plan.nulls],
            after=[f"base/{name}"],
            outputs=tunings,
        )

    def read(self, shape: str, seed: int) -> None:
        """Read every null pair and every plant of one base."""
        name = f"{shape}_{seed}"
        out = self.folder / "parts" / name
        self.stages.run(
            f"read/{name}",
            lambda: write_tables(out, self._tables(shape, seed)),
            settings=[shape, seed, asdict(self.plan)],
            after=[f"base/{name}", f"clean/{name}"],
            outputs=[out],
        )

    def _tables(self, shape: str, seed: int) -> dict[str, pd.DataFrame]:
        import pandas as pd

        from mechvit.models import HookedViT

        plan, test = self.plan, self.images[TEST]
        root = self.folder / "models" / f"{shape}_{seed}"
        base = HookedViT.from_pretrained(root / "base", device="cpu")
        drift, *nulls = (HookedViT.from_pretrained(path, device="cpu") for path in self.tunings(root.name))
        unit = float(np.mean([mean_divergence(a, b, test) for a, b in combinations(nulls, 2)]))
        costly = seed == plan.base_seeds[0]
        frames, truths = [], []
        for i, null in enumerate(nulls):
            methods = EVERYWHERE + (COSTLY if costly else ())
            frames.append(_labelled(read_places(base, null, test, methods), shape, seed, f"null_{i}", None))
        for pair, found, truth in self._plants(shape, seed, drift, unit):
            strongest = truth.strength in (0, max(plan.strengths))
            methods = EVERYWHERE + (COSTLY if costly and strongest else ())
            frames.append(_labelled(read_places(base, found, test, methods), shape, seed, pair, truth))
            truths.append({"shape": shape, "base_seed": seed, "pair": pair, **_plain(truth)})
        return {"readings": pd.concat(frames, ignore_index=True), "truth": pd.DataFrame(truths)}

    def _plants(self, shape: str, seed: int, drift: HookedViT, unit: float) -> Iterator[tuple[str, Any, Truth]]:
        """Yield the name, the model and the truth of every plant of a base; each has a seed of its own."""
        plan = self.plan
        base = plan.shapes.index(shape) * len(plan.base_seeds) + plan.base_seeds.index(seed)
        wanted = [(kind, strength) for kind in plan.changes for strength in plan.strengths]
        wanted += [(kind, 0.0) for kind in plan.nothings]
        for i, (kind, strength) in enumerate(wanted):
            layer = plan.layers[(base + i) % len(plan.layers)]
            own = plan.first_seed + base * len(wanted) + i
            found = plant(drift, kind, layer, strength, own, images=self.images[TEST], unit=unit)
            yield f"{kind}_{strength:g}", found.model, found.truth

    def score(self, choice: dict[str, dict[str, str]] | None) -> None:
        """Score all readings, and write the tables of those that are chosen; choose them where none are frozen."""
        out, page = self.folder / "tables", self.folder / "benchmark.json"
        text, frozen = self.folder / "table.md", self.folder / "frozen_readings.json"

        def work() -> None:
            import pandas as pd

            parts = [self.folder / "parts" / name for name in self.names()]
            table = pd.concat([pd.read_parquet(part / "readings.parquet") for part in parts], ignore_index=True)
            divided = divide_by_nulls(table)
            places, calls = place_scores(divided), detection(divided)
            chosen = choose_readings(places) if choice is None else choice
            if choice is None:
                write_json(frozen, sealed(chosen, asdict(self.plan)))
            summary = summarise(places, calls, table, chosen)
            truth = pd.concat([pd.read_parquet(part / "truth.parquet") for part in parts], ignore_index=True)
            write_tables(out, {"places": places, "detection": calls, "truth": truth, "summary": summary})
            rows = summary.astype(object).where(summary.notna(), None).to_dict("records")
            write_json(page, {"plan": asdict(self.plan), "readings": chosen, "limits": LIMITS, "summary": rows})
            _write_text(text, f"{table_text(summary)}\n{LIMITS}\n")

        outputs = [out, page, text, *([frozen] if choice is None else [])]
        after = [f"read/{name}" for name in self.names()]
        self.stages.run("scores", work, settings=[choice], after=after, outputs=outputs)


def _write_text(path: Path, text: str) -> None:
    from mechvit import files

    files.write_text(path, text)


def _labelled(found: pd.DataFrame, shape: str, seed: int, pair: str, truth: Truth | None) -> pd.DataFrame:
    """Return readings of a pair with the columns that name it and tell what is planted in it."""
    columns: dict[str, Any] = {"shape": shape, "base_seed": seed, "pair": pair}
    if truth is None:
        columns |= {"kind": NULL, "strength": 0.0, "changes_function": False, "true_layer": -1, "true_branch": ""}
        columns["true_head"] = -1
    else:
        names = {"ln1+attn": "attn", "ln2+mlp": "mlp"}
        columns |= {"kind": truth.kind, "strength": truth.strength, "changes_function": truth.changes_function}
        columns |= {"true_layer": truth.layer, "true_head": -1 if truth.head is None else truth.head}
        columns["true_branch"] = names[truth.branch.rpartition(".")[2]]
    return found.assign(**columns)


def _plain(truth: Truth) -> dict[str, Any]:
    """Return the truth without its lists."""
    return {name: value for name, value in truth.to_dict().items() if name not in ("direction", "decoys")}
