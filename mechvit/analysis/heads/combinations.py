"""Every encoder of a pair with every head: how much of a gain is the head's."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Any

import numpy as np

from mechvit.analysis.behaviour.performance import evaluate
from mechvit.analysis.inputs import Images
from mechvit.analysis.pairs.kinship import Kinship, kinship
from mechvit.analysis.statistics.bootstrap import LEVEL, RESAMPLES, interval
from mechvit.analysis.statistics.results import Result
from mechvit.analysis.statistics.tidy_tables import labelled
from mechvit.analysis.summaries.bootstrap_draws import performance_draws
from mechvit.arguments import checked
from mechvit.data.conditions import as_condition
from mechvit.data.corruption_spec import CLEAN, Condition
from mechvit.models.grafting import graft_head

from .choice import no_classes, why_no_graft
from .probe import FOLDS, fit_probe

if TYPE_CHECKING:
    import pandas as pd

    from mechvit.models import HookedViT

METRICS = ("accuracy", "ece")
ENCODERS = ("base", "tuned")


@dataclass(frozen=True, repr=False)
class HeadCombinations(Result):
    """Performance, image by image, of each encoder with each head that it can have."""

    performance: pd.DataFrame
    """One row per image, encoder and head: encoder, head (`base`, `tuned`, `probe`), and the columns of `Performance`.
    """
    left_out: dict[str, str]
    """Head -> why no other encoder carries it, or why it is not there at all."""

    def to_frame(self, **labels: str) -> pd.DataFrame:
        """Return one row per image, encoder and head, the columns of `labels` first."""
        return labelled(self.performance, labels)

    def __repr__(self) -> str:
        right = (self.performance["rank"] == 0).groupby([self.performance["encoder"], self.performance["head"]]).mean()
        shown = ", ".join(f"{encoder} encoder with {head} {share:.3g}" for (encoder, head), share in right.items())
        return f"HeadCombinations(accuracy: {shown})"

    def summary(self, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0) -> pd.DataFrame:
        """Return one row per encoder, head and metric, with paired bootstrap intervals over images.

        Columns: encoder, head, metric (accuracy, ece), value, low, high.
        """
        import pandas as pd

        draws = self._draws(resamples, seed)
        rows = [
            (*key.split("/"), metric, *interval(draws[key, metric], level))
            for key in dict.fromkeys(key for key, _ in draws)
            for metric in METRICS
        ]
        return pd.DataFrame(rows, columns=["encoder", "head", "metric", "value", "low", "high"])

    def gains(self, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0) -> pd.DataFrame:
        """Return how much of the change from base to tuned is the encoder's and how much the head's.

        Columns: what, metric, value, low, high. `what` is `encoder with HEAD` (tuned encoder minus base encoder under
        one head), `head on ENCODER` (the tuned model's head minus the base's, on one encoder), and, where all four
        combinations are there, `whole`, `encoder` and `head`: the change, and the mean of each of its parts over both
        orders, which sum to it exactly.
        """
        import pandas as pd

        draws, rows = self._draws(resamples, seed), []
        keys = dict.fromkeys(key for key, _ in draws)
        for metric in METRICS:
            found = {key: draws[key, metric] for key in keys}
            parts = {
                f"encoder with {head}": found[f"tuned/{head}"] - found[f"base/{head}"]
                for head in ("base", "tuned", "probe")
                if all(f"{encoder}/{head}" in found for encoder in ENCODERS)
            }
            parts |= {
                f"head on {encoder}": found[f"{encoder}/tuned"] - found[f"{encoder}/base"]
                for encoder in ENCODERS
                if all(f"{encoder}/{head}" in found for head in ENCODERS)
            }
            if {"head on base", "head on tuned"} <= set(parts):
                parts["whole"] = found["tuned/tuned"] - found["base/base"]
                parts["encoder"] = (parts["encoder with base"] + parts["encoder with tuned"]) / 2
                parts["head"] = (parts["head on base"] + parts["head on tuned"]) / 2
            rows += [(what, metric, *interval(values, level)) for what, values in parts.items()]
        return pd.DataFrame(rows, columns=["what", "metric", "value", "low", "high"])

    def _draws(self, resamples: int, seed: int) -> dict[tuple[str, str], np.ndarray]:
        named = self.performance.assign(model=self.performance["encoder"] + "/" + self.performance["head"])
        draws = performance_draws(named, resamples=resamples, seed=seed)
        return {(model, metric): values for (model, _, metric), values in draws.items() if metric in METRICS}


@checked
def head_combinations(
    base: HookedViT,
    tuned: HookedViT,
    images: Images,
    corruption: Condition | str = CLEAN,
    *,
    kin: Kinship | None = None,
    folds: int = FOLDS,
    batch_size: int | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> HeadCombinations:
    """Measure each encoder of a pair with the base's head, with the tuned model's, and with a cross-fitted probe.

    A head that has the labels' classes is measured on its own encoder, and grafted onto the other one where the models
    are kin. The classes are the tuned model's where it has any, else the base's, else the images' own; the base's head
    takes part where its classes are the same.

    Args:
        base, tuned: any two HookedViTs.
        images: a `datasets.Dataset` (prepared or raw) or an `ImageBatch`, with labels.
        corruption: applied in [0, 1] at each model's input size.
        kin: what `kinship` found; None asks it.
        folds: folds of the probes.
        batch_size, seed, progress: as in `evaluate`.

    Raises:
        ValueError: as `evaluate` and `fit_probe`.
    """
    import pandas as pd

    models, kin = {"base": base, "tuned": tuned}, kin or kinship(base, tuned)
    classes = next((model.cfg.id2label for model in (tuned, base) if no_classes(model) is None), None)
    carried: dict[tuple[str, str], HookedViT] = {}
    left_out: dict[str, str] = {}
    for (head, model), (other, encoder) in permutations(models.items(), 2):
        if (why := no_classes(model)) is not None:
            left_out[head] = why
        elif model.cfg.id2label != classes:
            left_out[head] = "its classes are not the tuned model's"
        else:
            carried[head, head] = model
            if (why := why_no_graft(encoder, model, kin)) is None:
                carried[other, head] = graft_head(encoder, model)
            else:
                left_out[head] = why
    settings: Any = {"batch_size": batch_size, "seed": seed, "progress": progress}
    under, frames = as_condition(corruption), []
    for (name, head), model in carried.items():
        found = evaluate(model, images, under, **settings)
        frames.append(found.to_frame(encoder=name, head=head, corruption=under.key))
    for name, model in models.items():
        probe = fit_probe(model, images, under, id2label=classes, folds=folds, **settings)
        frames.append(probe.to_frame(encoder=name, head="probe", corruption=under.key))
    return HeadCombinations(pd.concat(frames, ignore_index=True), left_out)
