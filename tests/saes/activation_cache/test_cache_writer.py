"""A cache holds Hugging Face's residuals of the images as corrupted; what stops a run is named, and loses nothing."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections import namedtuple
from dataclasses import replace

import numpy as np
import pytest
import torch
from cache_contents import CORRUPTIONS, HOOKS, files_of
from safetensors.torch import load_file
from transformers import ViTImageProcessorPil

from mechvit import HookedViT, files
from mechvit.data import Corruption, corrupt, load_images
from mechvit.files import MARKER
from mechvit.saes.activation_cache import CachedActivations, Plan, shards, writer
from mechvit.saes.activation_cache.manifest import MANIFEST_FILE, PLAN_FILE
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


# stopped and restarted


def stop_after(monkeypatch, n, error):
    """Let so many shards be written; the next raises."""
    written = []

    def write(*args):
        if len(written) == n:
            raise error
        written.append(args)
        shards.write_shard(*args)

    monkeypatch.setattr(writer, "write_shard", write)
    return written


def test_a_stopped_run_goes_on_to_the_same_bytes(make_cache, monkeypatch, tmp_path):
    whole = make_cache("whole", shard_bytes=1, hooks=HOOKS)
    with monkeypatch.context() as patch:
        stop_after(patch, 2, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            make_cache(shard_bytes=1, hooks=HOOKS)
    (tmp_path / "cache/shard-00002.partial").mkdir()  # as a killed process leaves it
    (tmp_path / "cache/shard-00002.partial/images.safetensors").write_bytes(b"half")
    with pytest.raises(ValueError, match="unfinished cache of activations: run the same command again"):
        CachedActivations(tmp_path / "cache")
    with monkeypatch.context() as patch:
        written = stop_after(patch, 99, AssertionError())
        make_cache(shard_bytes=1, hooks=HOOKS)
    assert [index for _, _, index, *_ in written] == [2, 3, 4, 5]  # the first two are not made again
    assert files_of(tmp_path / "cache") == files_of(whole.folder)
    with monkeypatch.context() as patch:
        stop_after(patch, 0, AssertionError())
        assert make_cache(shard_bytes=1, hooks=HOOKS).n_rows == whole.n_rows  # a finished one is only opened


def test_a_damaged_shard_is_made_again(make_cache):
    cache = make_cache()
    whole = files_of(cache.folder)
    path = cache.path(1, HOOKS[0])
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ValueError, match=r"shard-00001.*is damaged"):
        cache.verify()
    with pytest.raises(ValueError, match=r"in use by this process itself \(close what reads it"):
        make_cache()
    cache.close()
    with pytest.warns(UserWarning, match=r"shard-00001.*is damaged.*made again"):
        make_cache()
    assert files_of(cache.folder) == whole


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 4}, "seed was 3 and is now 4"),
        ({"dtype": "bfloat16"}, "dtype was 'float32' and is now 'bfloat16'"),
        ({"tokens": "cls"}, "tokens was 'all' and is now 'cls'; tokens_per_image was 17 and is now 1"),
        ({"clean_fraction": 0.5}, "clean_fraction was 0.4 and is now 0.5"),
        ({"corruptions": CORRUPTIONS[:1]}, r"corruptions was \['gaussian_noise_1', .* is now \['gaussian_noise_1'\]"),
        ({"batch_size": 8}, "batch_size was 4 and is now 8"),
        ({"hooks": HOOKS}, "hooks was .* and is now"),
    ],
)
def test_a_restart_with_other_settings_is_refused(make_cache, changes, said):
    before = files_of(make_cache().folder)
    with pytest.raises(ValueError, match=f"was begun with other settings: .*{said}"):
        make_cache(**changes)
    assert files_of(make_cache().folder) == before
    assert make_cache(**changes, overwrite=True).n_rows > 0


def test_a_restart_with_other_images_or_weights_is_refused(make_cache, tiny_model, tiny_images):
    make_cache()
    with pytest.raises(ValueError, match=r"data_fingerprint was .*; n_images was 24 and is now 23"):
        make_cache(images=tiny_images.select(range(23)))
    other = tiny_images.select(list(range(23, -1, -1)))
    with pytest.raises(ValueError, match=r"settings: data_fingerprint was [^;]*$"):
        make_cache(images=other)
    with torch.no_grad():
        tiny_model.blocks[0].mlp.b_out[0] += 1
    with pytest.raises(ValueError, match="settings: checkpoint_hash was"):
        make_cache()


# what the images were resized and normalised by


def with_processor(tiny_hf, **changes):
    processor = ViTImageProcessorPil(**{"size": {"height": 32, "width": 32}} | changes)
    return HookedViT.from_hf(tiny_hf, image_processor=processor)


@pytest.fixture
def raw():
    """Pictures that each processor has to resize."""
    return load_images("photos", "test", limit=12, image_size=40)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"resample": 3}, "the processor's resample was 2 and is now 3"),
        ({"image_mean": [0.4] * 3}, r"the processor's image_mean was \[0.5, 0.5, 0.5\] and is now \[0.4, 0.4, 0.4\]"),
        ({"rescale_factor": 1 / 127.5}, "the processor's rescale_factor was 0.0039.* and is now 0.0078"),
        ({"size": 40, "do_center_crop": True, "crop_size": 32}, "the processor's crop_size was None and is now"),
    ],
    ids=["resample", "image_mean", "rescale_factor", "crop"],
)
def test_no_setting_of_the_processor_changes_within_a_cache(make_cache, tiny_hf, raw, changes, said):
    """A run that was killed went on with another resampling or mean, half of its shards each."""
    cache = make_cache(model=with_processor(tiny_hf), images=raw)
    cache.close()
    shutil.rmtree(cache.folder / cache.plan.shard(1))
    (cache.folder / MANIFEST_FILE).unlink()
    other = with_processor(tiny_hf, **changes)
    with pytest.raises(ValueError, match=f"was begun with other settings: .*{said}"):
        make_cache(model=other, images=raw)
    whole = make_cache(model=with_processor(tiny_hf), images=raw)
    whole.check_model(with_processor(tiny_hf))
    with pytest.raises(ValueError, match=f"activations of other pixels than this model's .*{next(iter(changes))}"):
        whole.check_model(other)
    whole.check_model(other, allow_other_model=True)


def test_the_precision_that_a_model_computes_in_does_not_change_within_a_cache(make_cache, tiny_model):
    """Its weights stay the same here, so that their hash does not tell."""
    rounded = tiny_model.to(torch.bfloat16).to(torch.float32)
    make_cache(model=rounded).close()
    with pytest.raises(ValueError, match=r"settings: model_dtype was 'float32' and is now 'bfloat16'\."):
        make_cache(model=rounded.to(torch.bfloat16))


def test_a_cache_from_before_is_read_but_not_gone_on_with(make_cache, tiny_model):
    """Its plan holds no image processor, and its digest is made without one."""
    cache = make_cache()
    cache.close()
    for name in (PLAN_FILE, MANIFEST_FILE):
        (cache.folder / name).unlink()
    old = replace(cache.plan, processor=None)
    assert "processor" not in old.to_json()
    assert old.digest != cache.plan.digest
    assert Plan(**{k: v for k, v in old.to_json().items() if k != "corruptions"}, corruptions=old.corruptions) == old
    (cache.folder / MARKER).unlink()  # which there was none of, either
    (cache.folder / PLAN_FILE).write_text(json.dumps(old.to_json()))
    with pytest.raises(ValueError, match="begun by a version that kept neither the image processor's settings"):
        make_cache()
    make_cache(overwrite=True)


def test_a_whole_cache_from_before_is_read(numbered_cache, tiny_model):
    cache = numbered_cache()
    assert "processor" not in json.loads((cache.folder / PLAN_FILE).read_text())
    assert CachedActivations(cache.folder, verify=True).n_rows == 53 * 7
    cache.check_model(tiny_model, allow_other_model=True)


# what cannot be stored


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


# what is refused


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


def test_a_run_killed_before_its_plan_was_written_starts_again(make_cache, tmp_path):
    files.begin(tmp_path / "cache", writer.KIND)
    (tmp_path / "cache/.plan.json.mechvit-999999999.part").write_text("{")
    assert make_cache().n_rows == 24 * 17


def test_overwriting_leaves_nothing_of_the_earlier_cache(make_cache, tmp_path):
    make_cache(shard_bytes=1)
    cache = make_cache(overwrite=True, seed=5)
    assert (cache.plan.n_shards, cache.plan.seed) == (3, 5)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".cache.mechvit-lock", "cache"]  # which is being read
    cache.close()
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
