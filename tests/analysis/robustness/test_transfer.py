"""Transfer against sums and resamples written out, on tables with planted gains."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

from mechvit.analysis import CorruptionSpectrum, Transfer, transfer
from mechvit.analysis.robustness.transfer_pairs import group_of, relation
from mechvit.data import CLEAN, Corruption, Mixture

IMAGES = 200
MODELS = ("box_blur_3", "gaussian_blur_2", "gaussian_blur_4", "gaussian_noise_4", "both=box_blur_3+gaussian_noise_4")
TESTED = ("clean", "gaussian_blur_2", "gaussian_blur_4", "box_blur_3", "gaussian_noise_4", "speckle_noise_3")
BASE = (160, 110, 80, 90, 60, 70)
"""Images of 200 that the base has right under each of `TESTED`."""
GAINS = {
    "gaussian_blur_2": (-4, 8, 10, 12, 0, 4),
    "gaussian_blur_4": (-10, 10, 40, 32, -6, 2),
    "box_blur_3": (-6, 18, 36, 40, 2, 0),
    "gaussian_noise_4": (-8, -10, -20, 4, 50, 36),
    "both": (-2, 8, 22, 30, 42, 30),
}
"""Number of images that each model has right beyond the base's."""


@pytest.fixture(scope="module")
def performance() -> pd.DataFrame:
    """Which images are right is drawn; the rows are shuffled."""
    generator, rows = np.random.default_rng(0), []
    for model, gains in {"base": (0,) * 6, **GAINS}.items():
        for key, start, gain in zip(TESTED, BASE, gains, strict=True):
            rank = np.full(IMAGES, 2)
            rank[generator.permutation(IMAGES)[: start + gain]] = 0
            ids = np.arange(IMAGES) + 11
            rows.append(pd.DataFrame({"model": model, "corruption": key, "image_id": ids, "rank": rank}))
    return pd.concat(rows).sample(frac=1, random_state=1)


TRAINED = {name: Corruption.parse(name) for name in GAINS if name != "both"} | {"both": Mixture.parse(MODELS[-1])}


def spectrum(*power: float) -> CorruptionSpectrum:
    bins = torch.arange(len(power)).double() / 8
    return CorruptionSpectrum(torch.arange(2), bins, torch.tensor([power, power], dtype=torch.float64))


SPECTRA = {
    "gaussian_blur_2": spectrum(0, 0, 2, 0, 2),
    "gaussian_blur_4": spectrum(0, 3, 1, 0, 0),
    "box_blur_3": spectrum(0, 4, 2, 2, 0),
    "gaussian_noise_4": spectrum(1, 1, 1, 1, 6),
    "speckle_noise_3": spectrum(0, 0, 0, 1, 9),
}


@pytest.fixture(scope="module")
def found(performance) -> Transfer:
    spectra = [(Corruption.parse(key), s) for key, s in SPECTRA.items()]
    return transfer(performance, trained=TRAINED, spectra=spectra)


def cell(found: Transfer, model: str, key: str) -> pd.Series:
    rows = found.matrix[(found.matrix["trained_on"] == model) & (found.matrix["tested_on"] == key)]
    assert len(rows) == 1
    return rows.iloc[0]


def gain(model: str, key: str) -> float:
    return GAINS[model][TESTED.index(key)] / IMAGES


def scope(found: Transfer, name: str) -> pd.Series:
    return found.means.set_index("scope").loc[name]


# the matrix


def test_planted_gains_are_found(found):
    assert len(found.matrix) == 6 * 6
    for model in GAINS:
        for key, start in zip(TESTED, BASE, strict=True):
            row = cell(found, model, key)
            assert row.accuracy == pytest.approx(start / IMAGES + gain(model, key))
            assert row.gain == pytest.approx(gain(model, key))
            assert row.gain_low < row.gain < row.gain_high
            own = gain(key, key) if key in GAINS and key != "gaussian_blur_2" else math.nan
            assert row.transfer == pytest.approx(gain(model, key) / own, nan_ok=True)
            assert row.low <= row.accuracy <= row.high


def test_rows_are_in_order_clean_first_and_mixtures_last(found):
    order = ["base", "gaussian_noise_4", "gaussian_blur_2", "gaussian_blur_4", "box_blur_3", "both"]
    assert list(found.matrix["trained_on"].unique()) == order
    order = ["clean", "gaussian_noise_4", "speckle_noise_3", "gaussian_blur_2", "gaussian_blur_4", "box_blur_3"]
    assert list(found.matrix["tested_on"].unique()) == order


def test_own_transfer_is_one_without_spread(found):
    for key in ("gaussian_blur_4", "box_blur_3", "gaussian_noise_4"):
        row = cell(found, key, key)
        assert row[["transfer", "transfer_low", "transfer_high"]].tolist() == pytest.approx([1, 1, 1])


def test_no_transfer_where_own_gain_is_not_sure(found):
    own = cell(found, "gaussian_blur_2", "gaussian_blur_2")
    assert own.gain_low < 0 < own.gain, "the fixture must hold a gain that is not sure"
    assert found.matrix.query("tested_on in ('gaussian_blur_2', 'speckle_noise_3', 'clean')")["transfer"].isna().all()


def test_base_gains_nothing(found):
    base = found.matrix[found.matrix["trained_on"] == "base"]
    assert (base[["gain", "gain_low", "gain_high"]] == 0).all(axis=None)
    assert set(base["relation"]) == {"base"}


def test_intervals_match_a_loop_of_resamples(found, performance):
    """A bootstrap written as a loop, other draws: the ends agree to Monte Carlo error."""
    wide = performance.assign(right=performance["rank"] == 0).pivot(
        index="image_id", columns=["model", "corruption"], values="right"
    )
    columns = {column: wide[column].to_numpy(float) for column in wide.columns}
    generator, draws = np.random.default_rng(5), []
    for _ in range(4000):
        taken = generator.integers(IMAGES, size=IMAGES)
        means = {column: values[taken].mean() for column, values in columns.items()}

        def of(model: str, key: str, means=means) -> float:
            return means[model, key] - means["base", key]

        ratio = of("box_blur_3", "gaussian_blur_4") / of("gaussian_blur_4", "gaussian_blur_4")
        group = [
            ("box_blur_3", "gaussian_blur_4"),
            ("gaussian_blur_2", "box_blur_3"),
            ("gaussian_blur_4", "box_blur_3"),
        ]
        pooled = sum(of(*pair) for pair in group) / sum(of(key, key) for _, key in group)
        draws.append((of("box_blur_3", "gaussian_blur_4"), ratio, pooled))
    expected = np.quantile(draws, [0.025, 0.975], axis=0).T
    row = cell(found, "box_blur_3", "gaussian_blur_4")
    assert [row.gain_low, row.gain_high] == pytest.approx(expected[0], abs=0.012)
    assert [row.transfer_low, row.transfer_high] == pytest.approx(expected[1], abs=0.06)
    mean = scope(found, "group")
    assert [mean.transfer_low, mean.transfer_high] == pytest.approx(expected[2], abs=0.06)


def test_pairing_tightens_gains(performance):
    """A model that is right on the base's very images gains nothing, surely."""
    copy = performance[performance["model"] == "base"].assign(model="fog_1")
    found = transfer(pd.concat([performance, copy]), trained={**TRAINED, "fog_1": Corruption("fog", 1)})
    row = found.matrix.query("trained_on == 'fog_1' and tested_on == 'box_blur_3'").iloc[0]
    assert row[["gain", "gain_low", "gain_high", "transfer", "transfer_low"]].tolist() == [0] * 5


# relations and their means


def test_relations():
    box, blur, noise = Corruption("box_blur", 3), Corruption("gaussian_blur", 4), Corruption("gaussian_noise", 4)
    mixture = Mixture((box, noise))
    assert relation(box, box) == "itself"
    assert relation(blur, Corruption("gaussian_blur", 1)) == "family"
    assert relation(box, blur) == relation(blur, box) == "group"
    assert relation(box, noise) == relation(noise, Corruption("fog", 1)) == "across"
    assert relation(box, CLEAN) == relation(mixture, CLEAN) == "clean"
    assert (relation(CLEAN, CLEAN), relation(CLEAN, box)) == ("clean", "control")
    assert [group_of(what) for what in (None, CLEAN, box, mixture)] == ["base", "clean", "blur", "mixture"]
    assert (relation(mixture, box), relation(mixture, blur)) == ("member", "outside")
    assert relation(Mixture((CLEAN, noise)), CLEAN) == "member"


def test_means_by_relation_match_sums(found):
    pairs = {
        "family": [("gaussian_blur_2", "gaussian_blur_4"), ("gaussian_blur_4", "gaussian_blur_2")],
        "group": [
            ("box_blur_3", "gaussian_blur_2"),
            ("box_blur_3", "gaussian_blur_4"),
            ("gaussian_blur_2", "box_blur_3"),
            ("gaussian_blur_4", "box_blur_3"),
            ("gaussian_noise_4", "speckle_noise_3"),
        ],
        "member": [("both", "box_blur_3"), ("both", "gaussian_noise_4")],
        "outside": [("both", key) for key in ("gaussian_blur_2", "gaussian_blur_4", "speckle_noise_3")],
        "clean": [(model, "clean") for model in GAINS],
        "blur to noise": [
            (model, key) for model in GAINS if "blur" in model for key in ("gaussian_noise_4", "speckle_noise_3")
        ],
        "noise to noise": [("gaussian_noise_4", "speckle_noise_3")],
    }
    sure = {"gaussian_blur_4", "box_blur_3", "gaussian_noise_4"}
    for name, members in pairs.items():
        row = scope(found, name)
        assert row.pairs == len(members)
        assert row.gain == pytest.approx(np.mean([gain(*pair) for pair in members]))
        known = [(model, key) for model, key in members if key in sure]
        share = sum(gain(*pair) for pair in known) / sum(gain(k, k) for _, k in known) if known else math.nan
        assert row.transfer == pytest.approx(share, nan_ok=True)
    for first, second in (("family", "across"), ("group", "across"), ("member", "outside")):
        row, one, other = (scope(found, name) for name in (f"{first} minus {second}", first, second))
        assert row.gain == pytest.approx(one.gain - other.gain)
        assert row.transfer == pytest.approx(one.transfer - other.transfer)
        assert row.pairs == one.pairs + other.pairs
    assert scope(found, "group minus across").gain_low > 0, "planted: blur helps blur, noise noise"
    assert not {"weather to blur", "digital to digital"} & set(found.means["scope"])


def test_bands_match_centroids(found):
    """Centroids: 0.375, 0.156, 0.219 and 0.375, 0.488 cycles a pixel; bands end at 1/6 and 1/3."""
    assert cell(found, "gaussian_blur_2", "gaussian_noise_4").same_band == 1
    assert cell(found, "gaussian_blur_4", "box_blur_3").same_band == 0
    assert math.isnan(cell(found, "both", "box_blur_3").same_band)
    assert math.isnan(cell(found, "gaussian_blur_4", "gaussian_blur_4").same_band)
    same = [("gaussian_blur_2", "gaussian_noise_4"), ("gaussian_noise_4", "gaussian_blur_2")]
    same += [(model, "speckle_noise_3") for model in ("gaussian_blur_2", "gaussian_noise_4")]
    row = scope(found, "same band")
    assert row.pairs == 4
    assert row.gain == pytest.approx(np.mean([gain(*pair) for pair in same]))
    assert scope(found, "other band").pairs == 4 * 4 - 4


# similarity


def test_distances_and_their_rank_correlation_match_scipy(found):
    import scipy.stats

    distances, values, shares = [], [], []
    for model in list(GAINS)[:-1]:
        for key in TESTED[1:]:
            if model == key:
                continue
            one, other = (SPECTRA[name].power[0].numpy() for name in (model, key))
            places = np.arange(5) / 8
            wanted = scipy.stats.wasserstein_distance(places, places, one, other)
            row = cell(found, model, key)
            assert row.spectral_distance == pytest.approx(wanted)
            distances.append(round(wanted, 12))  # equal ones tie
            values.append(gain(model, key))
            shares.append(round(row.transfer, 12))
    by = found.similarity.set_index("quantity")
    assert by.loc["gain", "pairs"] == len(values) == 16
    assert by.loc["gain", "correlation"] == pytest.approx(scipy.stats.spearmanr(distances, values).statistic)
    known = ~np.isnan(shares)
    wanted = scipy.stats.spearmanr(np.array(distances)[known], np.array(shares)[known]).statistic
    assert by.loc["transfer", "pairs"] == known.sum() == 9
    assert by.loc["transfer", "correlation"] == pytest.approx(wanted)
    assert (by["low"] <= by["correlation"]).all()
    assert (by["correlation"] <= by["high"]).all()


def test_without_spectra_there_is_no_similarity(performance):
    found = transfer(performance, trained=TRAINED, resamples=20)
    assert len(found.similarity) == 0
    assert list(found.similarity.columns) == ["quantity", "pairs", "correlation", "low", "high", "p_value"]
    assert found.matrix["spectral_distance"].isna().all()
    assert "same band" not in set(found.means["scope"])


# refusals


def test_errors_name_what_lacks(performance):
    with pytest.raises(ValueError, match="base is 'nobody', the models are"):
        transfer(performance, base="nobody", trained=TRAINED)
    with pytest.raises(ValueError, match="at least one model that was trained from it"):
        transfer(performance[performance["model"] == "base"])
    with pytest.raises(ValueError, match="both missing"):
        transfer(performance, trained={k: v for k, v in TRAINED.items() if k != "both"})
    with pytest.raises(ValueError, match=r"family_level, as in gaussian_blur_4.*got 'both'"):
        transfer(performance)
    some = performance[(performance["model"] != "both") | (performance["corruption"] != "clean")]
    with pytest.raises(ValueError, match="both lacks clean"):
        transfer(some, trained=TRAINED)
    with pytest.raises(ValueError, match="two models were trained on box_blur_3"):
        transfer(performance, trained={**TRAINED, "both": Corruption("box_blur", 3)})
