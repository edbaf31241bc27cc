"""robustness.py gives what the package's functions give."""

from __future__ import annotations

import pandas as pd
import pytest
from script_calls import call, script

from mechvit import HookedViT
from mechvit.analysis import ALEXNET_ERROR, corrupted_performance, fourier_sensitivity, mean_corruption_error
from mechvit.data import Corruption, load_images, parse_condition, prepare
from mechvit.data.sources.photos import PHOTOGRAPHS

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


HAZE = """
def haze(images, level):
    return images + (1 - images) * level / 10


def negative(images):
    return 1 - images
"""


@pytest.mark.long
def test_functions_partners_and_attacks_are_families(checkpoints, tmp_path):
    """Partners that are the images themselves have the clean error at every level, an attack no smaller one."""
    for place in ("day", "c/fog/1", "c/fog/3", "night"):
        for i, image in enumerate(load_images("photos", "test", limit=38, image_size=32)):
            folder = tmp_path / place / PHOTOGRAPHS[image["label"]]
            folder.mkdir(parents=True, exist_ok=True)
            image["image"].save(folder / f"{i}.png")
    (tmp_path / "haze.py").write_text(HAZE)
    out, fog, night = tmp_path / "out", f"paired:{tmp_path / 'c/fog'}", f"paired:{tmp_path / 'night'}"
    own = (f"{tmp_path / 'haze.py'}:haze", f"{tmp_path / 'haze.py'}:negative")
    asked = {"model": tuple(checkpoints.values()), "images": f"folder:{tmp_path / 'day'}", "levels": (1, 3)}
    call("robustness", families=("fog", fog, night, *own, "pgd@self"), out=str(out), **asked)
    found = pd.read_parquet(out / "robustness.parquet").query("quantity == 'error' and model == 'base'")
    fog_key, night_key = parse_condition(f"{fog}/1").series, parse_condition(night).key
    levels = found.query("family not in ('all', 'clean')").groupby("family", sort=False)["level"].apply(list)
    assert levels.to_dict() == {
        "fog": [1, 3, 0],
        "haze": [1, 3, 0],
        "negative": [0],
        fog_key: [1, 3, 0],
        night_key: [0],
        "pgd@self": [1, 3, 0],
    }
    clean = found.query("family == 'clean'")["value"].item()
    by_family = found.groupby("family")["value"].agg(["min", "max"])
    assert by_family.loc[[fog_key, night_key]].to_numpy() == pytest.approx(clean)
    assert by_family.loc["pgd@self", "min"] >= clean
    assert set(found.query("family == 'all'")["group"]) >= {"weather", "paired", "attack", "all"}
    spectra = pd.read_parquet(out / "spectra.parquet").set_index("corruption")["mean_squared_difference"]
    assert spectra[night_key] == 0
    assert 0 < spectra["pgd_3@self"] <= (3 / 255) ** 2 + 1e-9
    assert {path.stem for path in (out / "figures").iterdir()} == {"corruption_errors", "corruption_spectra"}
    page = (out / "figures" / "corruption_errors.html").read_text()
    assert "PGD on self" in page
    assert "Partners in fog" in page
    with pytest.raises(ValueError, match=r"paired:.*fog/2 is not a folder"):
        call("robustness", families=(fog,), out=str(tmp_path / "no"), **{**asked, "levels": (1, 2)})
    with pytest.raises(ValueError, match="pgd_1 must say which of 2 models it attacks"):
        call("robustness", families=("pgd",), out=str(tmp_path / "no"), **asked)


def test_alexnet_knows_imagenet_c_and_its_own_files(tmp_path):
    for place in ("fog/1", "night/1"):
        (tmp_path / place).mkdir(parents=True)
    fog, night = (parse_condition(f"paired:{tmp_path / place}/1") for place in ("fog", "night"))
    known = script("robustness").alexnet([fog, night])
    assert known[fog.series] == known["fog"] == ALEXNET_ERROR["fog"]
    assert night.series not in known


def test_bad_names_are_refused_first(checkpoints, tmp_path):
    for wrong, message in (({"families": ("frots",)}, "did you mean frost"), ({"levels": (6,)}, "nearest is")):
        with pytest.raises(ValueError, match=message):
            call("robustness", model=("nowhere",), out=str(tmp_path / "out"), **wrong)
    with pytest.raises(ValueError, match="families must name at least one"):
        call("robustness", model=("nowhere",), out=str(tmp_path / "out"), families=())


def test_fifteen_corruptions_by_default():
    options = script("robustness").Options(model=("m",), out="o")
    assert len(options.families) * len(options.levels) == 75
