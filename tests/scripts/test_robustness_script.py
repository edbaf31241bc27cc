"""robustness.py gives what the package's functions give."""

from __future__ import annotations

import pandas as pd
import pytest
from script_calls import call, script

from mechvit import HookedViT
from mechvit.analysis import corrupted_performance, fourier_sensitivity, mean_corruption_error
from mechvit.data import Corruption, load_images, prepare

FAMILIES = ("shot_noise", "fog")


@pytest.mark.long
def test_robustness_matches_functions(checkpoints, tiny_processor, tmp_path, capsys):
    out = tmp_path / "robustness"
    call(
        "robustness",
        model=tuple(checkpoints.values()),
        families=FAMILIES,
        levels=(1, 5),
        fourier=3,
        limit=38,
        out=str(out),
    )
    printed = capsys.readouterr().out
    images = prepare(load_images("photos", "test", limit=38, image_size=32), tiny_processor)
    models = {name: HookedViT.from_pretrained(folder, device="cpu") for name, folder in checkpoints.items()}
    corruptions = [Corruption(family, level) for family in FAMILIES for level in (1, 5)]
    wanted = corrupted_performance(models, images, corruptions)
    pd.testing.assert_frame_equal(pd.read_parquet(out / "performance.parquet"), wanted)
    bands = {"shot_noise": "high", "fog": "low"}
    summary = mean_corruption_error(wanted, reference="base", bands=bands)
    pd.testing.assert_frame_equal(pd.read_parquet(out / "robustness.parquet"), summary)
    waves = pd.read_parquet(out / "fourier.parquet")
    second = fourier_sensitivity(models["gaussian_blur_2"], images, resolution=3).to_frame(model="gaussian_blur_2")
    pd.testing.assert_frame_equal(waves[waves["model"] == "gaussian_blur_2"].reset_index(drop=True), second)
    spectra = pd.read_parquet(out / "spectra.parquet").set_index("corruption")
    assert spectra["band"].to_dict()["fog_5"] == "low"
    assert len(spectra) == 4
    figures = {path.stem: path.read_text() for path in (out / "figures").iterdir()}
    assert set(figures) == {"corruption_errors", "corruption_spectra", "fourier_map"}
    assert all("<script src=" not in text for text in figures.values())
    mce = summary.query("model == 'gaussian_blur_2' and group == 'all' and quantity == 'corruption_error'")[
        "value"
    ].item()
    (line,) = [line.split() for line in printed.splitlines() if line.split()[:2] == ["gaussian_blur_2", "all"]]
    assert float(line[2]) == pytest.approx(mce, abs=5.1e-5)


def test_bad_names_are_refused_first(checkpoints, tmp_path):
    for wrong, message in (({"families": ("frots",)}, "did you mean frost"), ({"levels": (6,)}, "nearest is")):
        with pytest.raises(ValueError, match=message):
            call("robustness", model=("nowhere",), out=str(tmp_path / "out"), **wrong)
    with pytest.raises(ValueError, match="families must name at least one"):
        call("robustness", model=("nowhere",), out=str(tmp_path / "out"), families=())


def test_fifteen_corruptions_by_default():
    options = script("robustness").Options(model=("m",), out="o")
    assert len(options.families) * len(options.levels) == 75
