"""NaN and infinity in a model: no table or page is made of them, and the error names model, layer and image."""

from __future__ import annotations

import math

import pytest
import torch

from mechvit import HookedViT, analysis
from mechvit.analysis.attention.rollout import attention_rollout
from mechvit.analysis.finite import check_finite, model_name
from mechvit.analysis.inputs import pixel_values
from mechvit.analysis.interventions.head_effects import head_links
from mechvit.analysis.interventions.steering_directions import steering_directions
from mechvit.analysis.lenses.patch_lens import class_trajectories, patch_lens
from mechvit.analysis.representations.cka import View, compare_views
from mechvit.data.corruption_spec import CLEAN, Corruption

BLUR = Corruption.parse("gaussian_blur_2")
AT_LAYER = r"must be finite; the model '{}' gave NaN or infinity at layer {} on {}: check the checkpoint"


@pytest.fixture(params=[math.nan, math.inf])
def broken(tiny_model, request):
    """A model whose MLP of block 1 is not finite: nor is attention from block 2, and the stream from layer 2, on."""
    with torch.no_grad():
        tiny_model.blocks[1].mlp.fc2.bias[3] = request.param
    tiny_model.hf_config._name_or_path = "runs/broken"
    return tiny_model


def pixels(model, batch):
    return pixel_values(model, batch)


OF_BATCHES = {
    "logit lens": (2, lambda m, batch: analysis.logit_lens(m, batch)),
    "attention entropy": (2, lambda m, batch: analysis.attention_entropy(m, batch)),
    "attention shift": (2, lambda m, batch: analysis.attention_shift(m, batch, BLUR)),
    "direction": (1, lambda m, batch: steering_directions(m, batch, BLUR)),
}
OF_PICTURES = {
    "patch lens": (2, lambda m, batch: patch_lens(m, pixels(m, batch))),
    "class trajectories": (2, lambda m, batch: class_trajectories(m, pixels(m, batch), [0])),
    "attention maps": (2, lambda m, batch: analysis.attention_maps(m, pixels(m, batch))),
    "attention maps of an earlier layer, with a rollout": (
        2,
        lambda m, batch: analysis.attention_maps(m, pixels(m, batch), layers=[0]),
    ),
    "rollout": (2, lambda m, batch: attention_rollout(m, pixels(m, batch))),
}


@pytest.mark.parametrize("case", OF_BATCHES)
def test_a_table_names_model_layer_and_images(broken, batch, case):
    layer, act = OF_BATCHES[case]
    ids = batch.image_ids.tolist()[:8]
    wanted = AT_LAYER.format("runs/broken", layer, rf"the images \[{', '.join(map(str, ids))}\]")
    with pytest.raises(ValueError, match=wanted):
        act(broken, batch)


@pytest.mark.parametrize("case", OF_PICTURES)
def test_what_is_kept_of_pictures_names_model_layer_and_places(broken, batch, case):
    layer, act = OF_PICTURES[case]
    wanted = AT_LAYER.format("runs/broken", layer, r"the places \[0, 1, 2, 3, 4, 5, 6, 7\] of the batch")
    with pytest.raises(ValueError, match=wanted):
        act(broken, batch)


def test_representations_name_the_view(broken, tiny_hf, batch):
    models = {"base": HookedViT.from_hf(tiny_hf), "tuned": broken}
    views = [(View("base", CLEAN), View("tuned", BLUR))]
    wanted = r"residual stream under gaussian_blur_2 must be finite; the model 'tuned' gave .* at layer 2 on the images"
    with pytest.raises(ValueError, match=wanted):
        compare_views(models, batch, views, groups=4)


@pytest.mark.parametrize("side", ["receiver", "giver"])
def test_patching_names_the_side(broken, tiny_hf, batch, side):
    whole = HookedViT.from_hf(tiny_hf)
    pair = (broken, whole) if side == "receiver" else (whole, broken)
    with pytest.raises(ValueError, match=rf"the {side} 'runs/broken' gave NaN or infinity on the image ids \["):
        analysis.patch_models(*pair, batch, BLUR, kinds=("head",))
    named = "the receiver 'runs/broken'" if side == "receiver" else "the giver"
    with pytest.raises(ValueError, match=rf"logits must be finite; {named} gave"):
        analysis.attribution_patching(*pair, batch, BLUR)


def test_heads_are_measured_on_finite_attention(broken, tiny_hf, batch):
    whole = HookedViT.from_hf(tiny_hf)
    patching = analysis.patch_models(whole, whole, batch, BLUR, kinds=("head",))
    with pytest.raises(
        ValueError, match=r"the model 'giver runs/broken' gave NaN or infinity at layer 2 on the images"
    ):
        head_links(whole, broken, batch, BLUR, patching)


ORIGIN = r"gave NaN or infinity on the image ids \[.*\], first at blocks\.1\.hook_mlp_out: check the checkpoint"
OF_LOGITS = {
    "evaluate": (lambda m, batch: analysis.evaluate(m, batch), "'runs/broken'"),
    "study": (lambda m, batch: analysis.study({"tuned": m}, batch, [BLUR]), "'tuned'"),
    "robustness": (lambda m, batch: analysis.corrupted_performance({"tuned": m}, batch, [BLUR]), "'tuned'"),
    "Fourier": (lambda m, batch: analysis.fourier_sensitivity(m, batch, resolution=1), "'runs/broken'"),
    "lenses": (lambda m, batch: analysis.compare_lenses(m, {"logit": None}, batch), "'runs/broken'"),
    "patching": (lambda m, batch: analysis.patch_models(m, m, batch, BLUR, kinds=("head",)), "'runs/broken'"),
    "attribution": (lambda m, batch: analysis.attribution_patching(m, m, batch, BLUR), "'runs/broken'"),
}


@pytest.mark.parametrize("case", OF_LOGITS)
def test_logits_name_the_model_and_the_hook_point_where_it_begins(broken, batch, case):
    act, name = OF_LOGITS[case]
    with pytest.raises(ValueError, match=rf"logits must be finite; the (model|receiver) {name} {ORIGIN}"):
        act(broken, batch)


def test_the_first_hook_point_is_found_wherever_it_is(tiny_model, batch):
    shown = pixels(tiny_model, batch)
    assert analysis.first_not_finite(tiny_model, shown) is None
    assert analysis.first_not_finite(tiny_model, shown * math.nan) == "the pixels"
    weights = {
        "embed.cls_token": "hook_embed",
        "blocks.0.attn.k.weight": "blocks.0.attn.hook_k",
        "blocks.1.ln2.w": "blocks.1.ln2.hook_normalized",
        "head.bias": "hook_logits",
    }
    for name, point in weights.items():
        weight = tiny_model.get_parameter(name)
        kept = weight.detach().clone()
        with torch.no_grad():
            weight.view(-1)[0] = math.inf
        assert analysis.first_not_finite(tiny_model, shown) == point, name
        with torch.no_grad():
            weight.copy_(kept)
    assert analysis.first_not_finite(tiny_model, shown) is None


def test_changed_weights_are_told_how_to_find_it(broken, tiny_hf, tiny_processor, batch):
    whole = HookedViT.from_hf(tiny_hf, image_processor=tiny_processor)
    with pytest.raises(
        ValueError, match=r"\(mechvit\.analysis\.first_not_finite\(model, pixels\) tells where they begin\)"
    ):
        analysis.swap_weights(broken, whole, batch, [BLUR], parts=["blocks.1.mlp"])


def test_weights_of_another_model_are_named(broken, tiny_hf, tiny_processor, batch):
    whole = HookedViT.from_hf(tiny_hf, image_processor=tiny_processor)
    with pytest.raises(
        ValueError, match=r"logits must be finite; under gaussian_blur_2 the giver gave NaN or infinity on"
    ):
        analysis.swap_weights(whole, broken, batch, [BLUR], parts=["blocks.1.mlp"])
    with pytest.raises(
        ValueError, match=r"under gaussian_blur_2 the receiver 'runs/broken' gave NaN or infinity on the"
    ):
        analysis.swap_weights(broken, whole, batch, [BLUR], parts=["blocks.1.mlp"])


def test_one_image_alone_is_named():
    layers = [torch.zeros(3, 2, 2), torch.zeros(3, 4)]
    check_finite("weights", layers, "m")
    layers[1][2, 1] = -math.inf
    with pytest.raises(ValueError, match=r"weights must be finite; the model 'm' .* at layer 7 on the images \['b'\]"):
        check_finite("weights", layers, "m", ["x", "a", "b"], numbers=[5, 7])
    with pytest.raises(ValueError, match=r"at layer 1 on the places \[2\] of the batch"):
        check_finite("weights", layers, "m")


def test_a_model_is_called_what_it_was_loaded_from(tiny_model):
    assert model_name(tiny_model) == "ViTForImageClassification"
