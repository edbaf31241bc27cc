"""A cache is opened only when every shard is there as written; the reason and the shard are named."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from cache_contents import numbered
from safetensors.torch import save_file

from mechvit.saes.activation_cache import CachedActivations


def spoil_missing(folder):
    shutil.rmtree(folder / "shard-00002")


def spoil_missing_file(folder):
    (folder / "shard-00002/hook_1.safetensors").unlink()


def spoil_truncated(folder):
    path = folder / "shard-00002/hook_1.safetensors"
    path.write_bytes(path.read_bytes()[:-4])


def spoil_truncated_in_header(folder):
    path = folder / "shard-00002/hook_1.safetensors"
    path.write_bytes(path.read_bytes()[:20])


def spoil_empty(folder):
    (folder / "shard-00002/hook_1.safetensors").write_bytes(b"")


def spoil_longer(folder):
    path = folder / "shard-00002/hook_1.safetensors"
    path.write_bytes(path.read_bytes() + b"more")


def spoil_shape(folder):
    save_file({"activations": torch.zeros(56, 4)}, folder / "shard-00002/hook_1.safetensors")


def spoil_dtype(folder):
    save_file({"activations": torch.zeros(56, 5).half()}, folder / "shard-00002/hook_1.safetensors")


def spoil_other_tensor(folder):
    save_file({"weights": torch.zeros(56, 5)}, folder / "shard-00002/hook_1.safetensors")


def spoil_other_cache(folder):
    shutil.copy(folder.parent / "other/shard-00002/hook_1.safetensors", folder / "shard-00002")


def spoil_foreign_shard(folder):
    shutil.copytree(folder / "shard-00002", folder / "shard-00007")


def spoil_foreign_file(folder):
    (folder / "shard-00002/notes.txt").write_text("mine")


def spoil_images(folder):
    save_file({"image_id": torch.zeros(7, dtype=torch.int64)}, folder / "shard-00002/images.safetensors")


def spoil_record(folder):
    (folder / "shard-00002/shard.json").write_text("{")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_missing, "shard-00002 is missing"),
        (spoil_missing_file, r"shard-00002/hook_1\.safetensors is missing"),
        (spoil_truncated, r"shard-00002/hook_1\.safetensors has .* it was truncated"),
        (spoil_truncated_in_header, r"shard-00002/hook_1\.safetensors is truncated"),
        (spoil_empty, r"shard-00002/hook_1\.safetensors is truncated"),
        (spoil_longer, r"shard-00002/hook_1\.safetensors has .* it was truncated or extended"),
        (spoil_shape, r"shard-00002/hook_1\.safetensors is of another shape.*\[56, 4\], not F32 \[56, 5\]"),
        (spoil_dtype, r"shard-00002/hook_1\.safetensors is of another shape or type.*F16 \[56, 5\], not F32"),
        (spoil_other_tensor, r"shard-00002/hook_1\.safetensors is truncated or no file of a cache"),
        (spoil_other_cache, r"shard-00002/hook_1\.safetensors belongs to another cache"),
        (spoil_foreign_shard, "holds foreign files or shards: shard-00007"),
        (spoil_foreign_file, r"shard-00002 holds foreign files: notes\.txt"),
        (spoil_images, r"shard-00002/images\.safetensors is of another shape"),
        (spoil_record, r"shard-00002/shard\.json is missing or damaged"),
    ],
)
def test_a_bad_shard_is_named_when_opened(numbered_cache, spoil, said):
    folder = numbered_cache().folder
    numbered_cache("other", seed=1)
    spoil(folder)
    with pytest.raises(ValueError, match=said):
        CachedActivations(folder)


def test_one_changed_bit_is_found_by_its_checksum(numbered_cache):
    cache = numbered_cache()
    path = cache.path(3, "hook_0")
    data = bytearray(path.read_bytes())
    data[-2] ^= 16
    path.write_bytes(data)
    opened = CachedActivations(cache.folder)  # size and shape are right
    with pytest.raises(ValueError, match=r"shard-00003/hook_0\.safetensors is damaged"):
        opened.verify()
    with pytest.raises(ValueError, match=r"shard-00003/hook_0\.safetensors is damaged"):
        CachedActivations(cache.folder, verify=True)


@pytest.mark.parametrize("name", ["hook_0", "images"])
def test_a_shard_that_is_damaged_after_opening_is_named_when_it_is_read(numbered_cache, name):
    cache = numbered_cache()
    path = cache.path(3, name)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match=rf"shard-00003/{name}\.safetensors is damaged"):
        cache.images() if name == "images" else list(cache.in_order(50))


def test_refuses_what_is_no_cache(tmp_path, numbered_cache):
    with pytest.raises(ValueError, match="is no cache of activations"):
        CachedActivations(tmp_path / "nowhere")
    folder = numbered_cache().folder
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match=r"manifest\.json must be written by cache_activations"):
        CachedActivations(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(ValueError, match="is an unfinished cache"):
        CachedActivations(folder)


def test_the_manifest_tells_counts_and_checksums(make_cache):
    cache = make_cache()
    manifest = json.loads((cache.folder / "manifest.json").read_text())
    assert manifest["n_rows"] == 24 * 17
    assert [(shard["n_images"], shard["n_rows"]) for shard in manifest["shards"]] == [(8, 136)] * 3
    import hashlib

    for index, shard in enumerate(manifest["shards"]):
        for name, expected in shard["sha256"].items():
            data = (cache.folder / f"shard-{index:05d}" / name).read_bytes()
            assert hashlib.sha256(data).hexdigest() == expected


def test_other_weights_are_refused(make_cache, tiny_model):
    cache = make_cache()
    cache.check_model(tiny_model)
    with torch.no_grad():
        tiny_model.blocks[2].mlp.b_out[3] += 1e-3
    with pytest.raises(ValueError, match="holds activations of another model"):
        cache.check_model(tiny_model)
    cache.check_model(tiny_model, allow_other_model=True)


@pytest.mark.parametrize("size", [1, 7, 50, 56, 57, 371, 1000])
def test_in_order_gives_every_row_across_shards(numbered_cache, size):
    cache = numbered_cache()
    batches = list(cache.in_order(size))
    assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    rows = torch.arange(53 * 7)
    assert torch.equal(torch.cat(batches), torch.cat([numbered(rows, 0, 3), numbered(rows, 1, 5)], dim=1))


def test_in_order_of_some_rows_and_hook_points(numbered_cache):
    cache = numbered_cache(dtype="float16")
    found = torch.cat(list(cache.in_order(20, n_rows=70, hooks=("hook_1",))))
    assert found.dtype == torch.float32
    assert torch.equal(found, numbered(torch.arange(70), 1, 5))
    half = next(cache.in_order(20, hooks=("hook_1", "hook_0"), dtype=torch.float16))
    rows = torch.arange(20)
    assert torch.equal(half, torch.cat([numbered(rows, 1, 5), numbered(rows, 0, 3)], dim=1).half())
    for wrong in (("hook_2",), "hook_1"):
        with pytest.raises(ValueError, match="some of hook_0, hook_1; got"):
            next(cache.in_order(20, hooks=wrong))
