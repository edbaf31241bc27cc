"""Cosines of residual streams against a loop, and models that do not differ or differ in one block."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from family_runs import build
from shifted_models import shifted

from mechvit.analysis import compare_views, residual_cosine
from mechvit.analysis.representations.cka import View
from mechvit.data import CLEAN, ImageBatch, corrupt, normalize

CONDITIONS = ("clean", "gaussian_noise_2")


def test_cosines_match_a_loop(tiny_model, batch, hf_pass):
    tuned = shifted(copy.deepcopy(tiny_model), 0.2)
    other = tuned.to_hf()
    found = residual_cosine(tiny_model, tuned, batch, CONDITIONS, batch_size=7)
    for condition in CONDITIONS:
        pixels = normalize(corrupt(batch.images, condition, batch.image_ids, seed=0), tiny_model.image_processor)
        with torch.no_grad():
            theirs = other(pixels, output_hidden_states=True).hidden_states
        for layer, (own, given) in enumerate(zip(hf_pass(condition)[1], theirs, strict=True)):
            a, b = own.double().numpy(), given.double().numpy()
            wanted = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
            np.testing.assert_allclose(found.cosine[condition, "cls"][:, layer], wanted[:, 0], atol=1e-5)
            np.testing.assert_allclose(found.cosine[condition, "head"][:, layer], wanted[:, 0], atol=1e-5)
            np.testing.assert_allclose(found.cosine[condition, "patches"][:, layer], wanted[:, 1:].mean(1), atol=1e-5)
    assert found.image_id.tolist() == batch.image_ids.tolist()
    frame = found.to_frame(pair="mine")
    assert list(frame) == ["pair", "condition", "tokens", "image_id", "layer", "cosine"]
    assert len(frame) == 2 * 3 * 24 * 4
    summary = found.summary(resamples=50).set_index(["condition", "tokens", "layer"])
    mean = float(found.cosine["clean", "patches"][:, 2].mean())
    assert summary.loc[("clean", "patches", 2), "cosine"] == pytest.approx(mean)
    assert "24 images, layers 0 to 3" in repr(found)


@pytest.mark.parametrize("name", ["vit classifier", "siglip classifier", "dinov3 encoder"])
def test_equal_models_have_cosine_one(name):
    model = build(name, torch.float32)
    images = ImageBatch(torch.rand(3, 3, 32, 32), torch.full((3,), -1), torch.arange(3))
    found = residual_cosine(model, copy.deepcopy(model), images)
    assert all((1 - values).abs().max() < 1e-12 for values in found.cosine.values())
    assert (("clean", "cls") in found.cosine) == model.cfg.cls_token


def test_layers_before_a_changed_block_are_equal(planted):
    base, tuned, images = planted
    cosine = residual_cosine(base, tuned, images).cosine["clean", "patches"]
    assert (1 - cosine[:, :2]).abs().max() < 1e-12
    assert cosine[:, 2:].max() < 0.999


def test_other_shapes_are_refused(tiny_model, batch):
    larger = copy.deepcopy(tiny_model).set_image_size(48)
    with pytest.raises(ValueError, match="the cosine between two models' residual streams needs two models"):
        residual_cosine(tiny_model, larger, batch)


def test_cka_compares_models_of_other_widths_and_depths(tiny_model, batch, tiny_hf, tiny_processor):
    from transformers import ViTConfig, ViTForImageClassification

    from mechvit import HookedViT

    settings = {**tiny_hf.config.to_dict(), "label2id": None, "hidden_size": 48, "num_hidden_layers": 2}
    other = HookedViT.from_hf(ViTForImageClassification(ViTConfig.from_dict(settings)).eval(), tiny_processor)
    models = {"base": tiny_model, "tuned": other}
    pairs = [(View("base", CLEAN), View("tuned", CLEAN))]
    found = compare_views(models, batch, pairs, every_pair=True)[pairs[0]]
    assert len(found.value) == 4 * 3
    with pytest.raises(ValueError, match="models of different depth"):
        compare_views(models, batch, pairs)


def test_equal_models_have_cka_one(tiny_model, batch):
    models = {"base": tiny_model, "tuned": copy.deepcopy(tiny_model)}
    pairs = [(View("base", CLEAN), View("tuned", CLEAN))]
    assert (1 - compare_views(models, batch, pairs)[pairs[0]].value).abs().max() < 1e-9
