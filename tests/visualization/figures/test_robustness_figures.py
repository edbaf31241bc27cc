"""The figures of robustness draw the tables' numbers."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from mechvit.visualization.figures import corruption_errors, corruption_spectra, fourier_map
from mechvit.visualization.figures.table_checks import pick
from mechvit.visualization.style import DARK, colour, family_of, in_sentence, level_of, title_of


@pytest.fixture(scope="module")
def summary() -> pd.DataFrame:
    generator, rows = np.random.default_rng(0), []
    kinds = [("noise", "shot_noise"), ("blur", "glass_blur"), ("noise", "all"), ("blur", "all"), ("all", "all")]
    for model in ("base", "gaussian_blur_4"):
        rows.append((model, "clean", "clean", 0, "error", 0.2, 0.1, 0.3))
        for group, family in kinds:
            for quantity in ("error", "corruption_error", "relative_error"):
                value = generator.uniform(0.3, 1.2)
                rows.append((model, group, family, 0, quantity, value, value - 0.1, value + 0.2))
        rows.append((model, "noise", "shot_noise", 3, "error", 9.0, 9.0, 9.0))
    columns = ["model", "group", "family", "level", "quantity", "value", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


@pytest.fixture(scope="module")
def sensitivity() -> pd.DataFrame:
    generator, rows = np.random.default_rng(1), []
    for model in ("base", "gaussian_blur_4"):
        for vertical in (-4, 0, 4):
            for horizontal in (-4, 0, 4):
                error = generator.uniform()
                rows.append((model, vertical, horizontal, error, error - 0.1, error + 0.1))
    return pd.DataFrame(rows, columns=["model", "vertical", "horizontal", "error", "low", "high"]).sample(
        frac=1, random_state=0
    )


@pytest.fixture(scope="module")
def spectra() -> pd.DataFrame:
    rows = [
        (corruption, group, image, frequency, 0.1 * image + frequency)
        for corruption, group in (("fog_5", "weather"), ("snow_5", "weather"), ("shot_noise_5", "noise"))
        for image in (1, 2)
        for frequency in (0.0, 0.25, 0.5)
    ]
    return pd.DataFrame(rows, columns=["corruption", "group", "image_id", "frequency", "power"])


def test_corruption_errors_match_table(summary):
    figure = corruption_errors(summary)
    names = ["Clean", "Shot noise", "Glass blur", "<b>Mean of noise</b>", "<b>Mean of blur</b>", "<b>Mean of all</b>"]
    assert list(figure.layout.yaxis.ticktext) == names
    for axis, quantity in zip(("x", "x2", "x3"), ("error", "corruption_error", "relative_error"), strict=True):
        for model in ("base", "gaussian_blur_4"):
            (trace,) = [t for t in figure.data if t.xaxis == axis and t.marker.color == colour(model)]
            part = pick(summary, level=0, model=model, quantity=quantity)
            np.testing.assert_array_equal(trace.x, part["value"])
            np.testing.assert_allclose(trace.x + trace.error_x.array, part["high"])
            np.testing.assert_allclose(trace.x - trace.error_x.arrayminus, part["low"])
            assert [int(y + 0.5) for y in trace.y] == list(range(6))[6 - len(part) :]
    assert "ratio to the reference, lower is better" in figure.layout.xaxis2.title.text


def test_fourier_map_matches_table(sensitivity):
    figure = fourier_map(sensitivity)
    for trace, model in zip(figure.data, ("base", "gaussian_blur_4"), strict=True):
        rows = sensitivity[sensitivity["model"] == model].set_index(["vertical", "horizontal"])
        for i, vertical in enumerate(trace.y):
            for j, horizontal in enumerate(trace.x):
                row = rows.loc[(vertical, horizontal)]
                assert trace.z[i][j] == row["error"]
                assert list(trace.customdata[i][j]) == [row["low"], row["high"]]
    assert figure.layout.coloraxis.cmin == 0
    assert figure.layout.yaxis.title.text == "down (cycles per image)"


def test_spectra_match_means(spectra):
    figure = corruption_spectra(spectra)
    assert {trace.name for trace in figure.data} == {"Fog 5", "Snow 5", "Shot noise 5"}
    (fog,) = [trace for trace in figure.data if trace.name == "Fog 5"]
    np.testing.assert_allclose(fog.x, [0, 0.25, 0.5])
    np.testing.assert_allclose(fog.y, [0.15, 0.4, 0.65])
    assert figure.layout.yaxis.type == "log"


def test_colours_have_a_dark_partner(summary, sensitivity, spectra):
    for figure in (corruption_errors(summary), fourier_map(sensitivity), corruption_spectra(spectra)):
        used = set(re.findall(r"#[0-9a-f]{6}", figure.update_layout(template=None).to_json()))
        assert len(used) > 3
        assert used <= set(DARK)


def test_missing_columns_and_rows_are_named(summary, sensitivity, spectra):
    for draw, frame, column in (
        (corruption_errors, summary, "family"),
        (fourier_map, sensitivity, "horizontal"),
        (corruption_spectra, spectra, "power"),
    ):
        with pytest.raises(ValueError, match=rf"lacks {column}"):
            draw(frame.drop(columns=column))
        with pytest.raises(ValueError, match="at least one row"):
            draw(frame.iloc[:0])


def test_bands_are_named_as_frequencies(summary):
    figure = corruption_errors(summary.replace({"group": {"blur": "low"}}))
    assert "<b>Mean of low frequencies</b>" in figure.layout.yaxis.ticktext
    assert "<b>Mean of all</b>" in figure.layout.yaxis.ticktext


def test_names_without_a_level_are_drawn(summary):
    figure = corruption_errors(summary.replace({"model": {"gaussian_blur_4": "vit-large"}}))
    assert {trace.name for trace in figure.data} == {"Base", "Vit-large tuned"}
    assert (family_of("vit-large"), level_of("vit-large"), title_of("vit-large")) == ("vit-large", 0, "Vit-large")
    attack = "pgd_4@base"
    assert (family_of(attack), level_of(attack)) == ("pgd@base", 4)
    assert (title_of(attack), in_sentence(attack)) == ("PGD 4/255 on base", "PGD 4/255 on base")
    assert title_of("pgd_999") == "Pgd 999"  # a model's name, and no attack
    assert family_of("gaussian_blur_c_4") == "gaussian_blur_c"
