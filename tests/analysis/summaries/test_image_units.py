"""Clusters and strata of images in per-image tables, and the design that intervals take."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mechvit.analysis.statistics import Design, cluster_t
from mechvit.analysis.statistics.clusters.design import Units
from mechvit.analysis.summaries import image_design, with_image_units
from mechvit.data import load_images


def test_the_photographs_crops_are_113_clusters_in_19_strata():
    images = load_images("photos", "test", limit=760, image_size=64)
    units = Units.of(image_design(images), 760)
    assert (units.clusters, units.strata, units.df) == (113, 19, 94)


def test_tables_and_designs_agree_whatever_the_order():
    images = load_images("photos", "test", limit=380, image_size=64)
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"image_id": images["image_id"][:], "correct": rng.uniform(size=380) < 0.7})
    both = pd.concat([table.assign(model="base"), table.assign(model="tuned")]).sample(frac=1, random_state=0)
    found = with_image_units(both, images.shuffle(seed=1))
    assert dict(zip(found["image_id"], found["cluster"], strict=True)) == dict(
        zip(images["image_id"], images["cluster"], strict=True)
    )
    values = table.sort_values("image_id")[["correct"]].to_numpy()
    by_table = cluster_t(values, Design("cluster", "stratum").of(found))
    by_images = cluster_t(values, image_design(images.shuffle(seed=2)))
    assert by_table[0] == by_images[0]
    assert by_table.clusters[0] == len(set(images["cluster"]))


def test_images_without_clusters_are_units_themselves(tiny_images):
    own = tiny_images.remove_columns([name for name in ("cluster", "stratum") if name in tiny_images.column_names])
    table = pd.DataFrame({"image_id": own["image_id"][:]})
    pd.testing.assert_frame_equal(with_image_units(table, own), table)
    assert Units.of(image_design(own), len(own)).clusters == len(own)
    with pytest.raises(ValueError, match="1 images of the table are not among"):
        with_image_units(pd.DataFrame({"image_id": [-5]}), load_images("photos", "test", limit=3))
