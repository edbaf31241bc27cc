"""Transfer between corruptions: gains of models trained on one corruption on all others, and what they depend on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from mechvit.analysis.statistics.bootstrap import LEVEL, RESAMPLES, interval, resampled_means
from mechvit.analysis.statistics.correlation import rank_correlation
from mechvit.analysis.statistics.results import Result
from mechvit.analysis.statistics.tidy_tables import check_columns, labelled
from mechvit.analysis.summaries.bootstrap_draws import Draws, image_matrix
from mechvit.arguments import checked
from mechvit.data.conditions import parse_condition
from mechvit.data.corruption_spec import GROUPS, Condition
from mechvit.data.mixture_spec import Mixture, parse_training

from .corruption_spectrum import CorruptionSpectrum, spectrum_summary
from .spectral_distance import relabelling_p_value, spectral_distances
from .transfer_pairs import RELATIONS, Distances, TransferCase, group_of, place, ratio

if TYPE_CHECKING:
    import pandas as pd

BANDED = ("same band", "other band")
"""Names of the scopes for corruptions whose centroids lie in one band (`corruption_spectrum.BANDS`), or in two."""
CONTRASTS = (("family", "across"), ("group", "across"), ("member", "outside"), BANDED)
"""Pairs of scopes whose difference is reported, first minus second."""


@dataclass(frozen=True, repr=False)
class Transfer(Result):
    """Three tidy tables; every interval is a bootstrap over images, paired over models and corruptions."""

    matrix: pd.DataFrame
    """One row per model and tested corruption: trained_on, tested_on, trained_group (noise, blur, weather, digital,
    clean, mixture or base), tested_group, relation (`RELATIONS`, or `base`), accuracy, low, high, gain (over the
    base), gain_low, gain_high, transfer (gain over that of the model trained on the tested corruption),
    transfer_low, transfer_high, spectral_distance (cycles per pixel) and same_band (1, 0 or NaN).
    """
    means: pd.DataFrame
    """One row per scope: scope (a relation; `same band`, `other band`; `blur to noise`; `a minus b`), pairs, gain (mean
    over pairs), gain_low, gain_high, transfer (summed gain over summed own gain), transfer_low, transfer_high.
    """
    similarity: pd.DataFrame
    """quantity (gain, transfer), pairs, correlation (Spearman's, of spectral distance with the quantity), low, high,
    p_value (by relabelling of corruptions); without rows where there are no spectra or fewer than 3 corruptions."""

    def to_frame(self, **labels: str) -> pd.DataFrame:
        """Return `matrix`; `labels` are constant columns put first."""
        return labelled(self.matrix, labels)

    def summary(self) -> pd.DataFrame:
        """Return `means`."""
        return self.means


@checked
def transfer(
    performance: pd.DataFrame,
    *,
    base: str = "base",
    trained: Mapping[str, Condition | Mixture] | None = None,
    spectra: Collection[tuple[Condition, CorruptionSpectrum]] = (),
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Transfer:
    """Compare the gains that training on each corruption gives on every other.

    With a(m, j) the accuracy of model m under corruption j, the base 0 and m(i) the model trained on i:

        gain(i, j) = a(m(i), j) - a(0, j),        transfer(i, j) = gain(i, j) / gain(j, j)

    A transfer of 1 says that training on i helps on j as much as training on j itself, 0 that it does not help. It is
    NaN where no model was trained on j, or that model's own gain is not certainly positive (its interval contains 0).
    The intervals are for these models: they cover the sampling of test images, not of trainings.

    Args:
        performance: per image, as `corrupted_performance` returns it, with every model under the same corruptions.
        base: the name of the model that all others were trained from.
        trained: model -> its training corruption or mixture; by default parsed from the name (`parse_training`).
        spectra: the corruptions' spectra, for `spectral_distance`, `same_band` and `similarity`; none by default.
        resamples: number of resamples of the bootstrap over images.
        level: coverage of the percentile intervals.
        seed: seed of the bootstrap and of the relabellings.

    Raises:
        ValueError: no base or nothing besides it, a model whose training is unknown, two models trained on one
            corruption, or images or corruptions that some model lacks.

    Source: the question is from the paper's section 5; relabelling test, Mantel, Cancer Research 27 (1967).
    """
    accuracy = _accuracy_draws(performance, resamples, seed)
    known = _known(accuracy, base, trained)
    tested = list(dict.fromkeys(corruption for _, corruption in accuracy))
    gains = {(m, c): accuracy[m, c] - accuracy[base, c] for m, c in accuracy}
    own = _own_gains(gains, known, level)
    distances, bands = _spectral(spectra)
    cells = [
        TransferCase(
            model, key, known.get(model), parse_condition(key), gains[model, key], own.get(key), distances, bands
        )
        for model, key in product((base, *known), tested)
    ]
    return Transfer(
        matrix=_matrix(cells, accuracy, level),
        means=_means([cell for cell in cells if cell.trained is not None], level),
        similarity=_similarity([cell for cell in cells if cell.distance is not None], distances, level, seed),
    )


def _matrix(cells: Iterable[TransferCase], accuracy: Draws, level: float) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for cell in cells:
        found = (accuracy[cell.model, cell.tested_on], cell.gain, cell.transfer)
        numbers = [number for draws in found for number in interval(draws, level)]
        distance, same = (np.nan if x is None else float(x) for x in (cell.distance, cell.same_band))
        groups = (group_of(cell.trained), cell.tested.group)
        rows.append((cell.model, cell.tested_on, *groups, cell.relation, *numbers, distance, same))
    names = "trained_on tested_on trained_group tested_group relation accuracy low high gain gain_low gain_high"
    more = "transfer transfer_low transfer_high spectral_distance same_band"
    return pd.DataFrame(rows, columns=[*names.split(), *more.split()])


def _means(cells: list[TransferCase], level: float) -> pd.DataFrame:
    """Compute the mean of every scope that has a pair, and the differences of two scopes."""
    import pandas as pd

    draws: dict[str, tuple[int, np.ndarray, np.ndarray]] = {}
    for name in (*RELATIONS, *BANDED, *(f"{a} to {b}" for a, b in product(GROUPS, GROUPS))):
        if chosen := [cell for cell in cells if name in _scopes(cell)]:
            draws[name] = (len(chosen), np.mean([cell.gain for cell in chosen], axis=0), _pooled(chosen))
    for first, second in CONTRASTS:
        if first in draws and second in draws:
            (n, gain, share), (m, other, other_share) = draws[first], draws[second]
            draws[f"{first} minus {second}"] = (n + m, gain - other, share - other_share)
    rows = [(name, n, *interval(gain, level), *interval(share, level)) for name, (n, gain, share) in draws.items()]
    names = "scope pairs gain gain_low gain_high transfer transfer_low transfer_high"
    return pd.DataFrame(rows, columns=names.split())


def _scopes(cell: TransferCase) -> list[str]:
    """Return the scopes of a pair; those of bands and groups contain only pairs of different corruptions."""
    scopes = [cell.relation]
    if cell.same_band is not None:
        scopes.append(BANDED[0] if cell.same_band else BANDED[1])
    if isinstance(cell.trained, Condition) and cell.relation in ("family", "group", "across"):
        scopes.append(f"{cell.trained.group} to {cell.tested.group}")
    return scopes


def _pooled(cells: list[TransferCase]) -> np.ndarray:
    """Compute summed gain over summed own gain, over the cells that have an own gain."""
    pairs = [(cell.gain, cell.own) for cell in cells if cell.own is not None]
    if not pairs:
        return np.full_like(cells[0].gain, np.nan)
    gain, own = (np.sum([pair[i] for pair in pairs], axis=0) for i in (0, 1))
    return ratio(gain, own)


def _similarity(cells: list[TransferCase], distances: Distances, level: float, seed: int) -> pd.DataFrame:
    """Compute rank correlations over ordered pairs of two corruptions."""
    import pandas as pd

    rows = []
    things = list(dict.fromkeys(c for pair in distances for c in pair))
    square = np.array([[distances[a, b] for b in things] for a in things])
    for quantity in ("gain", "transfer"):
        chosen = [cell for cell in cells if quantity == "gain" or cell.own is not None]
        involved = {c for cell in chosen for c in (cell.trained, cell.tested)}
        if len(involved) < 3:
            continue
        draws = np.stack([getattr(cell, quantity) for cell in chosen], axis=1)
        first, second = (
            np.array([things.index(getattr(cell, name)) for cell in chosen]) for name in ("trained", "tested")
        )
        distance = np.broadcast_to(square[first, second], draws.shape)
        found = interval(rank_correlation(distance, draws), level)
        p_value = relabelling_p_value(square, first, second, draws[0], seed=seed)
        rows.append((quantity, len(chosen), *found, p_value))
    return pd.DataFrame(rows, columns=["quantity", "pairs", "correlation", "low", "high", "p_value"])


def _spectral(
    spectra: Collection[tuple[Condition, CorruptionSpectrum]],
) -> tuple[Distances, dict[Condition, str]]:
    """Return the distance between every two corruptions with a spectrum, and the band of each."""
    spectra = [(c, s) for c, s in spectra if c.family != "clean"]
    if not spectra:
        return {}, {}
    names, square = spectral_distances(spectra)
    bands = spectrum_summary(spectra, resamples=1).set_index("corruption")["band"]
    distances = {(a, b): float(square[i, j]) for (i, a), (j, b) in product(enumerate(names), repeat=2)}
    return distances, {c: str(bands[c.key]) for c in names}


def _own_gains(gains: Draws, known: Mapping[str, Condition | Mixture], level: float) -> dict[str, np.ndarray]:
    """Return tested corruption -> the gain of the model that was trained on it, where that is certainly positive."""
    found = {}
    for model, what in known.items():
        if isinstance(what, Condition) and what.family != "clean" and (model, what.key) in gains:
            if what.key in found:
                raise ValueError(f"two models were trained on {what.key}; give only one of them")
            found[what.key] = gains[model, what.key]
    return {key: draws for key, draws in found.items() if interval(draws, level).low > 0}


def _accuracy_draws(performance: pd.DataFrame, resamples: int, seed: int) -> Draws:
    """Return (model, corruption) -> draws of accuracy; corruptions in order, clean first."""
    check_columns(performance, "model", "corruption", "image_id", "rank")
    table = performance.assign(correct=performance["rank"] == 0)
    columns, correct = image_matrix(table, "correct", ("model", "corruption"))
    draws = dict(zip(columns, resampled_means(correct, resamples=resamples, seed=seed).T, strict=True))
    models = dict.fromkeys(performance["model"])
    tested = sorted({key for _, key in columns}, key=lambda key: place(parse_condition(key)))
    for model, key in product(models, tested):
        if (model, key) not in draws:
            raise ValueError(f"every model must be tested under the same corruptions; {model} lacks {key}")
    return {(model, key): draws[model, key] for model, key in product(models, tested)}


def _known(
    accuracy: Draws, base: str, trained: Mapping[str, Condition | Mixture] | None
) -> dict[str, Condition | Mixture]:
    """Return model -> its training, in order: corruptions as in `CORRUPTION_FAMILIES`, then mixtures."""
    models = list(dict.fromkeys(model for model, _ in accuracy))
    if base not in models or len(models) < 2:
        raise ValueError(
            f"the table must hold the base and at least one model that was trained from it; base is {base!r}, the "
            f"models are {', '.join(models)}"
        )
    others = [model for model in models if model != base]
    if trained is None:
        trained = {model: parse_training(model) for model in others}
    if lacking := [model for model in others if model not in trained]:
        raise ValueError(f"trained must name the training corruption of every model; {', '.join(lacking)} missing")
    order = sorted(others, key=lambda model: place(trained[model]))
    return {model: trained[model] for model in order}
