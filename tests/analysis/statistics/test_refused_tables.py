"""Statistics of few, equal, missing or doubled values: NaN or refused, never a number that means nothing."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr

from mechvit.analysis import (
    cosine_histogram,
    first_correct_histogram,
    first_correct_summary,
    performance_summary,
)
from mechvit.analysis.statistics.bootstrap import interval, intervals, resampled_means
from mechvit.analysis.statistics.correlation import agreement, correlation, permutation_p, rank_correlation
from mechvit.analysis.statistics.verdicts import all_above, all_within

NAN = float("nan")


@settings(max_examples=200, deadline=None)
@given(value=st.floats(-1e3, 1e3), n=st.integers(1, 30), seed=st.integers(0, 99))
def test_equal_numbers_have_no_correlation(value, n, seed):
    """Their mean is often another number in the last bit (of three times 0.1, say), which would correlate with 1."""
    same, other = np.full(n, value), np.random.default_rng(seed).normal(size=n)
    assert np.isnan(correlation(same, same))
    assert np.isnan(correlation(np.stack([same, other]), np.stack([other, same]))).all()
    assert np.isnan(agreement(same, other).get("pearson", NAN))


def test_other_rows_have_scipys_correlation():
    x, y = np.random.default_rng(0).normal(size=(2, 4, 9))
    x[1] = 0.1
    found = correlation(x, y)
    for row in (0, 2, 3):
        np.testing.assert_allclose(found[row], pearsonr(x[row], y[row]).statistic, rtol=1e-12)
    assert np.isnan(found[1])
    assert np.isnan(correlation(x[:, :0], y[:, :0])).all()


@pytest.mark.parametrize("compare", [correlation, rank_correlation, agreement, permutation_p])
def test_lists_of_two_lengths_are_no_pairs(compare):
    with pytest.raises(ValueError, match="compared in pairs; got 3 and 1"):
        compare(np.array([0.1, 0.2, 0.3]), np.array([0.1]))


def test_a_permutation_test_needs_permutations():
    for count in (0, -3):
        with pytest.raises(ValueError, match="permutations must be"):
            permutation_p(np.arange(4.0), np.arange(4.0), permutations=count)


def test_one_image_has_no_interval():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draws = resampled_means(np.array([[0.7, 1.0]]), resamples=20)
        assert draws[0].tolist() == [0.7, 1.0]
        found = interval(draws[:, 0])
    assert found.value == 0.7
    assert np.isnan(found[1:]).all()
    assert np.isnan(intervals(draws)[1:]).all()
    assert (all_above([found], 0.1), all_within([found], 0.8)) == ("inconclusive", "inconclusive")
    with pytest.raises(ValueError, match="at least one draw; got 1"):
        interval(np.array([0.7]))


def performance(**changes: list) -> pd.DataFrame:
    columns = {
        "model": ["base", "base", "tuned", "tuned"],
        "corruption": ["clean"] * 4,
        "image_id": [0, 1, 0, 1],
        "rank": [0, 1, 0, 0],
        "confidence": [0.5, 0.6, 0.7, 0.8],
        "probability": [0.5, 0.2, 0.7, 0.8],
    }
    return pd.DataFrame(columns | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": [0, -1, 0, 0]}, r"rank must hold whole numbers of at least 0; 1 of 4 are others, as .*-1"),
        ({"rank": [0.5, 1, 0, 0]}, "rank must hold whole numbers"),
        ({"rank": [0, NAN, 0, 0]}, "rank must hold whole numbers"),
        ({"rank": ["0", "1", "0", "0"]}, r"rank must hold whole numbers .* 4 of 4 are others"),
        ({"confidence": [50, 60, 70, 80]}, "confidence must hold numbers from .* 4 of 4"),
        ({"confidence": [0.5, -0.2, 0.7, 0.8]}, "confidence must hold numbers .* 1 of 4"),
        ({"model": ["base", "base", None, None]}, "every row must have a model; 2 of 4 have none"),
        ({"image_id": [0, NAN, 0, NAN]}, "every row must have a image_id; 2 of 4"),
        ({"image_id": [0, 0, 0, 1]}, "each image may appear once"),
        ({"image_id": [0, 1, 0, 2]}, "known for all 3 images"),
        ({"model": [1, 1, 2, 2]}, "one of the table's models, 1, 2, or None; got 'base'"),
    ],
)
def test_tables_of_answers_that_mean_nothing_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        performance_summary(performance(**changes), resamples=20)


def test_first_correct_layers_are_layers():
    first = pd.DataFrame({"model": "base", "corruption": "clean", "image_id": [0, 1, 2], "layer": [1, 2, 2]})
    for wrong in ([1, -1, 2], [1, 1.5, 2], [1, NAN, 2]):
        for summary in (first_correct_summary, first_correct_histogram):
            with pytest.raises(ValueError, match="layer must hold whole numbers of at least 0; 1 of 3"):
                summary(first.assign(layer=wrong), resamples=20)
    with pytest.raises(ValueError, match="each image may appear once"):
        first_correct_histogram(first.assign(image_id=[0, 0, 1]))
    with pytest.raises(ValueError, match="the table has no rows"):
        first_correct_histogram(first.iloc[:0])
    with pytest.raises(ValueError, match="base must be None: the table has no rows; got 'base'"):
        first_correct_summary(first.iloc[:0])


def test_cosines_that_are_none_are_in_no_bin():
    cosine = pd.DataFrame(
        {"model": "base", "architecture": "topk", "corruption": "x", "image_id": [0, 0, 1, 1], "cosine": [0.5] * 4}
    )
    for wrong in (NAN, 2.0, float("inf")):
        with pytest.raises(ValueError, match=r"cosine must hold numbers from -1.001 to 1.001; 1 of 4 are others"):
            cosine_histogram(cosine.assign(cosine=[0.5, wrong, 0.7, 0.8]), resamples=20)
    rounded = cosine_histogram(cosine.assign(cosine=[0.5, 1 + 1e-7, 1, 0.8]), bins=2, resamples=20)
    assert rounded["density"].tolist() == [0, 2]
    with pytest.raises(ValueError, match="every row must have a model; 1 of 4"):
        cosine_histogram(cosine.assign(model=["base", "base", None, "base"]))
    with pytest.raises(ValueError, match="the table has no rows"):
        cosine_histogram(cosine.iloc[:0])
