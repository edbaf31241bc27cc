from __future__ import annotations

import pytest
import torch
from hf_zoo import ZOO
from torch import nn
from zoo_options import daily

from mechvit import HookedViT
from mechvit.analysis import class_trajectories, logit_lens, patch_lens
from mechvit.analysis.lenses.patch_lens import classify_alone, unique_name
from mechvit.data.batches import ImageBatch

LENS = [name for name, entry in ZOO.items() if entry.zero_shot or "classifier" in name or "teacher" in name]


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def family(name: str) -> tuple[HookedViT, nn.Module]:
    entry = ZOO[name]
    hf = entry()
    return HookedViT.from_hf(hf, **entry.zero_shot_head()), hf


def normed(x: torch.Tensor, norm: nn.LayerNorm) -> torch.Tensor:
    return nn.functional.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def alone_by_hugging_face(name: str, hf: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Logits of patches [patch, d_model] by the Hugging Face model's own modules."""
    if name == "vit classifier":
        return hf.classifier(normed(x, hf.vit.layernorm))
    if name == "deit with teacher":
        y = normed(x, hf.deit.layernorm)
        return (hf.cls_classifier(y) + hf.distillation_classifier(y)) / 2
    if name == "dinov2 classifier":
        y = normed(x, hf.dinov2.layernorm)
        return hf.classifier(torch.cat([y, y], -1))
    if name == "ijepa classifier":
        return hf.classifier(normed(x, hf.ijepa.layernorm))
    if name == "beit classifier, relative bias":
        return hf.classifier(normed(x, hf.beit.pooler.layernorm))
    assert name == "siglip zero-shot"
    vision = hf.vision_model
    image = vision.head(normed(x, vision.post_layernorm)[:, None])
    text = ZOO[name].text_embeds()
    cosine = nn.functional.normalize(image, dim=-1) @ nn.functional.normalize(text, dim=-1).T
    return cosine * hf.logit_scale.exp() + hf.logit_bias


@pytest.mark.parametrize(
    "name",
    [
        "vit classifier",
        "deit with teacher",
        "dinov2 classifier",
        "ijepa classifier",
        "beit classifier, relative bias",
        "siglip zero-shot",
    ],
)
def test_patches_match_hugging_face(name, pixels):
    model, hf = family(name)
    found = patch_lens(model, pixels, top=3)
    _, cache = model.run_with_cache(pixels)
    points = [f"blocks.{layer}.hook_resid_pre" for layer in range(3)] + ["blocks.2.hook_resid_post"]
    with torch.no_grad():
        for layer, point in enumerate(points):
            for image in range(2):
                patches = cache[point][image, model.cfg.n_prefix_tokens :]
                expected = alone_by_hugging_face(name, hf, patches).softmax(-1).topk(3)
                torch.testing.assert_close(found.probability[image, layer], expected.values, rtol=1e-4, atol=1e-6)
                assert torch.equal(found.classes[image, layer], expected.indices)
    assert found.classes.shape == (4, 4, 16, 3)


@pytest.mark.parametrize("name", daily(LENS))
def test_alone_is_every_head_token_at_once(name):
    """The definition: a vector alone is that vector in the place of every token that the head reads."""
    model, _ = family(name)
    x = torch.randn(3, model.cfg.d_model, generator=torch.Generator().manual_seed(4))
    tokens = x[:, None].repeat(1, model.cfg.n_tokens, 1)[:, model.head_tokens]
    with torch.no_grad():
        for apply_ln in (True, False):
            expected = model.unembed_residual(tokens, apply_ln=apply_ln)
            torch.testing.assert_close(classify_alone(model, x, apply_ln=apply_ln), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", daily(LENS))
def test_trajectories_end_in_the_prediction_and_match_the_lens(name, pixels):
    model, _ = family(name)
    found = class_trajectories(model, pixels, [4, 1])
    with torch.no_grad():
        final = model(pixels).softmax(-1)[:, [4, 1]]
    torch.testing.assert_close(found.probability[:, -1], final, rtol=1e-4, atol=1e-6)
    images = ImageBatch(pixels.sigmoid(), torch.full((4,), 4), torch.arange(4))
    own = class_trajectories(model, images.images, [4]).probability[..., 0]
    torch.testing.assert_close(own, logit_lens(model, images).probability, rtol=1e-4, atol=1e-6)


def test_trajectories_are_tidy(tiny_model):
    found = class_trajectories(tiny_model, torch.randn(2, 3, 32, 32), [3, 0])
    frame = found.to_frame(model="base")
    assert list(frame.columns) == ["model", "image", "layer", "class", "probability"]
    assert len(frame) == 2 * 4 * 2
    row = frame[(frame["image"] == 1) & (frame["layer"] == 2) & (frame["class"] == "dog")]
    assert float(row["probability"].iloc[0]) == float(found.probability[1, 2, 0])


def test_shared_names_carry_their_ids():
    names = {0: "crane", 1: "cat", 2: "crane"}
    assert [unique_name(names, index) for index in names] == ["crane (0)", "cat", "crane (2)"]


def test_lens_refuses(tiny_model):
    pixels = torch.zeros(1, 3, 32, 32)
    for encoder in ("vit encoder", "dinov3 encoder", "siglip bare"):
        model = HookedViT.from_hf(ZOO[encoder]())
        for call in (lambda model: patch_lens(model, pixels), lambda model: class_trajectories(model, pixels, [0])):
            with pytest.raises(ValueError, match=rf"this {model.cfg.architecture} has none: load a classifier"):
                call(model)
    with pytest.raises(ValueError, match="top must be at least 1; got 0"):
        patch_lens(tiny_model, pixels, top=0)
    with pytest.raises(ValueError, match=r"classes must be one or more of 0 to 4; got \[5\]"):
        class_trajectories(tiny_model, pixels, [5])
