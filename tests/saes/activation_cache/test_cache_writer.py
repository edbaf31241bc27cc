"""A cache holds Hugging Face's residuals of the corrupted images; what cannot be stored is refused by name."""

from __future__ import annotations

import errno
import os
from collections import namedtuple
from dataclasses import replace

import numpy as np
import pytest
import torch
from cache_contents import CORRUPTIONS, HOOKS, files_of
from safetensors.torch import load_file

from mechvit import files
from mechvit.data import Corruption, corrupt
from mechvit.saes.activation_cache import shards, writer
from mechvit.saes.activations.image_store import ImageActivationsStore, draw_corruptions
from mechvit.saes.config import SAEConfig

MIX_SEED = 3 * 1_000_003  # of `make_cache`'s seed 3, as a store's epoch 0 has it


def drawn(images):
    return draw_corruptions(torch.tensor(images["image_id"]), len(CORRUPTIONS), 0.4, MIX_SEED)


@pytest.fixture
def pixels(tiny_images, tiny_processor):
    """Each image corrupted alone and normalised by Hugging Face's own processor."""
    out = []
    for row, which in zip(tiny_images.with_format("numpy"), drawn(tiny_images).tolist(), strict=True):
        image = torch.from_numpy(np.array(row["pixels"]))[None].float() / 255
        if which >= 0:
            image = corrupt(image, CORRUPTIONS[which], torch.tensor([int(row["image_id"])]), seed=MIX_SEED)
        out.append(tiny_processor(image[0].numpy(), do_resize=False, do_rescale=False)["pixel_values"][0])
    return torch.from_numpy(np.stack(out))


def read(cache, hook=HOOKS[0]):
    """All rows of a hook point, by safetensors alone."""
    files = sorted(cache.folder.glob(f"shard-*/{hook}.safetensors"))
    return torch.cat([load_file(path)["activations"] for path in files])


@pytest.mark.parametrize(
    ("tokens", "chosen"), [("all", slice(None)), ("patches", slice(1, None)), ("cls", slice(0, 1))]
)
def test_rows_match_hugging_face_in_order(make_cache, tiny_hf, pixels, tokens, chosen):
    cache = make_cache(tokens=tokens)
    with torch.no_grad():
        states = tiny_hf(pixels, output_hidden_states=True).hidden_states[2]
    torch.testing.assert_close(read(cache), states[:, chosen].flatten(0, 1), rtol=0, atol=2e-5)
    assert cache.plan.tokens_per_image == len(range(17)[chosen])
    assert (cache.n_rows, cache.widths) == (24 * cache.plan.tokens_per_image, {HOOKS[0]: 32})


def test_rows_are_those_of_the_streaming_store(make_cache, tiny_model, tiny_images):
    config = SAEConfig(seed=3, clean_fraction=0.4, images_per_batch=4, train_batch_size_tokens=17)
    store = ImageActivationsStore(
        tiny_model, tiny_images, corruptions=CORRUPTIONS, config=config, rows=torch.arange(24).numpy()
    )
    assert torch.equal(read(make_cache()), torch.cat(list(store._iterate_filtered_activations())))


def test_several_hook_points_match_the_models_own_cache(make_cache, tiny_model, pixels):
    hooks = (*HOOKS, "blocks.2.attn.hook_z", "hook_pos_embed", "ln_final.hook_normalized")
    cache = make_cache(hooks=hooks)
    _, own = tiny_model.run_with_cache(pixels)
    assert list(cache.widths) == list(hooks)
    for hook in hooks:
        torch.testing.assert_close(read(cache, hook), own[hook].flatten(2).flatten(0, 1), rtol=0, atol=2e-5)


def test_stops_after_the_last_hook_point(make_cache, tiny_model):
    ran = []
    for layer in range(3):
        tiny_model.add_hook(f"blocks.{layer}.hook_resid_post", lambda t, hook: ran.append(hook.name), is_permanent=True)
    make_cache()
    assert set(ran) == {"blocks.0.hook_resid_post", "blocks.1.hook_resid_post"}


@pytest.mark.long
def test_a_compiled_forward_pass_gives_the_same_cache(make_cache, tiny_model, tiny_images, monkeypatch):
    """23 images, so that the last batch is smaller; and all hook points come from one compiled pass."""
    compiled = []
    original = type(tiny_model).compile_cache

    def compile_cache(model, names, **settings):
        compiled.append((tuple(names), settings["stop_at_layer"], settings["batch_size"]))
        return original(model, names, **settings, backend="eager")

    monkeypatch.setattr(type(tiny_model), "compile_cache", compile_cache)
    settings = {"hooks": ("blocks.0.hook_mlp_out", "blocks.1.hook_resid_post"), "images": tiny_images.select(range(23))}
    plain, fast = make_cache("plain", **settings), make_cache("fast", **settings, compiled=True)
    assert compiled == [(settings["hooks"], 2, 4)]
    assert fast.plan.compiled
    assert not plain.plan.compiled
    for a, b in zip(plain.in_order(40), fast.in_order(40), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="compiled was True and is now False"):
        make_cache("fast", **settings)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_lower_precision_is_the_rounded_float32(make_cache, dtype):
    exact = read(make_cache("exact"))
    found = read(make_cache(dtype=dtype))
    assert torch.equal(found, exact.to(getattr(torch, dtype)))
    assert not torch.equal(found.float(), exact)


def test_images_keep_id_label_and_corruption(make_cache, tiny_images):
    found = make_cache().images()
    assert found["image_id"].tolist() == tiny_images["image_id"]
    assert found["label"].tolist() == tiny_images["label"]
    assert torch.equal(found["corruption"], drawn(tiny_images))
    assert set(found["corruption"].tolist()) == {-1, 0, 1, 2}


def test_shards_are_whole_batches(make_cache):
    plan = make_cache(shard_bytes=9 * 17 * 32 * 4).plan  # room for nine images
    assert (plan.images_per_shard, plan.n_shards) == (8, 3)
    assert [len(plan.images_of(i)) for i in range(3)] == [8, 8, 8]
    assert make_cache("small", shard_bytes=1).plan.images_per_shard == 4  # one batch at least


def test_nan_is_named_by_batch_and_image(make_cache, tiny_model, tiny_images, tmp_path):
    ids = torch.tensor(tiny_images["image_id"])
    passed = []

    def spoil(resid, hook):  # in the 11th image: the third of the third batch
        passed.append(len(resid))
        if sum(passed[1:]) == 12:  # the first run is the sample
            resid[2, 5, 7] = float("nan")
        return resid

    tiny_model.add_hook("blocks.0.hook_resid_post", spoil, is_permanent=True)
    said = rf"batch 2, image {int(ids[10])}: blocks\.1\.hook_resid_post holds values that are not finite.*1 of the"
    with pytest.raises(ValueError, match=said):
        make_cache()
    assert [path.name for path in sorted(tmp_path.glob("cache/shard-*"))] == ["shard-00000"]
    tiny_model.reset_hooks(including_permanent=True)
    assert files_of(make_cache().folder) == files_of(make_cache("whole").folder)


def test_what_float16_cannot_hold_is_named(make_cache, tiny_model):
    with torch.no_grad():
        tiny_model.blocks[1].mlp.b_out[3] = 70_000.0
    with pytest.raises(ValueError, match="too large for float16: store bfloat16 or float32"):
        make_cache(dtype="float16")
    assert read(make_cache("wide", dtype="bfloat16"))[:, 3].min() > 69_000


def test_a_full_disk_loses_nothing(make_cache, monkeypatch, tmp_path):
    whole, written = make_cache("whole"), []

    def write(path, data):
        written.append(path)
        if "shard-00001" in str(path) and path.name.startswith("images"):
            with open(path, "wb") as file:
                file.write(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, data)

    real = files.write_synced
    with monkeypatch.context() as patch:
        patch.setattr(shards.files, "write_synced", write)
        with pytest.raises(OSError, match="full while shard-00001 was written") as caught:
            make_cache()
    assert caught.value.errno == errno.ENOSPC
    assert sorted(os.listdir(tmp_path / "cache")) == [files.MARKER, "plan.json", "shard-00000"]
    make_cache()
    assert files_of(tmp_path / "cache") == files_of(whole.folder)


def test_too_little_room_is_found_before_the_start(make_cache, monkeypatch, tmp_path):
    usage = namedtuple("usage", "total used free")
    needed = 24 * 17 * 32 * 4
    monkeypatch.setattr(writer.shutil, "disk_usage", lambda path: usage(0, 0, needed - 1))
    with pytest.raises(OSError, match="is full before the start"):
        make_cache()
    assert list(tmp_path.glob("cache/shard-*")) == []
    monkeypatch.setattr(writer.shutil, "disk_usage", lambda path: usage(0, 0, needed))
    assert make_cache().n_rows == 24 * 17


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hooks": ("blocks.1.hook_resid_pots",)}, r"no hook point .* Did you mean 'blocks\.1\.hook_resid_post'"),
        ({"hooks": ("blocks.7.hook_resid_post",)}, "no hook point"),
        ({"hooks": ("blocks.1.attn.hook_pattern",)}, "17 tokens.*hook_pattern gives"),
        ({"hooks": ("hook_logits",)}, r"17 tokens.*hook_logits gives \[2, 5\]"),
        ({"hooks": ()}, "at least one hook point"),
        ({"hooks": HOOKS[0]}, "each once, as a tuple; got 'blocks"),
        ({"hooks": (HOOKS[0], HOOKS[0])}, "each once"),
        ({"tokens": "class"}, "all, patches, cls; got 'class'"),
        ({"dtype": "int8"}, "bfloat16, float16, float32; got 'int8'"),
        ({"clean_fraction": 1.5}, r"\[0, 1\]; got 1.5"),
        ({"batch_size": 0}, "at least 1"),
        ({"shard_bytes": 0}, "at least 1"),
        ({"seed": -1}, "seed must be in"),
        ({"corruptions": (Corruption("gaussian_blur", 20),)}, "needs larger images"),
    ],
)
def test_refuses_before_a_folder_is_made(make_cache, tmp_path, changes, said):
    with pytest.raises(ValueError, match=said):
        make_cache(**changes)
    assert not (tmp_path / "cache").exists()


def test_refuses_images_and_models_that_do_not_fit(make_cache, tiny_images, tiny_model):
    with pytest.raises(ValueError, match="empty"):
        make_cache(images=tiny_images.select([]))
    with pytest.raises(ValueError, match="lacks label"):
        make_cache(images=tiny_images.remove_columns("label"))
    tiny_model.cfg = replace(tiny_model.cfg, cls_token=False)
    with pytest.raises(ValueError, match="has no CLS"):
        make_cache(tokens="cls")


def test_refuses_to_write_into_anything_else(make_cache, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/thesis.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="is no cache of activations"):
            make_cache(overwrite=overwrite)
    assert (tmp_path / "cache/thesis.txt").read_text() == "mine"
