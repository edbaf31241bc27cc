"""No page is made of attention or logits that are not finite: the error names the model, the picture, the layer."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from feature_pages import SMALL
from random_saes import make_sae

from mechvit import HookedViT
from mechvit.views import attention_explorer, attention_view, feature_browser, patch_lens_view

BLUR = ("gaussian_blur_4",)


@pytest.fixture(scope="module")
def models(tiny_hf, tiny_processor):
    broken = copy.deepcopy(tiny_hf)
    with torch.no_grad():
        broken.vit.layers[0].attention.k_proj.weight[0] = math.nan
    return {name: HookedViT.from_hf(hf, tiny_processor) for name, hf in (("base", tiny_hf), ("tuned", broken))}


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)
    return {name: rng.integers(0, 256, (32, 32, 3), np.uint8) for name in ("heron", "crane")}


def test_attention_view_names_the_layer_and_the_panel(models, pictures):
    attention_view(models["base"], pictures)
    with pytest.raises(ValueError, match=r"'ViTForImageClassification' gave .* at layer 0 on the images \['heron', "):
        attention_view(models["tuned"], pictures)
    spoilt = {"good": torch.zeros(3, 32, 32), "bad": torch.full((3, 32, 32), math.nan)}
    with pytest.raises(ValueError, match=r"at layer 1 on the images \['bad'\]: check"):
        attention_view(models["base"], spoilt, layers=[1])


@pytest.mark.parametrize("view", [attention_explorer, patch_lens_view])
def test_views_of_several_models_name_the_model_and_the_picture(models, pictures, view):
    view({"base": models["base"]}, pictures, BLUR)
    wanted = (
        r"'tuned' on the picture 'heron' \(clean, Gaussian blur 4\): .* must be finite; .* at layer [01] on the places"
    )
    with pytest.raises(ValueError, match=wanted):
        view(models, pictures, BLUR)


def test_patch_lens_names_a_broken_head(models, pictures):
    broken = copy.deepcopy(models["base"])
    with torch.no_grad():
        broken.head.bias[2] = -math.inf
    with pytest.raises(
        ValueError, match=r"'m' on the picture 'heron' .* single patches must be finite; .* at layer 0 on"
    ):
        patch_lens_view({"m": broken}, pictures, BLUR)


def test_feature_browser_names_activations_and_logits(models, tiny_images):
    sae = make_sae(hook_tokens="all")
    wanted = r"activations of .* must be finite; under clean those of the model '.*' are not on the image ids \["
    with pytest.raises(ValueError, match=wanted):
        feature_browser({"tuned": (models["tuned"], sae)}, tiny_images, BLUR, settings=SMALL)
    headless = copy.deepcopy(models["base"])
    with torch.no_grad():
        headless.head.weight[1, 1] = math.inf
    with pytest.raises(
        ValueError, match=r"logits must be finite; the model 'ViTFor.*' gave .* at layer 3 on the images"
    ):
        feature_browser({"base": (headless, sae)}, tiny_images, BLUR, settings=SMALL)
