"""Damaged and hostile files of weights, whole, in shards and on the hub: one line that names the folder."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from hostile_folders import edit, refusal
from safetensors.torch import load_file, save_file
from transformers import safetensors_conversion

from mechvit import HookedViT


def rewrite(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor.clone() for name, tensor in tensors.items()}
    save_file(change(kept) or kept, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("length", [0, 4, 8, 20, 1000, -1000])
def test_a_shortened_file_is_named(length, saved_checkpoint):
    path = saved_checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    assert f"{path} is damaged or no safetensors file" in refusal(saved_checkpoint)


def test_a_header_that_lies_is_refused(saved_checkpoint):
    path = saved_checkpoint / "model.safetensors"
    for length in (2**62, 10**7):
        path.write_bytes(length.to_bytes(8, "little") + path.read_bytes()[8:])
        assert f"{path} is damaged or no safetensors file" in refusal(saved_checkpoint)


def test_a_folder_in_the_place_of_the_file_is_refused(saved_checkpoint):
    (saved_checkpoint / "model.safetensors").unlink()
    (saved_checkpoint / "model.safetensors").mkdir()
    assert "safetensors" in refusal(saved_checkpoint)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_that_are_not_finite_are_named(dtype, value, saved_checkpoint):
    def change(tensors):
        for name in tensors:
            tensors[name] = tensors[name].to(dtype)
        tensors["classifier.weight"][1, 2:4] = value

    rewrite(saved_checkpoint, change)
    edit(saved_checkpoint, dtype=str(dtype).removeprefix("torch."))
    assert ": classifier.weight holds 2 values that are NaN or infinite, of 160" in refusal(saved_checkpoint)


def test_large_finite_weights_are_taken(saved_checkpoint):
    def change(tensors):
        tensors["classifier.bias"].fill_(2e38)  # their sum is infinite

    rewrite(saved_checkpoint, change)
    assert bool((HookedViT.from_pretrained(saved_checkpoint, device="cpu").head.bias == 2e38).all())


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn, torch.bool])
def test_weights_that_are_no_floats_are_not_cast(dtype, saved_checkpoint):
    def change(tensors):
        tensors["classifier.weight"] = torch.ones(tensors["classifier.weight"].shape).to(dtype)

    rewrite(saved_checkpoint, change)
    assert f"classifier.weight is {dtype}" in refusal(saved_checkpoint)


def renamed(prefix):
    def change(tensors):
        return {prefix + name: tensor for name, tensor in tensors.items()}

    return change


@pytest.mark.parametrize(("prefix", "wrapper"), [("_orig_mod.", "torch.compile"), ("module.", "DataParallel")])
def test_names_of_a_wrapped_model_are_refused_in_one_short_line(prefix, wrapper, saved_checkpoint):
    rewrite(saved_checkpoint, renamed(prefix))
    line = refusal(saved_checkpoint).replace(str(saved_checkpoint), "FOLDER")
    assert f"; all names begin with `{prefix}`, which {wrapper} puts there. " in line
    assert len(line) < 250


def test_names_of_a_wrapped_part_are_refused_alike(saved_checkpoint):
    def change(tensors):
        return {name.replace("vit.encoder.", "vit.encoder._orig_mod."): tensor for name, tensor in tensors.items()}

    rewrite(saved_checkpoint, change)
    assert "; 48 names contain `_orig_mod.`, which torch.compile puts there. " in refusal(saved_checkpoint)


def test_names_under_another_prefix_are_refused_alike(saved_checkpoint):
    rewrite(saved_checkpoint, renamed("network."))
    line = refusal(saved_checkpoint).replace(str(saved_checkpoint), "FOLDER")
    assert "; all names begin with `network.`, where the config has classifier.bias. " in line
    assert len(line) < 250


# shards


@pytest.fixture
def sharded(saved_checkpoint) -> Path:
    """The checkpoint in two files with an index."""
    names = sorted(tensors := load_file(saved_checkpoint / "model.safetensors"))
    halves = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for file, own in halves.items():
        save_file({name: tensors[name].clone() for name in own}, saved_checkpoint / file, metadata={"format": "pt"})
    index = {name: file for file, own in halves.items() for name in own}
    (saved_checkpoint / "model.safetensors").unlink()
    (saved_checkpoint / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return saved_checkpoint


def test_shards_are_one_model(sharded, whole_checkpoint):
    found, wanted = (
        HookedViT.from_pretrained(folder, device="cpu").state_dict() for folder in (sharded, whole_checkpoint)
    )
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in found)


def test_weights_that_are_there_twice_are_refused(sharded, whole_checkpoint):
    """A whole file and shards, of which transformers takes the file in silence; an index of what is gone is none."""
    shutil.copy(whole_checkpoint / "model.safetensors", sharded)
    line = refusal(sharded)
    assert "holds its weights twice, in model.safetensors and in the files that model.safetensors.index.json" in line
    for shard in ("one.safetensors", "two.safetensors"):
        (sharded / shard).unlink()
    assert HookedViT.from_pretrained(sharded, device="cpu").cfg.n_layers > 0
    index = json.loads((sharded / "model.safetensors.index.json").read_text())
    index["weight_map"] = dict.fromkeys(index["weight_map"], "model.safetensors")
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
    assert HookedViT.from_pretrained(sharded, device="cpu").cfg.n_layers > 0


@pytest.mark.parametrize(
    "file", ["../outside.safetensors", "/outside.safetensors", "..", "a\\b.safetensors", "one.bin", 3, ["x"]]
)
def test_an_index_names_no_file_elsewhere(file, sharded):
    shutil.copy(sharded / "one.safetensors", sharded.parent / "outside.safetensors")
    path = sharded / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"] = {name: file if old.startswith("one") else old for name, old in index["weight_map"].items()}
    path.write_text(json.dumps(index))
    assert f"{path} must " in refusal(sharded)


@pytest.mark.parametrize("text", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', "half", "[" * 100_000])
def test_an_index_of_another_form_is_refused(text, sharded):
    (sharded / "model.safetensors.index.json").write_text(text)
    assert "model.safetensors.index.json must " in refusal(sharded)


def test_a_missing_shard_is_named(sharded):
    (sharded / "two.safetensors").unlink()
    assert "two.safetensors" in refusal(sharded)


def test_links_to_files_and_folders_are_followed(sharded, whole_checkpoint, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    for path in sharded.glob("*.safetensors"):
        path.rename(tmp_path / "elsewhere" / path.name)
        path.symlink_to(tmp_path / "elsewhere" / path.name)
    (tmp_path / "link").symlink_to(sharded)
    found, wanted = (
        HookedViT.from_pretrained(folder, device="cpu") for folder in (tmp_path / "link", whole_checkpoint)
    )
    assert all(torch.equal(a, b) for a, b in zip(found.parameters(), wanted.parameters(), strict=True))


def test_a_weight_in_two_shards_is_named(sharded):
    tensors = load_file(sharded / "two.safetensors") | {"classifier.bias": torch.zeros(5)}
    save_file(tensors, sharded / "two.safetensors", metadata={"format": "pt"})
    assert "holds classifier.bias a second time" in refusal(sharded)


# the hub


@pytest.fixture
def on_hub(whole_checkpoint, tmp_path, monkeypatch) -> Path:
    """The checkpoint in a cache of the hub, as someone/vit: its snapshot's folder."""
    own = tmp_path / "hub" / "models--someone--vit"
    (own / "refs").mkdir(parents=True)
    (own / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("mechvit.models.checkpoints.revisions._SETTLED", {})
    return Path(shutil.copytree(whole_checkpoint, own / "snapshots" / ("a" * 40)))


def test_a_hub_id_is_loaded_by_the_same_loader(on_hub, whole_checkpoint):
    found, wanted = (HookedViT.from_pretrained(name, device="cpu") for name in ("someone/vit", whole_checkpoint))
    assert all(torch.equal(a, b) for a, b in zip(found.parameters(), wanted.parameters(), strict=True))
    assert found.hf_config.name_or_path == "someone/vit"
    assert found.image_processor.to_dict() == wanted.image_processor.to_dict()
    edit(on_hub, num_hidden_layers=10**6)
    assert "num_hidden_layers 1000000" in refusal(Path("someone/vit"))


def test_a_hub_model_of_pickles_is_refused_or_read_as_the_hub_converted_it(on_hub, whole_checkpoint, monkeypatch):
    (on_hub / "model.safetensors").rename(on_hub / "pytorch_model.bin")
    assert "it has no model.safetensors. Nothing is unpickled" in refusal(Path("someone/vit"))
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: False)
    converted = str(whole_checkpoint / "model.safetensors"), "refs/pr/1", False
    monkeypatch.setattr(safetensors_conversion, "auto_conversion", lambda where: converted)
    assert HookedViT.from_pretrained("someone/vit", device="cpu").cfg.n_layers == 3
