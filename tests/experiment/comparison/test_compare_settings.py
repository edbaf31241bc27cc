"""Settings of a comparison: what is refused, and how models, settings and shares are named."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mechvit.experiment.comparison import CompareConfig, compare
from mechvit.experiment.comparison.checks import short_names
from mechvit.visualization.comparison.captions import part_of


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"models": ("a",)}, "models must be a base and at least one tuned model"),
        ({"models": ("a", "b"), "head": "mine"}, "head must be among"),
        ({"models": ("a", "b"), "sections": ("everything",)}, "sections must be among"),
        ({"models": ("a", "b"), "saes": ("x", "y", "z")}, "saes must be"),
        ({"models": ("a", "b"), "recovered": 1.5}, "recovered must be"),
    ],
)
def test_settings_are_refused_before_anything_is_read(changes, says):
    with pytest.raises(ValueError, match=says):
        CompareConfig(**{"out": "run", **changes})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sections": ("difference",), "quick": True}, "got difference, which a quick comparison leaves out"),
        ({"sections": ("behaviour", "conditions")}, "got conditions, which needs conditions"),
        ({"sections": ("saes",)}, "got saes, which needs SAEs"),
        ({"sections": ("pictures",)}, "must hold behaviour where it holds pictures"),
        ({"saes": ("train",), "quick": True}, "a quick comparison leaves them out"),
        ({"saes": ("train",), "sections": ("behaviour",)}, "the sections leave them out"),
    ],
)
def test_what_was_asked_for_is_not_left_out_in_silence(changes, says):
    with pytest.raises(ValueError, match=says):
        CompareConfig(models=("a", "b"), out="run", **changes)


def test_names_that_are_shared_grow_until_they_differ(tmp_path):
    names = short_names([str(tmp_path / "one" / "m"), str(tmp_path / "two" / "m"), "google/vit"])
    assert list(names) == ["one-m", "two-m", "vit"]
    assert not any("/" in name for name in names)
    with pytest.raises(ValueError, match="must name each once"):
        short_names([str(tmp_path), str(tmp_path / "x" / "..")])
    assert len(short_names(["/a-b/c", "/a/b/c", "/b/c", "/c"])) == 4


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"images": None}, "images must be photos, .*; got NoneType"),
        ({"images": Image.new("RGB", (8, 8))}, "images must be photos, .*; got Image"),
        ({"images": [np.zeros((8, 8, 3))]}, "a list that holds ndarray: save pictures in memory as files first"),
        ({"images": []}, "got an empty list"),
        ({"images": 3}, "got int"),
        ({"conditions": "fog_3"}, "conditions must be a list, as in \\['fog_3'\\]; got str"),
        ({"saes": "train"}, "saes must be a list"),
        ({"sections": [3]}, "sections must be a list of texts; it holds an? int"),
        ({"quick": "yes"}, "quick must be a bool; got 'yes'"),
        ({"limits": {"causes": 3}}, "limits must be a SectionLimits"),
        ({"pictures": ("a.png",)}, "a setting is one of .*; got pictures"),
        ({"models": ("a", "b")}, "a setting is one of .*; got models"),
    ],
)
def test_a_call_in_python_refuses_what_it_cannot_take(settings, says):
    with pytest.raises(ValueError, match=says):
        compare("base", "tuned", **settings)


def test_lists_are_tuples_of_settings():
    config = CompareConfig(models=["a", "b"], out="run", saes=["train"], conditions=["fog_3"])
    assert config.saes == ("train",)
    assert config.conditions == ("fog_3",)


@pytest.mark.parametrize(
    ("count", "of", "says"),
    [
        (0, 30, "0 of 30 images (0%)"),
        (3, 30, "3 of 30 images (10%)"),
        (1, 1, "1 of 1 image (100%)"),
        (1, 10_000, "1 of 10,000 images (under 0.1%)"),
        (9_999, 10_000, "9,999 of 10,000 images (over 99.9%)"),
    ],
)
def test_no_small_share_is_rounded_to_none(count, of, says):
    assert part_of(count, of) == says
