"""The units of an interval: which are understood, and which are refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mechvit.analysis.statistics import Design
from mechvit.analysis.statistics.clusters.design import Units

PHOTOS = ["a", "a", "a", "b", "b", "b"]
CELLS = ["a1", "a2", "a1", "b1", "b2", "b2"]


def table(**columns):
    """Six images, each read twice, in another order than that of their ids."""
    rows = pd.DataFrame({"image_id": [10, 11, 12, 13, 14, 15], "cell": CELLS, "photo": PHOTOS} | columns)
    return pd.concat([rows.assign(model="base"), rows.assign(model="tuned")]).sample(frac=1, random_state=0)


def test_labels_are_taken_in_order_of_the_images():
    design = Design("cell", "photo", seed="training").of(table())
    assert list(design.cluster) == CELLS
    assert list(design.stratum) == PHOTOS
    assert design.seed == "training"
    units = Units.of(design, 6)
    assert units.cluster.tolist() == [0, 1, 0, 2, 3, 3]
    assert units.stratum.tolist() == [0, 0, 1, 1]
    assert (units.images, units.clusters, units.strata, units.df, units.left_out) == (6, 4, 2, 2, "")
    assert units.sizes.tolist() == [2, 1, 1, 2]


def test_an_image_is_a_cluster_of_its_own_without_a_design():
    assert Units.of(Design(), 5).df == 4
    assert list(Design().of(table()).cluster) == [10, 11, 12, 13, 14, 15]
    assert Units.of(Design(stratum=PHOTOS), 6).df == 4


def test_labels_may_be_numbers_texts_or_a_column():
    for labels in (CELLS, np.array(CELLS), pd.Series(CELLS), pd.Series(CELLS, dtype="category"), [3, 4, 3, 7, 9, 9]):
        assert Units.of(Design(labels), 6).cluster.tolist() == [0, 1, 0, 2, 3, 3]


def test_deviations_match_a_loop_over_strata():
    rng = np.random.default_rng(0)
    stratum = rng.permutation(np.repeat(np.arange(4), [2, 3, 5, 4]))
    units = Units.of(Design(np.arange(14), stratum), 14)
    influence = rng.normal(size=(14, 3))
    found = units.deviations(influence)
    expected = np.zeros((3, 3))
    for one in range(4):
        own = influence[stratum == one]
        expected += len(own) * np.cov(own.T)  # n / (n - 1) sum (z - mean)(z - mean)'
    np.testing.assert_allclose(found.T @ found, expected, rtol=1e-12)


def test_small_strata_are_refused_or_left_out_with_the_reason():
    cells = ["a1", "a2", "a1", "b1", "b1", "b1"]
    with pytest.raises(ValueError, match=r"two clusters or more in every stratum; 1 of 2 strata, as 'b' lie in one"):
        Units.of(Design(cells, PHOTOS), 6)
    units = Units.of(Design(cells, PHOTOS, small_strata="drop"), 6)
    assert units.cluster.tolist() == [0, 1, 0, -1, -1, -1]
    assert units.left_out == "3 images of 1 of 2 strata, as 'b' are left out: a stratum needs two clusters"
    assert (units.images, units.clusters, units.df) == (3, 2, 1)
    kept = Units.of(Design(["b1", "b1", "b1", "a1", "a2", "a1"], PHOTOS, small_strata="drop"), 6)
    assert kept.cluster.tolist() == [-1, -1, -1, 0, 1, 0]
    assert kept.stratum.tolist() == [0, 0]
    assert Units.of(Design(cells, PHOTOS), 6, variance=False).clusters == 3


@pytest.mark.parametrize(
    ("design", "line"),
    [
        (Design(["x"] * 6), "all images lie in one cluster"),
        (Design(["x"] * 6, small_strata="drop"), "all images lie in one cluster"),
        (Design(list("aabbcc"), PHOTOS), r"a cluster lies in one stratum; the cluster 'b' lies in 'a', 'b': name"),
        (Design([1.0, np.nan, 2, 2, 1, 1]), "every image needs a cluster; 1 of 6 have none"),
        (Design(["a", None, "b", "b", "a", "a"]), "every image needs a cluster; 1 of 6 have none"),
        (Design(CELLS, ["a", "a", "a", None, None, None]), "every image needs a stratum; 3 of 6 have none"),
        (Design(CELLS[:5]), "every image needs a cluster; got 5 for 6 images"),
        (Design("cell"), r"names the column 'cell' of a table: take its labels first, with design.of\(table\)"),
        ("cell", "are a Design; got str"),
    ],
)
def test_other_units_are_refused(design, line):
    with pytest.raises(ValueError, match=line) as refused:
        Units.of(design, 6)
    assert "\n" not in str(refused.value)


def test_tables_that_name_no_units_are_refused():
    with pytest.raises(ValueError, match=r"lacks the columns place; it has image_id, cell"):
        Design("place").of(table())
    with pytest.raises(ValueError, match=r"every row must have a cell; 2 of 12 have none"):
        Design("cell").of(table(cell=[None, *CELLS[1:]]))
    moved = table()
    moved.loc[(moved["image_id"] == 12) & (moved["model"] == "tuned"), "cell"] = "b1"
    with pytest.raises(ValueError, match=r"an image has one cell; the image 12 has '(a1|b1)', '(a1|b1)'"):
        Design("cell", "photo").of(moved)
    with pytest.raises(ValueError, match="small_strata must be among refuse, drop; got 'pool'"):
        Design(small_strata="pool")


def test_a_design_is_one_line():
    assert repr(Design("cell", "photo", "seed")) == "Design(cluster='cell', stratum='photo', seed='seed')"
    assert repr(Design(CELLS)) == "Design(cluster=<4 of 6 images>)"
