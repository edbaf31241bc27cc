"""A checkpoint takes images of the size that its own image processor makes; processors work without torchvision."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers
from hf_reference import run_reference
from hf_zoo import ZOO
from PIL import Image

from mechvit import HookedViT
from mechvit.models.processors.image_processor import output_size, read_image_processor

MEAN, STD = [0.48, 0.45, 0.4], [0.22, 0.23, 0.25]
SIZED = [
    "vit classifier",
    "deit with teacher",
    "beit classifier, all positions",
    "data2vec classifier, relative bias",
    "dinov2 classifier",
    "registers classifier",
    "dinov3 encoder",
    "ijepa classifier",
    "clip classifier",
    "siglip classifier",
]


def square(side):
    return transformers.ViTImageProcessorPil(size={"height": side, "width": side})


def picture():
    values = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((140, 100), Image.Resampling.BICUBIC)


@pytest.mark.long
@pytest.mark.parametrize("name", SIZED)
def test_images_of_the_processors_size_match_hugging_face(name, tmp_path):
    """A table for 32 px and a processor for 48 px, as DINOv2's for 518 px and 224 px; no weight changes."""
    hf_model = ZOO[name]().double()
    hf_model.save_pretrained(tmp_path / "hf")
    square(48).save_pretrained(tmp_path / "hf")
    model = HookedViT.from_pretrained(tmp_path / "hf", device="cpu")
    assert (model.cfg.image_size, model.cfg.grid, model.cfg.position_grid) == (48, (6, 6), (4, 4))
    pixels = model.image_processor(picture(), return_tensors="pt")["pixel_values"].double()
    theirs = run_reference(hf_model, pixels, interpolate=True)
    expected = theirs.last_hidden_state if theirs.logits is None else theirs.logits
    torch.testing.assert_close(model(pixels), expected, rtol=1e-10, atol=1e-10)
    out, cache = model.run_with_cache(pixels)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
    assert cache["resid_post", 1].shape[1] == model.cfg.n_tokens == model.cfg.n_prefix_tokens + 36
    with pytest.raises(ValueError, match="48, 48"):
        model(torch.zeros(1, 3, 32, 32))
    back = model.to_hf().state_dict()
    assert all(torch.equal(back[key], tensor) for key, tensor in hf_model.state_dict().items())
    model.save_pretrained(tmp_path / "ours")
    again = HookedViT.from_pretrained(tmp_path / "ours", device="cpu")
    assert again.cfg == model.cfg
    assert torch.equal(again(pixels), model(pixels))
    moved = model.to(torch.float32)
    assert moved(pixels.float()).dtype == torch.float32
    assert moved.set_image_size(32).cfg.position_image_size is None
    own = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    expected = run_reference(hf_model, own, interpolate=False)
    expected = expected.last_hidden_state if expected.logits is None else expected.logits
    torch.testing.assert_close(model.to(torch.float64)(own), expected, rtol=1e-5, atol=1e-5)


def test_an_image_smaller_than_a_patch_is_refused():
    model = HookedViT.from_hf(ZOO["vit classifier"]())
    with pytest.raises(ValueError, match="at least patch_size; got 7 < 8"):
        model.set_image_size(7)
    assert model.cfg.image_size == 32


@pytest.mark.parametrize(
    ("processor", "size"),
    [
        (square(48), 48),
        (transformers.CLIPImageProcessorPil(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}), 32),
        (transformers.BitImageProcessorPil(size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224}), 224),
        (transformers.BitImageProcessorPil(size={"shortest_edge": 40}, do_center_crop=False), None),
        (transformers.ViTImageProcessorPil(do_resize=False), None),
        (transformers.ViTImageProcessorPil(size={"height": 48, "width": 32}), None),
        (transformers.Siglip2ImageProcessorPil(max_num_patches=16), None),
    ],
    ids=lambda value: value if isinstance(value, int) else type(value).__name__,
)
def test_output_size(processor, size):
    assert output_size(processor) == size


def test_a_processor_of_other_shapes_leaves_the_configs_size(tmp_path):
    ZOO["vit classifier"]().save_pretrained(tmp_path)
    transformers.ViTImageProcessorPil(do_resize=False).save_pretrained(tmp_path)
    assert HookedViT.from_pretrained(tmp_path, device="cpu").cfg.image_size == 32


def test_no_processor_is_none(tmp_path):
    ZOO["vit classifier"]().save_pretrained(tmp_path)
    assert read_image_processor(tmp_path) is None


def test_dinov3_without_torchvision(tmp_path):
    """Its own class exists for torchvision only; the same resize, rescale and normalisation on PIL."""
    ZOO["dinov3 encoder"]().save_pretrained(tmp_path)
    settings = {"image_processor_type": "DINOv3ViTImageProcessorFast", "size": {"height": 48, "width": 48}}
    settings |= {"do_resize": True, "do_rescale": True, "do_normalize": True, "image_mean": MEAN, "image_std": STD}
    settings |= {"resample": 2, "rescale_factor": 1 / 255, "data_format": "channels_first", "do_center_crop": None}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    model = HookedViT.from_pretrained(tmp_path, device="cpu")
    assert model.cfg.image_size == 48
    found = model.image_processor(picture(), return_tensors="pt")["pixel_values"][0]
    unit = torch.from_numpy(np.array(picture())).permute(2, 0, 1)[None].double() / 255
    resized = torch.nn.functional.interpolate(unit, (48, 48), mode="bilinear", antialias=True)[0]
    expected = (resized - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1.1 / 255 / min(STD))


def test_siglip2_becomes_a_square(tmp_path):
    ZOO["siglip2 classifier"]().save_pretrained(tmp_path)
    theirs = transformers.Siglip2ImageProcessorPil(max_num_patches=16, patch_size=8, image_mean=MEAN, image_std=STD)
    theirs.save_pretrained(tmp_path)
    model = HookedViT.from_pretrained(tmp_path, device="cpu")
    assert model.cfg.image_size == 32
    square_picture = picture().resize((90, 90))
    patches = theirs(square_picture, return_tensors="pt")["pixel_values"][0]
    pixels = model.image_processor(square_picture, return_tensors="pt")["pixel_values"][0]
    cut = pixels.unflatten(2, (4, 8)).unflatten(1, (4, 8)).permute(1, 3, 2, 4, 0).reshape(16, -1)
    torch.testing.assert_close(cut, patches, rtol=0, atol=1e-5)


def test_a_processor_beside_a_tokenizer_is_found(tmp_path):
    """`CLIPProcessor.save_pretrained` of transformers 5 nests the image processor in processor_config.json."""
    ZOO["clip bare"]().save_pretrained(tmp_path)
    own = transformers.CLIPImageProcessorPil(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32})
    nested = {"image_processor": own.to_dict(), "processor_class": "CLIPProcessor"}
    (tmp_path / "processor_config.json").write_text(json.dumps(nested))
    model = HookedViT.from_pretrained(tmp_path, device="cpu")
    assert model.image_processor.crop_size["height"] == 32
    assert model.cfg.image_size == 32
    model.save_pretrained(tmp_path / "ours")
    model.save_pretrained(tmp_path / "ours")  # its own files may be replaced
    assert HookedViT.from_pretrained(tmp_path / "ours", device="cpu").image_processor.crop_size["height"] == 32
