"""The words of the transfer experiment's command line, and what it refuses before anything runs."""

from __future__ import annotations

import pytest

from mechvit.data import CLEAN, CORRUPTION_FAMILIES, IMAGENET_C, Corruption
from mechvit.experiment import TransferConfig
from mechvit.experiment.transfer_config import FILTERS, LISTS, PRESETS, corruptions_of, mixture_of


def test_default_is_four_kinds_of_noise_and_four_of_blur():
    config = PRESETS["photos"]
    assert [c.key for c in config.single] == list(FILTERS)
    assert [c.group for c in config.single] == ["noise"] * 4 + ["blur"] * 4
    assert list(config.trained) == ["clean", *FILTERS, "mixture_of_all"]
    assert config.trained["mixture_of_all"].members == tuple(
        sorted(config.single, key=lambda c: list(CORRUPTION_FAMILIES).index(c.family))
    )
    assert config.tested == (CLEAN, *config.single)


def test_words_stand_for_corruptions():
    assert corruptions_of("box_blur_3") == (Corruption("box_blur", 3),)
    assert corruptions_of("imagenet_c_2") == tuple(Corruption(family, 2) for family in IMAGENET_C)
    assert corruptions_of("blur") == tuple(
        Corruption(f, 4) for f in ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur")
    )
    assert [c.key for c in corruptions_of("weather_5")] == ["snow_5", "frost_5", "fog_5", "brightness_5"]
    assert len(corruptions_of("paper")) == 6
    assert not set(LISTS) & set(CORRUPTION_FAMILIES)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("imagenet_c_6", "a severity is 1 to 5; got 'imagenet_c_6'"),
        ("paper_2", "takes no severity; got 'paper_2'"),
        ("blurr_2", "must be one of clean"),
        ("filter", "did you mean|written family_level"),
    ],
)
def test_bad_words_are_refused(word, message):
    with pytest.raises(ValueError, match=message):
        corruptions_of(word)


def test_mixtures_of_words():
    chosen = corruptions_of("filters")
    assert mixture_of("noise", chosen).key == "mixture_of_noise"
    assert {c.group for c in mixture_of("noise", chosen).members} == {"noise"}
    assert len(mixture_of("all", chosen).members) == 8
    assert mixture_of("mine=clean+fog_3", chosen).key == "mine"
    with pytest.raises(ValueError, match="of weather there are 0 in this run"):
        mixture_of("weather", chosen)
    with pytest.raises(ValueError, match=r"joins corruptions by \+, as in fog_3\+gaussian_noise_4; got 'fog_3'"):
        mixture_of("fog_3", chosen)


def test_members_of_mixtures_are_tested_too():
    config = TransferConfig(corruptions=("fog_3", "box_blur_2"), mixtures=("clean+sharpen_2",), also_tested=("snow_1",))
    assert [c.key for c in config.tested] == ["clean", "fog_3", "box_blur_2", "sharpen_2", "snow_1"]
    assert "clean" not in TransferConfig(control=False, mixtures=()).trained


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"corruptions": ("fog_3",)}, "at least two to transfer between; got fog_3"),
        ({"corruptions": ("fog_3", "clean")}, "comes with control=True"),
        ({"mixtures": ("all", "all")}, "each mixture may be given once"),
        ({"resamples": 0}, r"resamples must be in \[1, 1000000\]; got 0"),
        ({"images": "folder:x"}, "model must be given with images of your own"),
        ({"limit": 0}, "limit must be at least 1"),
        ({"also_tested": ("fogg_1",)}, "did you mean"),
    ],
)
def test_bad_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        TransferConfig(**changes)
