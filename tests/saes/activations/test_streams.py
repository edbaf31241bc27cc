"""Streams of images: whole batches, the same again from any place, whatever else draws random numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mechvit.data import Corruption, load_images, prepare, register_corruption
from mechvit.data.content import images_fingerprint
from mechvit.data.corruption_spec import CORRUPTION_FAMILIES
from mechvit.data.corruptions import CORRUPTIONS as CORRUPTIONS_BY_NAME
from mechvit.models.checkpoints.fingerprint import checkpoint_hash
from mechvit.saes import ImageStreams, StreamConfig

CORRUPTIONS = (Corruption("gaussian_blur", 2), Corruption("clean"), Corruption("gaussian_noise", 4))
SIZES = {"train_batch_size_tokens": 40, "images_per_batch": 5, "buffer_images": 6, "segment_images": 8}


@pytest.fixture
def make(tiny_model, tiny_images):
    def streams(images=tiny_images, **changes):
        config = StreamConfig(**(SIZES | {"calibration_images": 7} | changes))
        return ImageStreams(tiny_model, images, tiny_images.select(range(9)), corruptions=CORRUPTIONS, config=config)

    return streams


def test_an_epoch_has_the_steps_it_says(make):
    streams = make()
    assert streams.widths == {"blocks.1.hook_resid_post": 32}
    batches = list(streams.epoch(0))
    assert len(batches) == streams.steps_per_epoch(40) == 3 * (8 * 17 // 40)
    assert {tuple(batch.shape) for batch in batches} == {(40, 32)}


def test_an_epoch_goes_on_after_any_batch(make):
    whole = list(make().epoch(3))
    for cut in range(len(whole) + 1):
        begun = make().epoch(3)
        for _, _ in zip(range(cut), begun, strict=False):
            pass
        again = make().epoch(3)
        again.load_state_dict(begun.state_dict())
        rest = list(again)
        assert begun.state_dict() == {"batches": cut}
        assert len(rest) == len(whole) - cut
        assert all(torch.equal(one, two) for one, two in zip(rest, whole[cut:], strict=True))


def test_mixing_and_training_do_not_share_random_numbers(make):
    whole = list(make().epoch(1))
    torch.manual_seed(5)
    expected = torch.rand(20)
    torch.manual_seed(5)
    drawn = []
    for batch, same in zip(make().epoch(1), whole, strict=True):
        assert torch.equal(batch, same)
        drawn.append(torch.rand(1))
    assert torch.equal(torch.cat(drawn), expected[: len(drawn)])


def test_epochs_and_seeds_differ(make):
    first = torch.cat(list(make().epoch(0)))
    for other in (make().epoch(1), make(seed=1).epoch(0)):
        assert not torch.equal(torch.cat(list(other)), first)


def test_held_out_and_calibration_tokens_are_in_order_and_the_same_again(make, tiny_model):
    streams = make(clean_fraction=1.0)
    held_out = torch.cat(list(streams.held_out()))
    assert torch.equal(held_out, torch.cat(list(streams.held_out())))
    assert len(torch.cat(list(streams.calibration()))) == 7 * 17
    pixels = torch.cat([pixels for pixels, _ in streams._store(streams.validation_images, 0, np.arange(9)).pixels()])
    _, cache = tiny_model.run_with_cache(pixels)
    torch.testing.assert_close(held_out, cache["blocks.1.hook_resid_post"].flatten(0, 1), rtol=0, atol=1e-5)


def test_about_tells_the_model_the_mix_and_the_images(make, tiny_model, tiny_images):
    about = make(tokens="patches", clean_fraction=0.25).about()
    assert about["hook_tokens"] == "patches"
    assert about["corruptions"] == ["gaussian_blur_2", "gaussian_noise_4"]
    assert about["clean_fraction"] == 0.25
    assert about["checkpoint_hash"] == checkpoint_hash(tiny_model)
    assert about["data_fingerprint"] == images_fingerprint(tiny_images)
    assert about["validation_fingerprint"] == images_fingerprint(tiny_images.select(range(9)))


def test_about_changes_with_a_function_of_ones_own(make, tiny_model, tiny_images):
    """So that no training continues under another function of the same name."""
    assert "conditions" not in make().about()
    found = []
    try:
        for share in (0.5, 0.6):
            register_corruption("dark", lambda images, share=share: images * share)
            given = {"corruptions": ["dark"], "config": StreamConfig(**SIZES)}
            found.append(ImageStreams(tiny_model, tiny_images, tiny_images.select(range(9)), **given).about())
    finally:
        CORRUPTION_FAMILIES.pop("dark")
        CORRUPTIONS_BY_NAME.pop("dark")
    first, second = found
    assert first["corruptions"] == second["corruptions"] == ["dark"]
    assert first["conditions"]["dark"] != second["conditions"]["dark"]


def test_the_fingerprint_is_that_of_the_content(tiny_processor, tmp_path):
    raw = load_images("photos", "sae", limit=5, image_size=32)
    one, two = prepare(raw, tiny_processor), prepare(raw, tiny_processor, path=tmp_path / "images")
    found = images_fingerprint(one)
    assert found == images_fingerprint(two)
    assert len(found) == 16
    drawn = prepare(load_images("photos", "sae", limit=5, image_size=32, seed=1), tiny_processor)
    for other in (one.select([0, 1, 2, 4, 3]), one.select(range(4)), drawn):
        assert images_fingerprint(other) != found


def test_refuses_segments_that_give_no_batch(make):
    with pytest.raises(ValueError, match=r"takes 200 tokens, and 8 images give 136: use more images \(or segment_"):
        make(train_batch_size_tokens=200)
