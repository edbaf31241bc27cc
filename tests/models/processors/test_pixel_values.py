"""A model sees the pixel values of its image processor, whatever its settings; or the setting at fault is named."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mechvit import HookedViT
from mechvit.analysis import evaluate
from mechvit.data import normalize, unit_pixels
from mechvit.models.processors.image_processor import read_image_processor
from mechvit.models.processors.pixel_values import PixelScale, pixel_scale

Processor = transformers.ViTImageProcessorPil
STANDARD = {
    name: getattr(transformers, f"{name}ImageProcessorPil") for name in ("ViT", "DeiT", "CLIP", "Bit", "Siglip", "Beit")
}
UNUSUAL = {
    "no rescaling": {"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [127.5] * 3},
    "twice the factor": {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3},
    "bytes": {"do_rescale": False, "do_normalize": False},
    "one mean for all": {"image_mean": 0.4, "image_std": 0.3},
    "an odd factor": {"rescale_factor": 1 / 256, "image_mean": [0.2, 0.5, 0.7], "image_std": [0.5, 0.1, 2.0]},
    "no normalisation": {"do_normalize": False},
}


def picture(height, width, mode="RGB", seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise).convert(mode)


def shown(processor, image):
    """The input of a model by mechvit: bytes, [0, 1], pixel values."""
    return normalize(torch.from_numpy(unit_pixels([image], processor)).float() / 255, processor).numpy()


def assert_same(found, expected):
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", UNUSUAL)
def test_predictions_are_those_of_transformers(name, tiny_hf, tmp_path):
    """Half of the predictions once differed."""
    tiny_hf.save_pretrained(tmp_path)
    Processor(size={"height": 32, "width": 32}, **UNUSUAL[name]).save_pretrained(tmp_path)
    model = HookedViT.from_pretrained(tmp_path, device="cpu")
    theirs = transformers.ViTImageProcessorPil.from_pretrained(tmp_path)
    import datasets

    pictures = [picture(40 + i, 50, seed=i) for i in range(24)]
    columns = {"image": pictures, "label": [0] * 24, "image_id": list(range(24))}
    images = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
    with torch.no_grad():
        expected = tiny_hf(theirs(pictures, return_tensors="pt")["pixel_values"]).logits
    found = evaluate(model, images)
    assert torch.equal(found.prediction, expected.argmax(-1))
    torch.testing.assert_close(found.confidence, expected.softmax(-1).amax(-1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", STANDARD)
def test_the_usual_scale_changes_no_bit(name):
    """(image - mean) / std and nothing else, where bytes are divided by 255."""
    processor = STANDARD[name](image_mean=[0.3, 0.4, 0.5], image_std=[0.2, 0.3, 0.4])
    images = torch.rand(2, 3, 5, 5)
    mean, std = (torch.tensor(part).view(-1, 1, 1) for part in ([0.3, 0.4, 0.5], [0.2, 0.3, 0.4]))
    assert torch.equal(normalize(images, processor), (images - mean) / std)
    assert torch.equal(normalize(images, STANDARD[name](do_normalize=False)), images)


def sizes(draw):
    side, crop = draw(st.integers(16, 40)), draw(st.integers(16, 40))
    kind = draw(st.sampled_from(["square", "oblong", "shortest", "cropped", "shortest, cropped", "as it is"]))
    size = {"shortest_edge": side} if "shortest" in kind else {"height": side, "width": crop}
    size = {"height": side, "width": side} if kind == "square" else size
    return {
        "do_resize": kind != "as it is",
        "size": size,
        "do_center_crop": "cropped" in kind,
        "crop_size": {"height": crop, "width": crop},
    }


@st.composite
def standard(draw):
    """A processor of a standard kind, with any of its settings."""
    numbers = st.floats(-2, 2, allow_nan=False, width=32)
    some = st.one_of(numbers, st.lists(numbers, min_size=3, max_size=3))
    positive = st.floats(0.0625, 200, width=32)
    spread = st.one_of(positive, st.lists(positive, min_size=3, max_size=3))
    kind = STANDARD[draw(st.sampled_from(sorted(STANDARD)))]
    return kind(
        **sizes(draw),
        resample=draw(st.integers(0, 5)),
        do_rescale=draw(st.booleans()),
        rescale_factor=draw(st.sampled_from([1 / 255, 1 / 127.5, 1 / 256, 0.5, 1.0])),
        do_normalize=draw(st.booleans()),
        image_mean=draw(some),
        image_std=draw(spread),
        do_convert_rgb=draw(st.booleans()),
    )


@settings(max_examples=80, deadline=None)
@given(standard(), st.integers(12, 60), st.integers(12, 60), st.sampled_from(["RGB", "L", "P", "CMYK", "RGBA", "LA"]))
def test_any_settings_give_what_transformers_gives(processor, height, width, mode):
    image = picture(height, width, mode if processor.do_convert_rgb else "RGB")
    if image.mode in ("RGBA", "LA"):
        image.putalpha(picture(height, width, "L", seed=1))
    assert_same(shown(processor, image), processor(image, return_tensors="np")["pixel_values"])


@st.composite
def unusual(draw):
    """A processor with a setting that only some classes have, and which may not be reproducible."""
    on, side = draw(st.booleans()), draw(st.sampled_from([32, 48]))
    square = {"size": {"height": side, "width": side}, "do_normalize": draw(st.booleans())}
    kinds = {
        "do_pad": lambda: Processor(do_pad=on, pad_size={"height": 48, "width": 48}, **square),
        "include_top": lambda: transformers.EfficientNetImageProcessorPil(include_top=on, **square),
        "rescale_offset": lambda: transformers.EfficientNetImageProcessorPil(
            include_top=False, rescale_offset=on, rescale_factor=draw(st.sampled_from([1 / 127.5, 1 / 255])), **square
        ),
        "do_flip_channel_order": lambda: transformers.MobileViTImageProcessorPil(
            do_flip_channel_order=on, size=square["size"]
        ),
        "crop_pct": lambda: transformers.ConvNextImageProcessorPil(
            size={"shortest_edge": 32}, crop_pct=draw(st.sampled_from([0.5, 0.875, 1.0]))
        ),
        "do_grayscale": lambda: transformers.SuperPointImageProcessorPil(do_grayscale=on, size=square["size"]),
    }
    name = draw(st.sampled_from(sorted(kinds)))
    return name, kinds[name]()


@settings(max_examples=60, deadline=None)
@given(unusual(), st.integers(20, 60), st.integers(20, 60))
def test_a_setting_is_reproduced_or_refused_by_name(drawn, height, width):
    name, processor = drawn
    image = picture(height, width)
    try:
        found = shown(processor, image)
    except ValueError as error:
        found, why = None, str(error)
    if found is not None:
        assert_same(found, processor(image, return_tensors="np")["pixel_values"])
    else:
        assert name in {"do_pad", "include_top", "do_flip_channel_order", "do_grayscale"}  # the others are followed
        assert f"because of {name}=True" in why


@pytest.mark.parametrize(
    ("processor", "message"),
    [
        (lambda: Processor(do_pad=True, pad_size={"height": 256, "width": 256}), "do_pad=True"),
        (lambda: transformers.MobileViTImageProcessorPil(), "do_flip_channel_order=True"),
        (lambda: transformers.EfficientNetImageProcessorPil(), "include_top=True"),
        (lambda: Processor(image_std=[0.5, 0.0, 0.5]), "image_std above 0"),
        (
            lambda: transformers.MobileViTImageProcessorPil(do_flip_channel_order=False, do_normalize=True),
            "do_normalize",
        ),
        (lambda: transformers.Siglip2ImageProcessorPil(), r"it makes \[1, 256, 768\]"),
    ],
    ids=["do_pad", "do_flip_channel_order", "include_top", "image_std", "ignored by its class", "patches"],
)
def test_what_cannot_be_reproduced_is_refused_when_loaded(processor, message, tiny_hf):
    with pytest.raises(ValueError, match=message):
        HookedViT.from_hf(tiny_hf, image_processor=processor())


def test_a_checkpoints_processor_is_refused_with_its_folder(tiny_hf, tmp_path):
    tiny_hf.save_pretrained(tmp_path)
    Processor(do_pad=True, pad_size={"height": 256, "width": 256}).save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=rf"the image processor of {tmp_path} \(its preprocessor_config.json\): .*do_pad=True"
    ):
        read_image_processor(tmp_path)


def test_settings_that_the_class_does_not_know_are_ignored_as_transformers_ignores_them():
    processor = Processor(rescale_offset=True, include_top=True, do_flip_channel_order=True)
    assert pixel_scale(processor) == PixelScale(mean=(0.5,) * 3, std=(0.5,) * 3)
    image = picture(60, 80)
    assert_same(shown(processor, image), processor(image, return_tensors="np")["pixel_values"])


def test_a_processor_is_compared_once_for_its_settings(monkeypatch):
    """A changed setting is another processor."""
    calls = []
    plain = Processor.__call__
    monkeypatch.setattr(Processor, "__call__", lambda self, *a, **k: calls.append(1) or plain(self, *a, **k))
    processor = Processor(size={"height": 37, "width": 37})
    images = torch.rand(2, 3, 37, 37)
    normalize(images, processor)
    first = len(calls)
    assert first > 0
    for _ in range(5):
        normalize(images, processor)
    assert len(calls) == first
    processor.do_rescale = False
    assert torch.equal(normalize(images, processor), (images * 255 - 0.5) / 0.5)
    assert len(calls) > first


def test_values_go_back_to_rgb():
    images = torch.rand(2, 3, 4, 4)
    for scale in (PixelScale(), PixelScale(scale=255, mean=(127.5,), std=(60.0,)), PixelScale(scale=2, offset=1)):
        torch.testing.assert_close(scale.unit(scale.values(images)), images)


def grey(tmp_path):
    """A checkpoint for images of one channel, with its processor."""
    config = transformers.ViTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_channels=1,
        num_labels=4,
    )
    hf_model = transformers.ViTForImageClassification(config).eval()
    hf_model.save_pretrained(tmp_path)
    processor = Processor(size={"height": 32, "width": 32}, image_mean=[0.4], image_std=[0.2])
    processor.save_pretrained(tmp_path)
    return hf_model, processor


def test_a_model_of_one_channel_is_refused_as_such(tmp_path):
    hf_model, processor = grey(tmp_path)
    with pytest.raises(ValueError, match=r"images of 1 channel \(an image_mean of \[0.4\]\) are not supported"):
        HookedViT.from_pretrained(tmp_path, device="cpu")
    with pytest.raises(ValueError, match="images of 1 channel"):
        unit_pixels([picture(40, 40, "L")], processor)
    with pytest.raises(ValueError, match=r"images of 1 channel \(num_channels of the config\)"):
        HookedViT.from_hf(hf_model, image_processor=Processor(size={"height": 32, "width": 32}))
    pixels = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(HookedViT.from_hf(hf_model)(pixels), hf_model(pixels).logits, rtol=0, atol=1e-5)


def test_the_way_out_for_one_channel_changes_no_logit(tmp_path):
    """The advice of the refusal: three channels with a third of the kernel each; on grey pictures the same model."""
    hf_model, processor = grey(tmp_path)
    image = picture(32, 32, "L")
    expected = hf_model(processor(image, return_tensors="pt")["pixel_values"]).logits
    kernel = hf_model.state_dict()["vit.embeddings.patch_embeddings.projection.weight"]
    config = transformers.ViTConfig(**(hf_model.config.to_dict() | {"num_channels": 3}))
    three = transformers.ViTForImageClassification(config).eval()
    three.load_state_dict(
        hf_model.state_dict()
        | {"vit.embeddings.patch_embeddings.projection.weight": kernel.expand(-1, 3, -1, -1).div(3)}
    )
    rgb = Processor(size={"height": 32, "width": 32}, image_mean=[0.4] * 3, image_std=[0.2] * 3)
    model = HookedViT.from_hf(three, image_processor=rgb)
    found = model(torch.from_numpy(shown(rgb, image)))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
