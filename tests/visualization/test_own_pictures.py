"""Models beside each other on one picture are those whose processors show the same part of it in every patch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTImageProcessorPil

from mechvit import HookedViT
from mechvit.data import CLEAN
from mechvit.views import attention_explorer, attention_view, patch_lens_view
from mechvit.views.example_images import captioned_images, conditioned_images

SQUARE = {"size": {"height": 32, "width": 32}}


@pytest.fixture
def models(tiny_hf):
    kinds = {"own": {}, "other filter": {"resample": 3}, "other mean": {"image_mean": [0.3] * 3, "do_rescale": False}}
    return {n: HookedViT.from_hf(tiny_hf, image_processor=ViTImageProcessorPil(**SQUARE | k)) for n, k in kinds.items()}


@pytest.fixture
def photo():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8))


@pytest.mark.parametrize("view", [attention_explorer, patch_lens_view])
def test_views_name_the_settings_that_differ(models, photo, view):
    pair = {name: models[name] for name in ("own", "other filter")}
    with pytest.raises(ValueError, match=r"on one picture needs .* differ in resample bilinear and bicubic"):
        view(pair, {"photo": photo}, ["gaussian_blur_2"])
    view({name: models[name] for name in ("own", "other mean")}, {"photo": photo}, ["gaussian_blur_2"])


def test_each_model_takes_the_picture_on_its_own_scale(models, photo):
    """Against transformers' own output."""
    pair = {name: models[name] for name in ("own", "other mean")}
    batch, titles = captioned_images(models["own"], {"photo": photo}, 1)
    (shown,) = conditioned_images(pair, batch, titles, [CLEAN], 0)
    for model, found in zip(pair.values(), shown.pixel_values, strict=True):
        expected = model.image_processor(photo, return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_view_draws_the_picture_of_an_unusual_scale(models, photo):
    """Pixel values of bytes were drawn as if they were of [0, 1]: all white."""
    drawn = [attention_view(models[name], photo).panels[0].picture for name in ("own", "other mean")]
    assert drawn[0] == drawn[1]
