from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from hf_zoo import ZOO
from PIL import Image

from mechvit.views import attention_view
from mechvit.visualization.attention.circuitsvis_view import attention_spec


@pytest.fixture
def photo(tiny_images) -> Image.Image:
    return Image.fromarray(np.asarray(tiny_images[0]["pixels"], np.uint8).transpose(1, 2, 0))


def unpack(spec, panel: int, layer: int) -> np.ndarray:
    """The patterns as the page's script decodes them."""
    heads, tokens = len(spec["heads"]), len(spec["tokens"])
    packed = np.frombuffer(base64.b64decode(spec["panels"][panel]["layers"][layer]), "<u2")
    return packed.reshape(heads, tokens, tokens) / 65535 * spec["panels"][panel]["scale"]


def test_patterns_match_run_with_cache(tiny_model, tiny_processor, photo):
    view = attention_view(tiny_model, photo, layers=[0, 2], max_tokens=None)
    pixels = tiny_processor(images=photo, return_tensors="pt")["pixel_values"]
    _, cache = tiny_model.run_with_cache(pixels)
    spec = view.spec()
    for place, layer in enumerate((0, 2)):
        expected = cache[f"blocks.{layer}.attn.hook_pattern"][0].numpy()
        np.testing.assert_allclose(view.panels[0].patterns[place], expected, atol=1e-6)
        np.testing.assert_allclose(unpack(spec, 0, place), expected, atol=1e-5)
    assert spec["layers"] == (0, 2)
    assert spec["heads"] == ["Head 0", "Head 1"]
    assert (len(spec["tokens"]), spec["grid"]) == (17, (4, 4))


def test_patterns_match_hugging_face(tiny_model, tiny_hf, tiny_processor, photo):
    pixels = tiny_processor(images=photo, return_tensors="pt")["pixel_values"]
    before = tiny_hf.config._attn_implementation
    tiny_hf.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            expected = tiny_hf(pixels, output_attentions=True).attentions[1][0, 1].numpy()
    finally:
        tiny_hf.set_attn_implementation(before)
    view = attention_view(tiny_model, pixels, layers=[1], heads=[1], max_tokens=None)
    assert view.panels[0].patterns.shape == (1, 1, 17, 17)
    np.testing.assert_allclose(view.panels[0].patterns[0, 0], expected, atol=1e-6)


def test_pooled_view_shows_the_picture_the_model_saw(tiny_model, photo):
    view = attention_view(tiny_model, {"clean": photo, "dark": photo.point(lambda value: value // 4)}, max_tokens=5)
    assert [panel.title for panel in view.panels] == ["clean", "dark"]
    assert (view.grid, len(view.tokens)) == ((2, 2), 5)
    for panel in view.panels:
        assert panel.patterns.shape == (3, 2, 5, 5)
        np.testing.assert_allclose(panel.patterns.sum(-1), 1, rtol=1e-5)
    picture = Image.open(io.BytesIO(base64.b64decode(view.panels[0].picture.split(",")[1])))
    difference = np.abs(np.asarray(picture.convert("RGB"), int) - np.asarray(photo, int))
    assert difference.max() <= 1


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_pictures_of_other_modes_are_seen_in_rgb(tiny_model, photo, mode):
    other = photo.convert(mode)
    view, wanted = (attention_view(tiny_model, picture, layers=[0]) for picture in (other, other.convert("RGB")))
    np.testing.assert_array_equal(view.panels[0].patterns, wanted.panels[0].patterns)
    assert view.panels[0].picture == wanted.panels[0].picture


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("registers classifier", ["CLS", "register 1", "register 2", "register 3"]),
        ("deit with teacher", ["CLS", "distillation"]),
        ("siglip vision", []),
    ],
)
def test_tokens_are_named_as_the_model_orders_them(name, prefix, tiny_processor, photo):
    from mechvit import HookedViT

    view = attention_view(HookedViT.from_hf(ZOO[name](), tiny_processor), photo, layers=[1], max_tokens=None)
    assert list(view.tokens) == [*prefix, *(f"r{row}c{column}" for row in range(4) for column in range(4))]


def test_attention_view_leaves_the_model_as_it_was(tiny_model, photo):
    attention_view(tiny_model, photo)
    assert not any(point.fwd_hooks for point in tiny_model.hook_dict.values())


def test_beside_links_views_and_sets_group_them(tiny_model, photo):
    one, two = (attention_view(tiny_model, {name: photo}, layers=[0]) for name in ("base", "tuned"))
    both = one.beside(two)
    assert [panel.title for panel in both.panels] == ["base", "tuned"]
    spec = attention_spec(both, {"blur": [0, 1], "noise": [1]})
    assert spec["sets"] == [{"title": "blur", "panels": [0, 1]}, {"title": "noise", "panels": [1]}]
    with pytest.raises(ValueError, match=r"must share tokens, layers and heads.*layers \(0,\).*layers \(1,\)"):
        one.beside(attention_view(tiny_model, photo, layers=[1]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": [3]}, r"layers must be one or more of 0 to 2, none twice; got \[3\]"),
        ({"layers": []}, r"layers must be one or more"),
        ({"heads": [1, 1]}, r"heads must be one or more of 0 to 1, none twice; got \[1, 1\]"),
        ({"heads": [-1]}, r"heads must be one or more of 0 to 1, none twice; got \[-1\]"),
        ({"max_tokens": 1}, r"max_tokens must leave room .* got 1"),
    ],
)
def test_attention_view_rejects_choices(tiny_model, photo, options, message):
    with pytest.raises(ValueError, match=message):
        attention_view(tiny_model, photo, **options)


@pytest.mark.parametrize("image", [torch.zeros(2, 3, 32, 32), torch.zeros(1, 32, 32), torch.zeros(3, 32, 32).int()])
def test_attention_view_rejects_tensors(tiny_model, image):
    with pytest.raises(ValueError, match=r"normalised floating-point pixel values .* got torch\."):
        attention_view(tiny_model, image)


def test_a_picture_needs_an_image_processor(tiny_hf, photo):
    from mechvit import HookedViT

    with pytest.raises(ValueError, match="needs the model's image processor"):
        attention_view(HookedViT.from_hf(tiny_hf), photo)


def test_notebook_output_is_one_escaped_frame(tiny_model, photo):
    text = attention_view(tiny_model, photo, layers=[0], title='a "quoted" title')._repr_html_()
    assert text.startswith('<iframe srcdoc="&lt;!doctype html&gt;')
    assert text.count('"') == 10  # the frame's five attributes; none of the page's own
