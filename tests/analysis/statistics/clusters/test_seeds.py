"""Intervals over images and seeds, against the analysis of variance of a crossed layout."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from mechvit.analysis.statistics import (
    Design,
    by_seed,
    cluster_t,
    jackknifed,
    linearised_means,
    over_seeds,
    seed_and_cluster_interval,
)

CLUSTER = np.repeat(np.arange(12), 5)
STRATUM = np.repeat(np.arange(3), 20)


def drawn(seeds=4, seed=0, *, between=1.0, clusters=1.0, both=0.5, rest=1.0):
    rng = np.random.default_rng(seed)
    return (
        between * rng.normal(size=(seeds, 1))
        + clusters * rng.normal(size=12)[CLUSTER]
        + both * rng.normal(size=(seeds, 12))[:, CLUSTER]
        + rest * rng.normal(size=(seeds, 60))
    )


def test_the_variance_is_that_of_a_crossed_two_way_layout():
    """Mean squares of seeds, clusters and their interaction, whose sum of expectations is the mean's variance."""
    values = drawn()
    cells = values.reshape(4, 12, 5).mean(2)
    rows, columns = cells.mean(1, keepdims=True), cells.mean(0, keepdims=True)
    between = 12 * np.square(rows - cells.mean()).sum() / 3
    clusters = 4 * np.square(columns - cells.mean()).sum() / 11
    both = np.square(cells - rows - columns + cells.mean()).sum() / 33
    found = seed_and_cluster_interval(values, Design(CLUSTER))
    assert found.value[0] == pytest.approx(values.mean())
    assert found.error[0] == pytest.approx(((between + clusters - both) / 48) ** 0.5, rel=1e-10)
    a = between * 5 / 3
    df = (a + clusters - both) ** 2 / (a**2 / 3 + clusters**2 / 11 + both**2 / 33)
    assert found.df[0] == pytest.approx(df, rel=1e-10)
    reach = scipy.stats.t.ppf(0.975, df) * found.error[0]
    assert found.high[0] == pytest.approx(values.mean() + reach)
    assert found.covers == "images and training seeds"


def test_pure_interaction_is_floored_at_the_larger_part():
    design = Design(CLUSTER, STRATUM)
    floored = 0
    for seed in range(40):
        values = drawn(3, seed, between=0, clusters=0, both=1, rest=0.1)
        found = seed_and_cluster_interval(values, design)
        seeds = values.mean(1).std(ddof=1) / 3**0.5
        images = cluster_t(values.mean(0)[:, None], design).error[0]
        assert found.error[0] >= max(seeds, images) * (1 - 1e-12)
        if found.error[0] <= max(seeds, images) * (1 + 1e-12):
            floored += 1
            assert found.df[0] == (2 if seeds >= images else 9)
    assert 5 < floored < 40


def test_one_seed_covers_images_alone_and_says_so():
    values = drawn(1)
    found = seed_and_cluster_interval(values, Design(CLUSTER, STRATUM))
    alone = cluster_t(values.T, Design(CLUSTER, STRATUM))
    assert found[0] == alone[0]
    assert found.covers == alone.covers == "images, given these weights"


def test_seeds_that_agree_add_nothing():
    values = np.tile(drawn(1), (3, 1))
    found = seed_and_cluster_interval(values, Design(CLUSTER))
    assert found.error[0] == pytest.approx(cluster_t(values[:1].T, Design(CLUSTER)).error[0])
    assert found.df[0] == 11


def test_several_statistics_and_other_kinds_of_them():
    values = np.stack([drawn(3, 1), drawn(3, 2)], axis=2)
    design = Design(CLUSTER, STRATUM)
    found = seed_and_cluster_interval(values, design)
    for place in range(2):
        assert found[place] == pytest.approx(seed_and_cluster_interval(values[..., place], design)[0])
    left_out = over_seeds([jackknifed(lambda rows: rows.mean(0), one, design) for one in values])
    np.testing.assert_allclose(left_out.error, found.error, rtol=1e-9)
    np.testing.assert_allclose(left_out.df, found.df, rtol=1e-9)


def test_tables_by_seed_are_read_in_order_of_the_images():
    values = drawn(3)
    image = np.random.default_rng(0).permutation(60)
    table = pd.DataFrame(
        {
            "training": np.repeat([7, 8, 9], 60),
            "image_id": np.tile(image, 3),
            "cell": np.tile(CLUSTER, 3),
            "photo": np.tile(STRATUM, 3),
            "gain": values.ravel(),
        }
    ).sample(frac=1, random_state=0)
    found, design = by_seed(table, "gain", Design("cell", "photo", seed="training"))
    np.testing.assert_array_equal(found, values[:, np.argsort(image)])
    expected = seed_and_cluster_interval(values, Design(CLUSTER, STRATUM))
    assert seed_and_cluster_interval(found, design)[0] == pytest.approx(expected[0])
    for wrong, line in (
        (table.iloc[1:], "must be known for every image and seed; 1 of 180 are not"),
        (pd.concat([table, table.iloc[:1]]), "may appear once for each seed"),
        (table.drop(columns="gain"), "lacks the columns gain"),
    ):
        with pytest.raises(ValueError, match=line):
            by_seed(wrong, "gain", Design("cell", "photo", seed="training"))
    with pytest.raises(ValueError, match="need a design that names the column of the seeds"):
        by_seed(table, "gain", Design("cell"))


def test_seeds_on_other_images_are_refused():
    one = linearised_means(drawn(1).T, Design(CLUSTER))
    for other in (linearised_means(drawn(1).T, Design()), linearised_means(drawn(2).T, Design(CLUSTER))):
        with pytest.raises(ValueError, match="on the same images, in the same clusters and strata"):
            over_seeds([one, other])
    with pytest.raises(ValueError, match="needs a seed; got none"):
        over_seeds([])
    with pytest.raises(ValueError, match=r"by seed, image and maybe statistic; got an array of shape \(0, 60\)"):
        seed_and_cluster_interval(drawn()[:0], Design(CLUSTER))
