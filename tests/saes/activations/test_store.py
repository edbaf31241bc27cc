"""The store gives Hugging Face's residuals of corrupted images, each image once an epoch, and draws as it says."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from sae_lens import ActivationsStore
from scipy.stats import binom

from mechvit import HookedViT
from mechvit.data import Corruption, corrupt
from mechvit.saes.activations.image_store import (
    ImageActivationsStore,
    draw_corruptions,
    epoch_segments,
    hook_layer,
    sae_input_widths,
)
from mechvit.saes.config import StreamConfig

CORRUPTIONS = (Corruption("gaussian_noise", 1), Corruption("gaussian_blur", 1), Corruption("gaussian_noise", 4))
N_IMAGES, N_TOKENS = 24, 17


@pytest.fixture
def make_store(tiny_model, tiny_images):
    """Make a store over the tiny images in small batches; keyword changes go to StreamConfig."""

    def make(model=tiny_model, images=tiny_images, corruptions=CORRUPTIONS, epoch=0, shuffle=True, **changes):
        sizes = {"train_batch_size_tokens": 51, "images_per_batch": 7, "buffer_images": 9, "clean_fraction": 0.4}
        config = StreamConfig(**(sizes | changes))
        rows = None if shuffle else np.arange(len(images))
        return ImageActivationsStore(model, images, corruptions=corruptions, config=config, epoch=epoch, rows=rows)

    return make


def drawn(store, images):
    ids = torch.tensor(images["image_id"])
    return draw_corruptions(ids, len(store.corruptions), store.clean_fraction, store.mix_seed)


def corrupted(store, images, processor):
    """Each image corrupted alone and normalised by Hugging Face's own processor, in the data set's order."""
    out = []
    for row, which in zip(images.with_format("numpy"), drawn(store, images).tolist(), strict=True):
        pixels = torch.from_numpy(np.array(row["pixels"]))[None].float() / 255
        if which >= 0:
            ids = torch.tensor([int(row["image_id"])])
            pixels = corrupt(pixels, store.corruptions[which], ids, seed=store.mix_seed)
        out.append(processor(pixels[0].numpy(), do_resize=False, do_rescale=False)["pixel_values"][0])
    return torch.from_numpy(np.stack(out))


def hf_residuals(hf_model, pixels, layer):
    with torch.no_grad():
        return hf_model(pixels, output_hidden_states=True).hidden_states[layer + 1]


def every_pixel(store):
    return torch.cat([pixels for pixels, _ in store.pixels()])


def places(found, expected, atol=2e-5):
    """Where each row of `found` lies in `expected`; every row must lie somewhere."""
    distance, place = torch.cdist(found.double(), expected.double()).min(dim=1)
    assert distance.max() < atol * expected.shape[1] ** 0.5
    return place.tolist()


@pytest.mark.parametrize(
    ("tokens", "chosen"), [("all", slice(None)), ("patches", slice(1, None)), ("cls", slice(0, 1))]
)
@pytest.mark.parametrize("layer", [None, 0, 2])
def test_mixed_tokens_match_hugging_face(make_store, tiny_hf, tiny_processor, tiny_images, tokens, chosen, layer):
    per_image = len(range(N_TOKENS)[chosen])
    store = make_store(tokens=tokens, hook_layer=layer, train_batch_size_tokens=3 * per_image, epoch=2, seed=5)
    assert set(drawn(store, tiny_images).tolist()) == {-1, 0, 1, 2}
    pixels = corrupted(store, tiny_images, tiny_processor)
    expected = hf_residuals(tiny_hf, pixels, 1 if layer is None else layer)[:, chosen].flatten(0, 1)
    batches = list(store)
    assert [tuple(batch.shape) for batch in batches] == [(3 * per_image, 32)] * store.n_batches
    assert store.n_batches == 8
    place = places(torch.cat(batches), expected)
    assert sorted(place) == list(range(N_IMAGES * per_image))  # every token of every image, once
    assert place != sorted(place)


def test_unshuffled_tokens_match_hugging_face_in_order(make_store, tiny_hf, tiny_processor, tiny_images):
    store = make_store(shuffle=False)
    expected = hf_residuals(tiny_hf, corrupted(store, tiny_images, tiny_processor), 1).flatten(0, 1)
    found = list(store._iterate_filtered_activations())
    assert [len(batch) // N_TOKENS for batch in found] == [7, 7, 7, 3]
    torch.testing.assert_close(torch.cat(found), expected, rtol=0, atol=2e-5)


def test_matches_the_models_own_cache(make_store, tiny_model):
    store = make_store(shuffle=False)
    pixels = every_pixel(make_store(shuffle=False))
    _, cache = tiny_model.run_with_cache(pixels)
    torch.testing.assert_close(
        torch.cat(list(store._iterate_filtered_activations())), cache["blocks.1.hook_resid_post"].flatten(0, 1)
    )


def test_every_image_passes_once_an_epoch_in_a_new_order(make_store, tiny_images):
    plain = every_pixel(make_store(clean_fraction=1.0, shuffle=False))
    orders = []
    for epoch in range(3):
        seen = every_pixel(make_store(clean_fraction=1.0, epoch=epoch))
        order = [int((plain == image).flatten(1).all(1).nonzero()) for image in seen]
        assert sorted(order) == list(range(N_IMAGES))
        orders.append(order)
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_is_sae_lens_store_with_its_own_mixing(make_store):
    store = make_store()
    assert isinstance(store, ActivationsStore)
    for name in (
        "get_multi_hook_activations",
        "get_filtered_llm_batch",
        "next_batch",
        "__next__",
        "__iter__",
    ):
        assert getattr(type(store), name) is getattr(ActivationsStore, name)
    torch.manual_seed(0)
    batches = list(store)
    torch.manual_seed(0)
    stock = list(ActivationsStore.get_data_loader(make_store()))
    assert len(batches) == 8
    assert all(batch.equal(other) for batch, other in zip(batches, stock, strict=True))
    assert store.training_context_size == N_TOKENS
    assert store.n_batches_in_buffer == 9


@pytest.mark.parametrize("size", [17, 50, 51, 100, 408])
@pytest.mark.parametrize("buffer_images", [1, 9, 1000])
def test_the_number_of_batches_is_known(make_store, size, buffer_images):
    store = make_store(train_batch_size_tokens=size, buffer_images=buffer_images)
    assert len(list(store)) == store.n_batches == 408 // size
    with pytest.raises(StopIteration):
        next(store)


def test_an_epoch_is_fixed_by_its_number_and_torchs_seed(make_store):
    def run(torch_seed, **changes):
        torch.manual_seed(torch_seed)
        return torch.cat(list(make_store(**changes)))

    first = run(0, epoch=1)
    assert torch.equal(run(0, epoch=1), first)
    mixed = run(1, epoch=1)
    assert not torch.equal(mixed, first)
    assert sorted(places(mixed, first)) == list(range(408))  # another mixing of the same tokens
    for changes in ({"epoch": 2}, {"epoch": 1, "seed": 1}):
        other = torch.cdist(run(0, **changes), first).min(dim=1).values
        assert 0.2 < float((other > 1e-3).float().mean()) < 1  # new corruptions, and clean images in common


def test_each_epoch_draws_new_noise(make_store):
    first, second = (
        every_pixel(make_store(corruptions=CORRUPTIONS[:1], clean_fraction=0.0, epoch=e, shuffle=False)) for e in (0, 1)
    )
    plain = every_pixel(make_store(clean_fraction=1.0, shuffle=False))
    noise, other = (first - plain).flatten(), (second - plain).flatten()
    assert noise.std() == pytest.approx(0.08 / 0.5, rel=0.1)  # the severity's deviation over the processor's
    assert abs(float(torch.corrcoef(torch.stack([noise, other]))[0, 1])) < 0.1


@pytest.mark.parametrize("clean_fraction", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("n_corruptions", [0, 1, 6])
def test_shares_of_corruptions(clean_fraction, n_corruptions):
    n = 20_000
    found = draw_corruptions(torch.arange(n), n_corruptions, clean_fraction, seed=3)
    clean = clean_fraction if n_corruptions else 1.0
    assert set(found.tolist()) <= set(range(-1, n_corruptions))
    for which in range(-1, n_corruptions):
        share = clean if which < 0 else (1 - clean) / n_corruptions
        low, high = binom.ppf([1e-6, 1 - 1e-6], n, share) if 0 < share < 1 else (n * share, n * share)
        assert low <= int((found == which).sum()) <= high


def test_draws_are_a_function_of_the_id_and_the_seed():
    ids = torch.randperm(5000, generator=torch.Generator().manual_seed(0)) * 7
    whole = draw_corruptions(ids, 6, 0.5, seed=11)
    one_by_one = torch.cat([draw_corruptions(part, 6, 0.5, seed=11) for part in ids.flip(0).split(37)]).flip(0)
    assert torch.equal(whole, one_by_one)
    other = draw_corruptions(ids, 6, 0.5, seed=12)
    same = 0.5**2 + 6 * (0.5 / 6) ** 2  # of independent draws
    low, high = binom.ppf([1e-6, 1 - 1e-6], 5000, same)
    assert low <= int((whole == other).sum()) <= high


def test_clean_is_no_corruption(make_store):
    store = make_store(corruptions=(Corruption("clean"), *CORRUPTIONS))
    assert store.corruptions == CORRUPTIONS


def test_refuses_what_cannot_give_a_batch(make_store, tiny_images, tiny_model):
    with pytest.raises(ValueError, match="empty"):
        make_store(images=tiny_images.select([]))
    with pytest.raises(ValueError, match="takes 409 tokens, and 24 images give 408"):
        make_store(train_batch_size_tokens=409)
    with pytest.raises(ValueError, match="takes 25 tokens, and 24 images give 24"):
        make_store(train_batch_size_tokens=25, tokens="cls")
    with pytest.raises(ValueError, match="3 blocks, 0 to 2; got 3"):
        make_store(hook_layer=3)
    with pytest.raises(ValueError, match="reads 7 images at a time; got 8"):
        make_store().get_batch_tokens(8)
    assert hook_layer(tiny_model, None) == 1


def test_a_single_block_has_no_penultimate_residual(tiny_hf):
    from transformers import ViTConfig, ViTForImageClassification

    settings = tiny_hf.config.to_dict() | {"num_hidden_layers": 1}
    model = HookedViT.from_hf(ViTForImageClassification(ViTConfig(**settings)))
    with pytest.raises(ValueError, match="1 blocks, 0 to 0; got -1"):
        hook_layer(model, None)
    assert hook_layer(model, 0) == 0


def test_refuses_activations_that_are_not_finite(make_store, tiny_model, tiny_images):
    """The message names the hook point, the batch, and the images; here every image of the second batch but one."""
    store = make_store(shuffle=False, hook_layer=0)
    assert next(store).isfinite().all()

    def spoil(value, hook):
        if spoil.calls == 1:
            value[1:, 3, 2] = float("inf")
        spoil.calls += 1
        return value

    spoil.calls = 0
    store = make_store(shuffle=False)
    ids = re.escape(str(tiny_images["image_id"][8:14]))
    with (
        tiny_model.hooks(fwd_hooks=[("blocks.1.hook_resid_post", spoil)]),
        pytest.raises(ValueError, match=rf"blocks\.1\.hook_resid_post must be finite.* in batch 1.* ids {ids}"),
    ):
        list(store)


@pytest.mark.parametrize("tokens", ["all", "patches", "cls"])
def test_several_hooks_lie_side_by_side(make_store, tiny_model, tokens):
    names = ("blocks.2.hook_mlp_out", "blocks.0.attn.hook_z", "blocks.1.mlp.hook_post", "ln_final.hook_normalized")
    size = 1 if tokens == "cls" else 16
    store = make_store(hook_names=names, tokens=tokens, train_batch_size_tokens=24 * size)
    pixels = every_pixel(make_store(hook_names=names, tokens=tokens, train_batch_size_tokens=24 * size))
    _, cache = tiny_model.run_with_cache(pixels)
    chosen = {"all": slice(None), "patches": slice(1, None), "cls": slice(0, 1)}[tokens]
    wide = torch.cat([cache[name].flatten(2)[:, chosen].flatten(0, 1) for name in names], dim=-1)
    assert sae_input_widths(tiny_model, StreamConfig(hook_names=names)) == dict(
        zip(names, (32, 32, 64, 32), strict=True)
    )
    assert store.d_in == 160 == wide.shape[1]
    found = torch.cat(list(store))
    place = places(found, wide)  # whole rows: the mixing keeps a token's columns together
    assert len(set(place)) == len(found)


def test_one_forward_pass_serves_all_hooks(make_store, tiny_model):
    calls = []
    store = make_store(hook_names=("blocks.0.hook_mlp_out", "blocks.1.hook_resid_post"))
    with tiny_model.hooks(fwd_hooks=[("blocks.0.hook_resid_pre", lambda value, hook: calls.append(len(value)))]):
        list(store)
    assert calls == [7, 7, 7, 3]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("blocks.1.hook_resid_pst", "Did you mean 'blocks.1.hook_resid_post'"),
        ("blocks.7.hook_resid_post", "Did you mean 'blocks"),
        ("blocks.1.attn.hook_pattern", r"a vector for each of the 17 tokens; blocks.1.attn.hook_pattern holds"),
        ("hook_logits", r"hook_logits holds \[5\] an image"),
    ],
)
def test_refuses_hook_points_that_do_not_exist_or_hold_no_tokens(tiny_model, name, message):
    with pytest.raises(ValueError, match=message):
        sae_input_widths(tiny_model, StreamConfig(hook_names=(name,)))


def test_segments_cut_an_epoch_and_each_image_comes_once(tiny_images):
    config = StreamConfig(segment_images=10)
    parts = epoch_segments(24, config, 3)
    assert [len(part) for part in parts] == [12, 12]
    assert sorted(np.concatenate(parts)) == list(range(24))
    assert [len(part) for part in epoch_segments(24, StreamConfig(segment_images=5), 3)] == [5, 5, 5, 5, 4]
    assert np.concatenate(parts).tolist() == epoch_segments(24, StreamConfig(), 3)[0].tolist()
