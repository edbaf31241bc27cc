"""Streams of two models mixed: equal parts in every batch, the same again from any place, one SAE for both."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from memory_streams import MemoryStreams

from mechvit.data import Corruption
from mechvit.data.pixels import normalize
from mechvit.models.checkpoints.fingerprint import checkpoint_hash
from mechvit.saes import ImageStreams, MixedStreams, SAEConfig, StreamConfig, evaluate_sae, load_sae, train_on

SIZES = {"train_batch_size_tokens": 40, "images_per_batch": 5, "buffer_images": 6, "segment_images": 8}
NOISE = (Corruption("gaussian_noise", 4),)


@pytest.fixture
def models(tiny_model):
    tuned = copy.deepcopy(tiny_model)
    with torch.no_grad():
        tuned.blocks[0].mlp.W_in.mul_(1.5)
    return tiny_model, tuned


@pytest.fixture
def make(models, tiny_images):
    def streams(**changes):
        config = StreamConfig(**(SIZES | {"calibration_images": 7} | changes))
        own = [
            ImageStreams(model, tiny_images, tiny_images.select(range(9)), corruptions=NOISE, config=config)
            for model in models
        ]
        return MixedStreams(own, batch_size=config.train_batch_size_tokens)

    return streams


def distances(rows, tokens):
    return torch.cdist(rows.double(), tokens.double()).min(1).values


def test_halves_are_the_activations_of_direct_forward_passes(make, models, tiny_images):
    images = torch.tensor(tiny_images.with_format("numpy")["pixels"][:]).float() / 255
    pixels = normalize(images, models[0].image_processor)
    own = [model.run_with_cache(pixels)[1]["blocks.1.hook_resid_post"].flatten(0, 1) for model in models]
    mixed = make(clean_fraction=1.0)
    batches = list(mixed.epoch(0))
    assert len(batches) == mixed.steps_per_epoch(40) == 2 * 3 * (8 * 17 // 40)
    for batch in batches:
        assert batch.shape == (40, 32)
        for half, mine, other in ((batch[:20], own[0], own[1]), (batch[20:], own[1], own[0])):
            assert distances(half, mine).max() < 1e-4
            assert distances(half, other).min() > 1e-2
    held_out, calibration = torch.cat(list(mixed.held_out())), torch.cat(list(mixed.calibration()))
    expected = torch.cat([tokens[: 9 * 17] for tokens in own])
    torch.testing.assert_close(held_out, expected, atol=1e-5, rtol=0)
    assert distances(calibration, torch.cat([tokens[: 7 * 17] for tokens in own])).max() < 1e-4
    assert len(calibration) == 2 * 7 * 17


def test_batches_are_parts_of_the_models_own(make):
    mixed = make()
    first, second = (list(stream.epoch(2)) for stream in mixed.streams)
    expected = [torch.cat([a[i : i + 20], b[i : i + 20]]) for a, b in zip(first, second, strict=True) for i in (0, 20)]
    assert all(torch.equal(x, y) for x, y in zip(mixed.epoch(2), expected, strict=True))


@pytest.mark.long
def test_an_epoch_goes_on_after_any_batch(make):
    whole = list(make().epoch(3))
    for cut in (0, 1, 6, 7, len(whole)):
        begun = make().epoch(3)
        for _, _ in zip(range(cut), begun, strict=False):
            pass
        state = json.loads(json.dumps(begun.state_dict()))
        assert state["batches"] == cut
        again = make().epoch(3)
        again.load_state_dict(state)
        with pytest.raises(ValueError, match=r"continued with the 1 streams .*; got 2"):
            again.load_state_dict(state | {"round": state["round"][:1]})
        again.load_state_dict(state)
        rest = list(again)
        assert len(rest) == len(whole) - cut
        assert all(torch.equal(one, two) for one, two in zip(rest, whole[cut:], strict=True))


def test_streams_without_a_place_are_read_again(tokens):
    def mix():
        own = [
            MemoryStreams(lambda n, d, seed, dtype, i=i: tokens(n, d, seed + i, dtype), {"resid": 12}, 64, 6)
            for i in (0, 5)
        ]
        return MixedStreams(own, batch_size=64)

    whole = list(mix().epoch(0))
    assert len(whole) == 12
    again = mix().epoch(0)
    again.load_state_dict({"batches": 5, "round": []})
    assert all(torch.equal(one, two) for one, two in zip(again, whole[5:], strict=True))


def test_about_names_both_models(make, models):
    about = make().about()
    assert about["checkpoint_hashes"] == [checkpoint_hash(model) for model in models]
    assert about["checkpoint_hash"] == about["checkpoint_hashes"][0]
    assert len(set(about["checkpoint_hashes"])) == 2
    assert about["model_name"] == " + ".join(about["model_names"])


def test_one_sae_for_both_is_trained_and_accepted_by_both(make, models, tiny_images, tmp_path):
    config = SAEConfig(architectures=("topk",), epochs=1, k=4, expansion_factor=4, **SIZES, calibration_images=7)
    folders = train_on(make(), tmp_path / "saes", config=config, progress=None)
    sae = load_sae(folders["topk"])
    hashes = [checkpoint_hash(model) for model in models]
    assert sae.cfg.metadata.checkpoint_hashes == hashes
    card = (folders["topk"] / "README.md").read_text()
    assert all(found[:16] in card for found in hashes)
    for model in models:
        assert evaluate_sae(model, sae, tiny_images).l0 == pytest.approx(4, abs=0.5)
    third = copy.deepcopy(models[0])
    with torch.no_grad():
        third.blocks[0].mlp.W_in.mul_(2)
    with pytest.raises(ValueError, match="trained on another model"):
        evaluate_sae(third, sae, tiny_images)


def test_refuses_what_cannot_be_mixed(make, models, tiny_images):
    streams = make().streams
    with pytest.raises(ValueError, match="at least two models; got 1"):
        MixedStreams(streams[:1], batch_size=40)
    with pytest.raises(ValueError, match="multiple of the 2 models"):
        MixedStreams(streams, batch_size=41)
    with pytest.raises(ValueError, match="mixed for batches of 40 tokens; got 20"):
        make().steps_per_epoch(20)
    other = ImageStreams(
        models[1], tiny_images, tiny_images, corruptions=NOISE, config=StreamConfig(hook_layer=0, **SIZES)
    )
    with pytest.raises(ValueError, match="same hook points"):
        MixedStreams([streams[0], other], batch_size=40)
