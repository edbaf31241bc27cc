"""The figures of weights and of steering draw the tables' numbers."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from mechvit.visualization.figures import (
    interpolation_curves,
    steering_by_scale,
    steering_cost,
    swap_curves,
    swap_recovery,
    weight_changes,
)
from mechvit.visualization.figures.table_checks import pick
from mechvit.visualization.style import BASE, DARK, colour

CORRUPTIONS = ("gaussian_noise_4", "clean", "gaussian_blur_2")
PARTS = ("head", "blocks.10.mlp", "blocks.2", "blocks.2.ln1", "embed", "blocks.2.attn", "ln_final", "blocks.10.ln2")
RECOVERED = ["recovered", "recovered_low", "recovered_high"]


def around(generator, *names):
    """A value with an interval around it that is not symmetric."""
    value = generator.uniform(-0.2, 1.2)
    return dict(
        zip(names, (value, value - generator.uniform(0.05, 0.1), value + generator.uniform(0.2, 0.3)), strict=True)
    )


@pytest.fixture(scope="module")
def swaps() -> pd.DataFrame:
    generator, rows = np.random.default_rng(0), []
    for corruption in CORRUPTIONS:
        for quantity in ("accuracy", "logit_difference"):
            names = [("single", part, 1) for part in PARTS]
            for kind in ("first", "last"):
                order = ["embed", "blocks.0", "head"] if kind == "first" else ["head", "blocks.0", "embed"]
                names += [(kind, part, k) for k, part in enumerate(["", *order])]
            for kind, part, k in names:
                row = {"corruption": corruption, "kind": kind, "part": part, "k": k, "quantity": quantity}
                row |= around(generator, "value", "low", "high") | around(generator, *RECOVERED)
                rows.append(row)
    frame = pd.DataFrame(rows).sample(frac=1, random_state=0)
    frame.loc[frame["corruption"] == "clean", RECOVERED] = np.nan
    return frame


@pytest.fixture(scope="module")
def line() -> pd.DataFrame:
    generator, rows = np.random.default_rng(1), []
    for corruption in CORRUPTIONS:
        for quantity in ("accuracy", "logit_difference", "loss"):
            for alpha in (-0.25, 0.0, 0.5, 1.0):
                row = {"corruption": corruption, "alpha": alpha, "quantity": quantity}
                rows.append(row | around(generator, "value", "low", "high"))
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


@pytest.fixture(scope="module")
def steering() -> pd.DataFrame:
    generator, rows = np.random.default_rng(2), []
    for corruption in ("gaussian_blur_2", "clean"):
        for source, hook in (("mean_difference", 10), ("mean_difference", 2), ("sae", 10)):
            for control in (0, 1, 2):
                for scale in (2.0, 0.5, 1.0):
                    for quantity in ("accuracy", "logit_difference"):
                        row = {"corruption": corruption, "source": source, "tokens": "all", "control": control}
                        row |= {"hook_name": f"blocks.{hook}.hook_resid_post", "scale": scale, "quantity": quantity}
                        row |= around(generator, "change", "change_low", "change_high") | around(generator, *RECOVERED)
                        rows.append(row)
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


@pytest.fixture(scope="module")
def chosen(steering) -> pd.DataFrame:
    generator = np.random.default_rng(3)
    rows = steering[(steering["corruption"] != "clean") & (steering["scale"] == 1) & steering["control"].isin((0, 2))]
    rows = rows.drop_duplicates(["source", "control", "quantity"])
    clean = [around(generator, "clean_change", "clean_change_low", "clean_change_high") for _ in range(len(rows))]
    return pd.concat([rows.reset_index(drop=True), pd.DataFrame(clean)], axis=1)


@pytest.fixture(scope="module")
def changes() -> pd.DataFrame:
    generator = np.random.default_rng(4)
    rows = [(m, part, generator.uniform()) for m in ("gaussian_blur_2", "gaussian_noise_4") for part in PARTS]
    frame = pd.DataFrame(rows, columns=["model", "part", "relative"]).sample(frac=1, random_state=0)
    frame.loc[(frame["part"] == "head") & (frame["model"] == "gaussian_blur_2"), "relative"] = np.inf
    return frame


ORDER = ["embed", "blocks.2", "blocks.2.ln1", "blocks.2.attn", "blocks.10.ln2", "blocks.10.mlp", "ln_final", "head"]


@pytest.mark.parametrize("quantity", ["accuracy", "logit_difference"])
def test_swapped_parts_match_table(swaps, quantity):
    figure = swap_recovery(swaps, quantity=quantity)
    assert list(figure.layout.yaxis.ticktext) == ORDER
    clean, blur, noise = figure.data
    assert len(clean.x) == 0
    assert "no gap to recover" in [note.text for note in figure.layout.annotations]
    for trace, corruption in ((blur, "gaussian_blur_2"), (noise, "gaussian_noise_4")):
        rows = pick(swaps, kind="single", quantity=quantity, corruption=corruption).set_index("part").loc[ORDER]
        np.testing.assert_array_equal(trace.x, rows["recovered"])
        np.testing.assert_array_equal(trace.y, range(len(ORDER)))
        np.testing.assert_allclose(trace.x + trace.error_x.array, rows["recovered_high"])
        np.testing.assert_allclose(trace.x - trace.error_x.arrayminus, rows["recovered_low"])
        assert trace.marker.color == colour(corruption)
    assert figure.layout.xaxis.title.text == "recovered share (0 = receiver, 1 = giver)"


def test_curves_from_either_end_match_table(swaps):
    figure = swap_curves(swaps, quantity="accuracy")
    for axis, kind in (("x", "first"), ("x2", "last")):
        for corruption in ("gaussian_blur_2", "gaussian_noise_4"):
            rows = pick(swaps, kind=kind, corruption=corruption, quantity="accuracy").sort_values("k")
            own = [t for t in figure.data if t.xaxis == axis and t.legendgroup == corruption]
            for trace, column in zip(own, ("recovered_high", "recovered_low", "recovered"), strict=True):
                np.testing.assert_array_equal(trace.x, rows["k"])
                np.testing.assert_array_equal(trace.y, rows[column])
    assert list(figure.layout.xaxis.ticktext) == ["none", "embed", "blocks.0", "head"]
    assert list(figure.layout.xaxis2.ticktext) == ["none", "head", "blocks.0", "embed"]
    assert {t.legendgroup for t in figure.data} == {"gaussian_blur_2", "gaussian_noise_4"}


def test_interpolation_matches_table(line):
    figure = interpolation_curves(line)
    for axis, quantity in (("x", "accuracy"), ("x2", "logit_difference"), ("x3", "loss")):
        for corruption in CORRUPTIONS:
            rows = pick(line, quantity=quantity, corruption=corruption).sort_values("alpha")
            own = [t for t in figure.data if t.xaxis == axis and t.legendgroup == corruption]
            for trace, column in zip(own, ("high", "low", "value"), strict=True):
                np.testing.assert_array_equal(trace.x, rows["alpha"])
                np.testing.assert_array_equal(trace.y, rows[column])
    assert figure.layout.yaxis3.title.text == "loss (nats, lower is better)"
    assert figure.layout.xaxis.title.text == "alpha (0 = base, 1 = tuned)"


def test_changes_match_table(changes):
    figure = weight_changes(changes)
    assert list(figure.layout.yaxis.ticktext) == ORDER
    for trace, model in zip(figure.data, ("gaussian_blur_2", "gaussian_noise_4"), strict=True):
        rows = pick(changes, model=model).set_index("part").loc[ORDER]
        shown = np.isfinite(rows["relative"])
        np.testing.assert_array_equal(trace.x, rows["relative"][shown])
        np.testing.assert_array_equal(trace.y, np.flatnonzero(shown))
    assert figure.layout.xaxis.title.text == "|tuned − base| / |base| (Frobenius norms)"


def test_steering_by_scale_matches_table(steering):
    figure = steering_by_scale(steering)
    titles = [note.text for note in figure.layout.annotations]
    assert titles == ["<b>Block 2, resid post</b>", "<b>Block 10, resid post</b>"]
    seen = 0
    for row, (corruption, value) in enumerate((("gaussian_blur_2", "recovered"), ("clean", "change"))):
        for col, hook in enumerate((2, 10)):
            axis = "x" + ("" if row == col == 0 else str(1 + 2 * row + col))
            own = [t for t in figure.data if t.xaxis == axis]
            rows = pick(
                steering, corruption=corruption, hook_name=f"blocks.{hook}.hook_resid_post", quantity="accuracy"
            )
            wanted = {tuple(part.sort_values("scale")[value]) for _, part in rows.groupby(["source", "control"])}
            assert {tuple(t.y) for t in own} == wanted
            assert all(list(t.x) == [0.5, 1, 2] for t in own)
            for trace in (t for t in own if t.error_y.array is not None):
                (part,) = [
                    p
                    for _, p in rows.groupby(["source", "control"])
                    if list(p.sort_values("scale")[value]) == list(trace.y)
                ]
                part = part.sort_values("scale")
                assert (part["control"] == 0).all()
                assert trace.line.color != BASE
                np.testing.assert_allclose(trace.y + trace.error_y.array, part[f"{value}_high"])
                np.testing.assert_allclose(trace.y - trace.error_y.arrayminus, part[f"{value}_low"])
                seen += 1
    assert seen == 6
    assert sorted(t.name for t in figure.data if t.showlegend) == [
        "Mean difference",
        "Random, same length",
        "SAE latents",
    ]
    assert figure.layout.yaxis3.title.text == "change on clean images<br>(fraction of images, negative = cost)"
    several = pd.concat([steering, steering.assign(corruption="gaussian_noise_4")])
    with pytest.raises(ValueError, match="one corruption besides clean is drawn at a time"):
        steering_by_scale(several)


def test_steering_cost_matches_table(chosen):
    figure = steering_cost(chosen)
    rows = chosen[chosen["quantity"] == "accuracy"]
    assert len(figure.data) == len(rows) == 4
    points = {(t.x[0], t.y[0]): t for t in figure.data}
    for row in rows.itertuples():
        trace = points[row.clean_change, row.recovered]
        np.testing.assert_allclose(trace.y[0] + trace.error_y.array[0], row.recovered_high)
        np.testing.assert_allclose(trace.x[0] - trace.error_x.arrayminus[0], row.clean_change_low)
        assert (trace.marker.color == BASE) == (row.control > 0)
        assert trace.name.endswith("random control") == (row.control > 0)
    assert figure.layout.xaxis.title.text == "change of clean accuracy (negative = cost)"


DRAWN = {
    "swaps": (swap_recovery, "recovered_low"),
    "curves": (swap_curves, "k"),
    "line": (interpolation_curves, "alpha"),
    "changes": (weight_changes, "relative"),
    "steering": (steering_by_scale, "control"),
    "chosen": (steering_cost, "clean_change_low"),
}


@pytest.fixture
def tables(swaps, line, changes, steering, chosen):
    return {"swaps": swaps, "curves": swaps, "line": line, "changes": changes, "steering": steering, "chosen": chosen}


@pytest.mark.parametrize("name", DRAWN)
def test_colours_have_a_dark_partner(tables, name):
    figure = DRAWN[name][0](tables[name])
    used = set(re.findall(r"#[0-9a-f]{6}", figure.update_layout(template=None).to_json()))
    assert len(used) > 3
    assert used <= set(DARK)


@pytest.mark.parametrize("name", DRAWN)
def test_missing_columns_and_rows_are_named(tables, name):
    draw, column = DRAWN[name]
    with pytest.raises(ValueError, match=rf"lacks {column}"):
        draw(tables[name].drop(columns=column))
    with pytest.raises(ValueError, match="at least one row"):
        draw(tables[name].iloc[:0])
