"""Intervals hold known effects as often as they say; wrong ones are seen not to."""

from __future__ import annotations

import json

import interval_cases as cases
import interval_coverage
import numpy as np
import pytest
import scipy.stats


def test_clusters_are_covered_and_images_as_units_are_not():
    found = list(cases.cover_clusters(1200, seed=1))
    assert len(found) == 12
    for row in found:
        if row.method == "cluster t":
            assert row.limits[0] - 2 * row.error < row.coverage < row.limits[1] + 2 * row.error, row
        elif row.case.startswith("19 clusters of 40"):
            assert row.coverage < 0.6
        else:
            assert row.coverage < 0.92 - 2 * row.error, row


@pytest.mark.long
def test_seeds_are_covered_and_one_training_does_not_stand_for_all():
    found = {(row.case, row.method): row for row in cases.cover_seeds(800, seed=2)}
    assert len(found) == 2 * 2 * 3 * 4
    for row in found.values():
        if row.limits is not None:
            assert row.limits[0] - 2.5 * row.error < row.coverage < row.limits[1] + 2.5 * row.error, row
    for layout in cases.designs():
        assert found[f"{layout}, 3 seeds, mostly seeds", "cluster t of one seed"].coverage < 0.7


FIELD = {
    (2, 12): (0.949, 12.4, 0.920, 3.4, 0.33),
    (3, 12): (0.948, 4.4, 0.931, 2.8, 0.50),
    (5, 12): (0.950, 2.8, 0.941, 2.5, 0.66),
    (2, 72): (0.950, None, 0.934, None, 0.33),
    (3, 72): (0.950, None, 0.943, None, 0.50),
    (5, 72): (0.950, None, 0.947, None, 0.66),
}
"""Coverage and half-width of plain and of moderated limits, and coverage of the nulls' range, by numbers of nulls and
of rows: from another simulation, made before these limits were built.
"""


def test_null_limits_match_an_earlier_simulation():
    found = {(row.case, row.method): row for row in cases.cover_nulls(1600, seed=3)}
    for (n, rows), (plain, plain_width, moderated, width, spread) in FIELD.items():
        case = f"{n} nulls, {rows} rows"
        for method, expected, half_width in (
            ("plain t", plain, plain_width),
            ("moderated", moderated, width),
            ("range of the nulls", spread, None),
        ):
            row = found[case, method]
            assert row.coverage == pytest.approx(expected, abs=0.012 + 2 * row.error), row
            if half_width is not None:
                assert row.half_width == pytest.approx(half_width, rel=0.06), row
    assert (n - 1) / (n + 1) == pytest.approx(spread, abs=0.01)  # the chance of the range, exactly


def test_other_statistics_are_covered():
    found = list(cases.cover_other_statistics(60, seed=4))
    assert len(found) == 10
    for row in found:
        assert row.coverage > 0.92 - 2.5 * row.error, row


def test_verdicts_follow_the_limits():
    def row(coverage, limits):
        return cases.Coverage(
            part="", case="", method="", coverage=coverage, error=0.002, half_width=2.0, draws=9, limits=limits
        ).verdict

    assert row(0.95, cases.ALLOWED) == row(0.99, cases.LEAST) == "met"
    assert row(0.91, cases.ALLOWED) == row(0.98, cases.ALLOWED) == row(0.9, cases.LEAST) == "missed"
    assert row(0.933, cases.ALLOWED) == "met (unsure)"
    assert row(0.929, cases.ALLOWED) == "missed (unsure)"
    assert row(0.5, None) == ""


def test_statistics_match_scipy_s_and_the_package_s():
    import torch

    from mechvit.analysis.behaviour.calibration import calibration_gaps

    rng = np.random.default_rng(0)
    rows = rng.uniform(size=(50, 2))
    assert cases.distance(rows) == pytest.approx(scipy.stats.wasserstein_distance(rows[:, 0], rows[:, 1]))
    right = rng.uniform(size=50) < 0.7
    gaps = calibration_gaps(torch.tensor(right[:, None]), torch.tensor(rows[:, :1])).numpy().reshape(50, -1)
    assert cases.calibration(np.stack([rows[:, 0], right], axis=1)) == pytest.approx(np.abs(gaps.mean(0)).sum())


def test_the_command_writes_its_table(tmp_path, capsys):
    options = interval_coverage.Options(out=str(tmp_path / "out"), draws=50)
    interval_coverage.main(options)
    table = (tmp_path / "out" / "table.md").read_text()
    assert table in capsys.readouterr().out
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert len(result["measures"]) == 12 + 48 + 10 + 18
    assert result["settings"] == {"draws": 50, "seed": 0}
    assert table.count("\n| clusters |") == 12
    with pytest.raises(ValueError, match="draws must be at least 50"):
        interval_coverage.Options(out="x", draws=49)
