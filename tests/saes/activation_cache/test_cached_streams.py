"""Caches feed the trainer: float32 batches of all hook points, held-out and calibration tokens in order."""

from __future__ import annotations

import json

import pytest
import torch
from cache_contents import CORRUPTIONS, HOOKS, numbered

from mechvit.data.content import images_fingerprint
from mechvit.models.checkpoints.fingerprint import checkpoint_hash
from mechvit.models.processors.preprocessing import all_settings
from mechvit.saes.activation_cache import CachedStreams, ShuffleOptions


def cached_streams(train, validation, **changes):
    """Batches of 40 rows; nine images to calibrate on."""
    return CachedStreams(
        train, validation, ShuffleOptions(**{"batch_size": 40, "seed": 0} | changes), calibration_images=9
    )


@pytest.fixture
def streams(numbered_cache):
    """Training on 53 images, held-out checks on 10."""
    return cached_streams(numbered_cache("train"), numbered_cache("validation", n_images=10))


def test_an_epoch_gives_full_batches_of_all_columns(streams):
    assert streams.widths == {"hook_0": 3, "hook_1": 5}
    batches = list(streams.epoch(2))
    assert len(batches) == streams.steps_per_epoch(40) == 371 // 40
    assert all(batch.shape == (40, 8) and batch.dtype == torch.float32 for batch in batches)
    rows = torch.cat(batches)[:, 0]
    assert torch.equal(torch.cat(batches), torch.cat([numbered(rows, 0, 3), numbered(rows, 1, 5)], dim=1))
    assert len(set(rows.tolist())) == 360
    assert streams.steps_per_epoch(53) == 7


def test_epochs_differ_and_repeat(streams):
    first, again, other = (torch.cat(list(streams.epoch(number))) for number in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_held_out_tokens_are_the_other_caches_in_order(streams):
    assert [len(batch) for batch in streams.held_out()] == [40, 30]
    assert torch.cat(list(streams.held_out()))[:, 0].tolist() == list(range(70))


def test_calibration_is_the_first_training_images(streams):
    assert torch.cat(list(streams.calibration()))[:, 0].tolist() == list(range(9 * 7))


def test_ranks_share_a_batch(numbered_cache):
    caches = numbered_cache("train"), numbered_cache("validation", n_images=10)
    whole = cached_streams(*caches).epoch(0)
    shares = [cached_streams(*caches, rank=rank, world=2).epoch(0) for rank in (0, 1)]
    for batch, even, odd in zip(whole, *shares, strict=True):
        assert torch.equal(torch.stack([even, odd], dim=1).flatten(0, 1), batch)


def test_one_of_several_hook_points_can_be_trained_on(numbered_cache):
    caches = numbered_cache("train"), numbered_cache("validation", n_images=10)
    whole, one = cached_streams(*caches), cached_streams(*caches, hooks=("hook_1",), dtype=torch.float64)
    assert one.widths == {"hook_1": 5}
    for part in ("held_out", "calibration"):
        both = torch.cat(list(getattr(whole, part)()))
        assert torch.equal(torch.cat(list(getattr(one, part)())), both[:, 3:].double())
    assert torch.equal(torch.cat(list(one.epoch(1))), torch.cat(list(whole.epoch(1)))[:, 3:].double())


def test_about_tells_what_the_activations_are(make_cache, tiny_model, tiny_images):
    train = make_cache("train", images=tiny_images.select(range(16)), hooks=HOOKS, tokens="patches")
    validation = make_cache("validation", images=tiny_images.select(range(16, 24)), hooks=HOOKS, tokens="patches")
    about = cached_streams(train, validation).about()
    assert json.loads(json.dumps(about)) == about
    assert about == {
        "model_name": "ViTForImageClassification",
        "checkpoint_hash": checkpoint_hash(tiny_model),
        "hook_tokens": "patches",
        "corruptions": [corruption.key for corruption in CORRUPTIONS],
        "clean_fraction": 0.4,
        "data_fingerprint": images_fingerprint(tiny_images.select(range(16))),
        "validation_fingerprint": images_fingerprint(tiny_images.select(range(16, 24))),
        "cached_dtype": "float32",
        "corruption_seed": 3,
        "processor": all_settings(tiny_model.image_processor),
        "model_dtype": "float32",
    }
    assert about["processor"]["size"] == {"height": 32, "width": 32}


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"checkpoint_hash": "1" * 64}, "checkpoint_hash"),
        ({"widths": (3, 6)}, "hooks"),
        ({"widths": (3,)}, "hooks"),
        ({"tokens": "patches"}, "tokens"),
        ({"tokens_per_image": 6}, "tokens_per_image"),
        ({"processor": {"resample": 3}}, "processor"),
        ({"model_dtype": "bfloat16"}, "model_dtype"),
    ],
)
def test_caches_that_do_not_belong_together_are_refused(numbered_cache, changes, name):
    with pytest.raises(ValueError, match=f"both caches must have the same {name}; .*train has .* and .*validation"):
        cached_streams(numbered_cache("train"), numbered_cache("validation", **changes))


def test_hook_points_in_another_order_are_refused(make_cache):
    train, validation = make_cache("train", hooks=HOOKS), make_cache("validation", hooks=HOOKS[::-1])
    with pytest.raises(ValueError, match="the same hooks"):
        cached_streams(train, validation)


def test_a_batch_larger_than_the_cache_is_refused(numbered_cache):
    with pytest.raises(ValueError, match="1 to the cache's 371 rows; got 372"):
        cached_streams(numbered_cache("train"), numbered_cache("validation"), batch_size=372)


def test_the_hash_tells_weights_apart_and_not_their_type(tiny_model):
    first = checkpoint_hash(tiny_model)
    assert checkpoint_hash(tiny_model.double()) == first  # the same values
    with torch.no_grad():
        tiny_model.blocks[0].attn.W_Q[0, 0, 0] *= 1 + 1e-6
    assert checkpoint_hash(tiny_model) != first


def test_the_fingerprint_tells_images_apart(tiny_images):
    first = images_fingerprint(tiny_images)
    assert images_fingerprint(tiny_images.select(range(24))) == first
    relabelled = tiny_images.map(lambda row: {"label": (row["label"] + 1) % 5}, keep_in_memory=True)
    pixels = tiny_images.with_format("numpy")["pixels"][:]
    pixels[13, 0, 3, 3] ^= 1
    repainted = tiny_images.map(lambda row, i: {"pixels": pixels[i]}, with_indices=True, keep_in_memory=True)
    found = {first, *map(images_fingerprint, (relabelled, repainted, tiny_images.select(range(23))))}
    assert len(found) == 4
