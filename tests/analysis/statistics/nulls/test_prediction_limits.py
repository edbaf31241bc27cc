"""Limits for one more null model, against statsmodels' prediction interval and the t test of one against several."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from mechvit.analysis.statistics import moderated_variances, prediction_limits, seed_limits, with_null


@pytest.fixture(scope="module")
def nulls():
    return np.random.default_rng(0).normal(size=(5, 12)) * np.exp(0.5 * np.random.default_rng(1).normal(size=12)) + 3


def test_a_single_row_has_the_plain_prediction_interval():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        linear = pytest.importorskip("statsmodels.regression.linear_model")
    values = np.array([1.0, 2.5, -0.5, 0.7])
    found = prediction_limits(values[:, None], np.array([5.0]))
    frame = linear.OLS(values, np.ones(4)).fit().get_prediction([1.0]).summary_frame(alpha=0.05)
    assert found.low[0] == pytest.approx(frame["obs_ci_lower"].iloc[0], rel=1e-10)
    assert found.high[0] == pytest.approx(frame["obs_ci_upper"].iloc[0], rel=1e-10)
    assert found.df.tolist() == [3]
    test = scipy.stats.ttest_ind([5.0], values)  # a sample of one adds no degree of freedom
    assert found.z[0] == pytest.approx(test.statistic, rel=1e-10)
    assert found.p[0] == pytest.approx(test.pvalue, rel=1e-10)


def test_rows_are_moderated_together(nulls):
    difference = np.linspace(0, 8, 12)
    found = prediction_limits(nulls, difference)
    own = moderated_variances(nulls.var(axis=0, ddof=1), 4)
    error = np.sqrt(own.variance * 1.2)
    np.testing.assert_allclose(found.z, (difference - nulls.mean(0)) / error, rtol=1e-12)
    np.testing.assert_allclose(found.high - nulls.mean(0), scipy.stats.t.ppf(0.975, own.df) * error, rtol=1e-12)
    np.testing.assert_allclose(found.high + found.low, 2 * nulls.mean(0), rtol=1e-12)
    assert found.df.tolist() == [own.df] * 12
    assert ((found.p < 0.05) == ((difference < found.low) | (difference > found.high))).all()
    assert found.outside == ((difference < found.low) | (difference > found.high)).sum() > 0
    plain = prediction_limits(nulls, difference, moderate=False)
    assert plain.df.tolist() == [4] * 12
    assert np.ptp(np.log(found.high - found.low)) < np.ptp(np.log(plain.high - plain.low))


def test_moderation_knows_no_unit_and_no_order(nulls):
    difference = np.linspace(0, 8, 12)
    found = prediction_limits(nulls, difference)
    other = prediction_limits(100 * nulls[:, ::-1] - 7, 100 * difference[::-1] - 7)
    np.testing.assert_allclose(other.z[::-1], found.z, rtol=1e-9)


def test_differences_that_are_not_known_have_limits_and_no_z(nulls):
    found = prediction_limits(nulls, np.full(12, np.nan))
    assert np.isnan(found.z).all()
    assert np.isfinite(found.low).all()
    assert found.outside == 0


def test_nulls_that_are_all_alike_set_no_limit():
    """No spread was seen: neither an interval of no width nor an infinite z is honest."""
    found = prediction_limits(np.full((3, 2), 0.1), np.array([0.1, 5.0]))
    assert np.isnan([found.low, found.high, found.z]).all()


def test_seeds_are_centred_at_zero():
    values = np.random.default_rng(2).normal(size=(4, 3)) + 100
    found = seed_limits(values, np.array([0.0, 1.0, -9.0]))
    for row in range(3):
        error = np.std(values[:, row], ddof=1) * 2**0.5
        reach = scipy.stats.t.ppf(0.975, 3) * error
        assert (found.low[row], found.high[row]) == pytest.approx((-reach, reach))
        assert found.z[row] == pytest.approx([0.0, 1.0, -9.0][row] / error)
    assert found.df.tolist() == [3, 3, 3]


@pytest.mark.parametrize("limits", [prediction_limits, seed_limits])
def test_too_few_or_unlike_repetitions_are_refused(limits):
    for values, difference, line in (
        (np.zeros((1, 3)), np.zeros(3), "limits need two (null|training seed)s or more; got 1"),
        (np.zeros((4, 3)), np.zeros(2), "has the same rows; got 3 beside 2 differences"),
        (np.full((4, 3), np.nan), np.zeros(3), "must be finite; 12 of 12 are not"),
    ):
        with pytest.raises(ValueError, match=line):
            limits(values, difference)
    with pytest.raises(ValueError, match="level must be in"):
        limits(np.eye(3), np.zeros(3), level=1.0)


# tables


@pytest.fixture
def tables():
    """Differences of two tuned models, and of four nulls: two quantities of unlike scale, six layers, in any order."""
    rng = np.random.default_rng(0)
    keys = pd.MultiIndex.from_product([("entropy", "accuracy"), range(6)], names=["quantity", "layer"]).to_frame(False)
    scale = np.where(keys["quantity"] == "entropy", 0.01, 5.0)
    tuned = [keys.assign(model=name, difference=scale * rng.normal(size=12)) for name in ("blur", "noise")]
    nulls = [keys.assign(null=f"clean {n}", difference=scale * rng.normal(size=12)) for n in range(4)]
    return (pd.concat(rows, ignore_index=True).sample(frac=1, random_state=1) for rows in (tuned, nulls))


def test_limits_join_a_table_by_its_keys(tables):
    table, nulls = tables
    found = with_null(table, nulls, on=["quantity", "layer"], value="difference", within=["quantity"])
    pd.testing.assert_frame_equal(found[table.columns], table)
    for (quantity, model), part in found.groupby(["quantity", "model"]):
        part = part.sort_values("layer")
        own = nulls[nulls["quantity"] == quantity].pivot(index="null", columns="layer", values="difference")
        expected = prediction_limits(own.to_numpy(), part["difference"].to_numpy())
        for name, values in expected.to_frame().items():
            np.testing.assert_allclose(part[name], values, rtol=1e-12, err_msg=f"{quantity} {model} {name}")
    mixed = with_null(table, nulls, on=["quantity", "layer"], value="difference")
    assert not np.allclose(mixed["z_null"], found["z_null"])


def test_one_key_is_enough(tables):
    table, nulls = (rows[rows["quantity"] == "entropy"] for rows in tables)
    found = with_null(table, nulls, on=["layer"], value="difference")
    both = with_null(table, nulls, on=["quantity", "layer"], value="difference")
    pd.testing.assert_frame_equal(found, both)


def test_rows_without_a_null_keep_none(tables):
    table, nulls = tables
    both = pd.concat([table.iloc[:1].assign(quantity="share"), table])
    found = with_null(both, nulls, on=["quantity", "layer"], value="difference", within=["quantity"])
    names = ["null_low", "null_high", "z_null", "null_df"]
    assert found[names].iloc[0].isna().all()
    alone = with_null(table, nulls, on=["quantity", "layer"], value="difference", within=["quantity"])
    pd.testing.assert_frame_equal(found.iloc[1:], alone)
    with pytest.raises(ValueError, match=r"no row .* has a null: its first quantity, layer is share, \d; the"):
        with_null(both.iloc[:1], nulls, on=["quantity", "layer"], value="difference")
    with pytest.raises(ValueError, match="no row of the table has a null"):
        with_null(table.assign(layer=table["layer"].astype(str)), nulls, on=["quantity", "layer"], value="difference")


def test_tables_that_do_not_fit_are_refused(tables):
    table, nulls = tables
    keys = {"on": ["quantity", "layer"], "value": "difference"}
    for wrong, line in (
        ((table, nulls.assign(null="one").drop_duplicates(["quantity", "layer"])), "two nulls or more; got 1"),
        ((table, nulls.iloc[1:]), r"difference must be known .* in every null; the row .* of 'clean \d' has none"),
        ((table, pd.concat([nulls, nulls.iloc[:1]])), "one row for each quantity, layer; some appear twice"),
        ((table, nulls.drop(columns="null")), "lacks the columns null"),
        ((table.drop(columns="difference"), nulls), "lacks the columns difference"),
        ((table.assign(z_null=0), nulls), "has null limits already: z_null"),
        ((table.assign(layer=np.nan), nulls), "every row must have a layer"),
    ):
        with pytest.raises(ValueError, match=line):
            with_null(*wrong, **keys)
    with pytest.raises(ValueError, match=r"\['model'\] is not among \['quantity', 'layer'\]"):
        with_null(table, nulls, **keys, within=["model"])
