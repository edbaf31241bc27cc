"""Attention of two models against Hugging Face's eager attention and scipy, head by head."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import scipy.spatial.distance
import torch
from family_runs import build
from hypothesis import given, settings
from hypothesis import strategies as st
from shifted_models import shifted

from mechvit.analysis import attention_change, attention_entropy, attention_maps
from mechvit.analysis.attention.attention_change import js_distance
from mechvit.data import ImageBatch, corrupt, normalize

CONDITIONS = ("clean", "gaussian_noise_2")


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 50), st.floats(0, 1), st.integers(0, 1000))
def test_the_distance_matches_scipy(keys, share, seed):
    rng = np.random.default_rng(seed)
    p, other = rng.dirichlet(np.full(keys, 0.3), size=(2, 4))
    q = (1 - share) * p + share * other
    with np.errstate(invalid="ignore"):  # its divergence of nearly equal rows can round below 0
        wanted = scipy.spatial.distance.jensenshannon(p, q, base=2, axis=1)
    found = js_distance(torch.from_numpy(p), torch.from_numpy(q))
    np.testing.assert_allclose(found, np.nan_to_num(wanted), atol=2e-8)
    assert torch.equal(js_distance(torch.from_numpy(q), torch.from_numpy(p)), found)


def test_the_distance_has_its_ends():
    """Equal rows are exactly 0 apart, rows without a common key exactly 1; small distances keep their digits."""
    p = torch.rand(3, 40).softmax(-1)
    assert (js_distance(p, p.clone()) == 0).all()
    one = torch.eye(4)
    assert js_distance(one, one.roll(1, 0)).tolist() == pytest.approx([1] * 4, abs=1e-6)
    assert (js_distance(one, one) == 0).all()
    for nudge in (1e-2, 1e-4, 1e-5):
        q = p.double().clone()
        q[:, 0], q[:, 1] = q[:, 0] + nudge * q[:, 1], (1 - nudge) * q[:, 1]
        q = q.float()
        exact = p.double(), q.double()
        t, m = (exact[0] - exact[1]) / (exact[0] + exact[1]), (exact[0] + exact[1]) / 2
        series = (m * (t**2 / 2 + t**4 / 12 + t**6 / 30)).sum(-1) / np.log(2)
        torch.testing.assert_close(js_distance(p, q).double(), series.sqrt(), rtol=1e-4, atol=0)


def test_heads_match_a_loop_over_hugging_face(tiny_model, batch, hf_pass):
    tuned = shifted(copy.deepcopy(tiny_model), 0.3)
    other = tuned.to_hf()
    other.set_attn_implementation("eager")
    found = attention_change(tiny_model, tuned, batch, CONDITIONS, batch_size=7)
    places = np.array([(row, column) for row in range(4) for column in range(4)])
    apart = np.linalg.norm(places[:, None] - places[None], axis=-1)
    for condition in CONDITIONS:
        pixels = normalize(corrupt(batch.images, condition, batch.image_ids, seed=0), tiny_model.image_processor)
        with torch.no_grad():
            theirs = other(pixels, output_attentions=True).attentions
        for layer, (own, their) in enumerate(zip(hf_pass(condition)[2], theirs, strict=True)):
            p, q = own.double().numpy(), their.double().numpy()
            wanted = scipy.spatial.distance.jensenshannon(p, q, base=2, axis=-1).mean(-1)
            got = found.numbers[condition, "js_distance"][:, layer]
            np.testing.assert_allclose(got, wanted, atol=2e-5)
            for name, pattern in (("base", p), ("tuned", q)):
                entropy = -(pattern * np.log(pattern)).sum(-1).mean(-1)
                patches = pattern[..., 1:, 1:]
                distance = ((patches * apart).sum(-1) / patches.sum(-1)).mean(-1)
                for quantity, value in (("entropy", entropy), ("distance", distance)):
                    own = found.numbers[condition, f"{quantity}_{name}"][:, layer]
                    np.testing.assert_allclose(own, value, atol=2e-5)
                mass = found.numbers[condition, f"cls_mass_{name}"][:, layer]
                np.testing.assert_allclose(mass, pattern[..., 1:, 0].mean(-1), atol=2e-6)
    assert found.image_id.tolist() == batch.image_ids.tolist()
    change = found.numbers["clean", "entropy_tuned"] - found.numbers["clean", "entropy_base"]
    assert torch.equal(found.numbers["clean", "entropy_change"], change)


def test_numbers_are_those_of_each_model_alone(tiny_model, batch):
    tuned = shifted(copy.deepcopy(tiny_model), 0.3)
    found = attention_change(tiny_model, tuned, batch)
    for name, model in (("base", tiny_model), ("tuned", tuned)):
        alone = attention_entropy(model, batch).entropy
        torch.testing.assert_close(
            found.numbers["clean", f"entropy_{name}"].mean(2).float(), alone, rtol=1e-5, atol=1e-5
        )
        maps = attention_maps(model, normalize(batch.images, model.image_processor))
        wanted = torch.from_numpy(np.stack([one.distance for one in maps]))
        torch.testing.assert_close(found.numbers["clean", f"distance_{name}"], wanted, rtol=1e-5, atol=1e-5)


FAMILIES = ["vit classifier", "beit classifier, shared bias", "dinov3 encoder", "siglip classifier"]


@pytest.mark.parametrize("name", FAMILIES)
def test_equal_models_do_not_differ(name):
    model = build(name, torch.float32)
    images = ImageBatch(torch.rand(3, 3, 32, 32), torch.full((3,), -1), torch.arange(3))
    found = attention_change(model, copy.deepcopy(model), images)
    for (_, quantity), values in found.numbers.items():
        if quantity == "js_distance" or quantity.endswith("_change"):
            assert (values == 0).all(), quantity
    assert ("clean", "cls_mass_base") in found.numbers or not model.cfg.cls_token
    assert "mean JS distance 0)" in repr(found)


def test_the_head_that_differs_is_first(tiny_model, batch):
    tuned = copy.deepcopy(tiny_model)
    with torch.no_grad():
        tuned.blocks[2].attn.q.weight[16:].mul_(-1)  # the last block's second head: nothing after it differs
    found = attention_change(tiny_model, tuned, batch)
    order = found.ranked(resamples=100)
    assert order.loc[0, ["layer", "head"]].tolist() == [2, 1]
    assert (order["js_distance"][1:] == 0).all()
    assert order.loc[0, "low"] > 0
    assert len(found.ranked(2, resamples=10)) == 2
    by_layer = found.summary(by="layer", resamples=10).set_index(["quantity", "layer"])["value"]
    mean = found.numbers["clean", "js_distance"].mean((0, 2))
    assert by_layer["js_distance", 2] == pytest.approx(float(mean[2]))
    frame = found.to_frame(pair="mine")
    assert len(frame) == 24 * 3 * 2
    row = frame.query("layer == 2 and head == 1 and image_id == @batch.image_ids[4].item()").iloc[0]
    assert row["js_distance"] == found.numbers["clean", "js_distance"][4, 2, 1]
    with pytest.raises(ValueError, match="condition must be one of those measured, clean; got 'fog_3'"):
        found.ranked(condition="fog_3")
    with pytest.raises(ValueError, match="by must be head or layer"):
        found.summary(by="query")


def test_other_grids_are_refused(tiny_model, batch):
    from transformers import ViTImageProcessorPil

    larger = copy.deepcopy(tiny_model)
    larger.set_image_size(48)
    with pytest.raises(ValueError, match=r"their grids of patches \(rows, columns\) are \(4, 4\) and \(6, 6\)"):
        attention_change(tiny_model, larger, batch)
    with pytest.raises(ValueError, match="numbers of tokens before the first patch are 1 and 2"):
        attention_change(tiny_model, build("deit with teacher", torch.float32), batch)
    cropping = copy.deepcopy(tiny_model)
    cropping.image_processor = ViTImageProcessorPil(
        size={"height": 40, "width": 40}, do_center_crop=True, crop_size={"height": 32, "width": 32}
    )
    with pytest.raises(ValueError, match="show the same part of a picture in each patch"):
        attention_change(tiny_model, cropping, batch)
