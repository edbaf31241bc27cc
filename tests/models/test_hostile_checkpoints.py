"""Damaged and hostile checkpoints: one line that names the folder, before anything large is built."""

from __future__ import annotations

import copy
import json
import math
import os
import re
import resource
import shutil
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hf_zoo import ZOO
from safetensors.torch import load_file, save_file
from transformers import safetensors_conversion

from mechvit import HookedViT
from mechvit.models.checkpoint_config import read_hf_config
from mechvit.models.hook_table import checkpoint_table
from mechvit.models.image_processor import read_image_processor
from mechvit.models.loading import load_hf_model


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A checkpoint with its image processor."""
    folder = tmp_path_factory.mktemp("whole")
    ZOO["vit classifier"]().save_pretrained(folder)
    transformers.ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture
def saved(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "checkpoint"))


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refusal(where: Path) -> str:
    """Give the one line with which both loaders refuse a checkpoint."""
    lines = []
    for load in (load_hf_model, lambda folder: HookedViT.from_pretrained(folder, device="cpu")):
        with pytest.raises(ValueError, match=re.escape(str(where))) as error:
            load(where)
        lines.append(str(error.value))
    assert lines[0] == lines[1]
    assert "\n" not in lines[0]
    assert len(lines[0]) < 1000
    return lines[0]


# configs


SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "no width": ({"hidden_size": 0}, ""),
    "a word for the width": ({"hidden_size": "x"}, "hidden_size"),
    "null for the width": ({"hidden_size": None}, "hidden_size"),
    "a list for the width": ({"hidden_size": [32]}, "hidden_size"),
    "a width below nothing": ({"hidden_size": -32}, ""),
    "another width": ({"hidden_size": 48, "num_attention_heads": 3}, "must be (48,)"),
    "a million layers": ({"num_hidden_layers": 10**6}, "num_hidden_layers 1000000, and its weights can be those of"),
    "1e30 layers": ({"num_hidden_layers": 1e30}, "num_hidden_layers"),
    "no layer": ({"num_hidden_layers": 0}, ""),
    "a million channels": ({"num_channels": 10**6}, "is (32, 3, 8, 8), must be (32, 1000000, 8, 8)"),
    "a million pixels": ({"image_size": 10**6}, "embeddings.position_embeddings is (1, 17, 32), must be"),
    "a billion labels": ({"id2label": None, "label2id": None, "num_labels": 10**9}, "num_labels 1000000000"),
    "a wide MLP": ({"intermediate_size": 10**8}, "must be (100000000,)"),
    "no head": ({"num_attention_heads": 0}, ""),
    "heads below nothing": ({"num_attention_heads": -2}, "n_heads must be a whole number"),
    "no patch": ({"patch_size": 0}, ""),
    "no number for eps": ({"layer_norm_eps": math.nan}, "eps must be finite"),
    "dropout above one": ({"hidden_dropout_prob": 3.0}, ""),
    "an unknown activation": ({"hidden_act": "nonsense"}, "nonsense"),
    "a dtype that is a function": ({"dtype": "load"}, "dtype"),
    "an unknown dtype": ({"dtype": "float33"}, "float33"),
    "names that are no dict": ({"id2label": ["a", "b"]}, "id2label"),
    "names under words": ({"id2label": {"first": "a"}}, "id2label of its config.json must name the classes by index"),
    "null for the names": ({"id2label": None}, "id2label of its config.json must name the classes by index"),
    "null for a name": ({"id2label": {"0": None, "1": "b"}}, "got {'0': None}. Correct the setting"),
    "a list for a name": ({"id2label": {"0": "a", "1": ["b"]}}, "got {'1': ['b']}. Correct the setting"),
    "a truth value for a name": ({"id2label": {"0": True}}, "id2label"),
    "a number for the problem": (
        {"problem_type": 5},
        "problem_type of its config.json must be regression, single_label",
    ),
    "a list for the problem": ({"problem_type": ["regression"]}, "problem_type of its config.json"),
    "an unknown problem": ({"problem_type": "ranking"}, "problem_type of its config.json"),
    "a truth value for the problem": ({"problem_type": False}, "problem_type of its config.json"),
    "a word for the labels": (
        {"id2label": None, "num_labels": "x"},
        "num_labels of its config.json must be the number",
    ),
    "labels below nothing": ({"num_labels": -1}, "num_labels of its config.json"),
    "a truth value for the labels": ({"num_labels": True}, "num_labels of its config.json"),
    "a method": ({"to_dict": "x"}, "sets to_dict"),
    "classes as a word": ({"architectures": "ViTForImageClassification"}, "architectures"),
    "classes that are no words": ({"architectures": [3]}, "architectures"),
    "a kind that is a list": ({"model_type": ["vit"]}, "model_type"),
    "an auto_map that is a list": ({"auto_map": ["code.Mine"]}, "auto_map"),
    "quantised by a word": ({"quantization_config": "int8"}, "quantization_config"),
    "weights elsewhere": ({"transformers_weights": "../other/model.safetensors"}, "transformers_weights"),
    "configs elsewhere": ({"configuration_files": ["../config.json"]}, "configuration_files"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_that_makes_no_model_is_refused_at_once(name, saved):
    changes, said = SETTINGS[name]
    edit(saved, **changes)
    started, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert said in refusal(saved)
    assert time.process_time() - started < 10  # measured: 0.1; a million layers took 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 300_000  # kB; a million channels took 4.4 GB


def test_a_file_in_the_place_of_a_checkpoint_is_said_to_be_one(tmp_path):
    (tmp_path / "notes.txt").write_text("no checkpoint")
    for path in ("/dev/null", tmp_path / "notes.txt"):
        with pytest.raises(ValueError, match=rf"^{path} must be a folder with a config.json, .* got a file\."):
            read_hf_config(path)


JSON = {
    "a list": "[1, 2]",
    "a word": '"vit"',
    "null": "null",
    "nothing": "",
    "half": '{"model_type": "vit",',
    "another thing": "not json",
    "nested deep": "[" * 100_000,
    "not UTF-8": b'{"model_type": "\xff"}',
}


@pytest.mark.parametrize("name", JSON)
def test_a_config_that_is_none_is_refused(name, saved):
    text = JSON[name]
    (saved / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert "config.json" in refusal(saved)
    with pytest.raises(ValueError, match=r"config\.json"):
        read_hf_config(saved)


@pytest.mark.parametrize("name", JSON)
@pytest.mark.parametrize("file", ["preprocessor_config.json", "processor_config.json"])
def test_a_processor_that_is_none_is_refused(file, name, saved):
    (saved / "preprocessor_config.json").unlink()
    text = JSON[name]
    (saved / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match="its image processor must be one of transformers' own") as error:
        HookedViT.from_pretrained(saved, device="cpu")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"size": {"height": 10**6, "width": 10**6}}, {"size": 10**9}, {"size": {"shortest_edge": 10**7}},
        {"do_center_crop": True, "crop_size": {"height": 10**6, "width": 10**6}}, {"size": "x"}, {"size": None},
        {"size": {"height": 0, "width": 0}}, {"size": {"height": -4, "width": 8}}, {"resample": 99},
        {"image_mean": "x"}, {"image_mean": None}, {"image_std": [0, 0, 0]}, {"image_std": [1]},
        {"image_mean": [math.nan] * 3}, {"rescale_factor": "x"}, {"rescale_factor": math.inf},
        {"image_processor_type": 3}, {"image_processor_type": "os.system"},
    ],
    ids=str,
)  # fmt: skip
def test_a_processor_that_makes_no_pixels_is_refused_at_once(changes, saved):
    path = saved / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=re.escape(str(saved))) as error:
        read_image_processor(saved)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 300_000


@pytest.mark.parametrize("tower", ["vision_config", "text_config"])
def test_both_towers_are_compared(tower, tmp_path):
    ZOO["clip zero-shot"]().save_pretrained(tmp_path)
    own = json.loads((tmp_path / "config.json").read_text())[tower]
    edit(tmp_path, **{tower: own | {"num_hidden_layers": 10**6}})
    assert "num_hidden_layers 1000000" in refusal(tmp_path)
    edit(tmp_path, **{tower: own | {"intermediate_size": 10**7}})
    assert "10000000" in refusal(tmp_path)
    edit(tmp_path, **{tower: [own]})
    assert tower in refusal(tmp_path)


def test_layers_are_bounded_where_there_are_no_weights_to_compare(saved):
    (saved / "model.safetensors").unlink()
    assert read_hf_config(saved).num_hidden_layers == 3
    edit(saved, num_hidden_layers=10**6)
    with pytest.raises(ValueError, match="num_hidden_layers 1000000"):
        read_hf_config(saved)


@pytest.mark.parametrize("changes", [{"hidden_size": 0}, {"hidden_size": "x"}, {"num_hidden_layers": 10**6}], ids=str)
def test_the_table_of_hook_points_refuses_them_too(changes, saved):
    edit(saved, **changes)
    with pytest.raises(ValueError, match=re.escape(str(saved))) as error:
        checkpoint_table(str(saved))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "part", "setting"),
    [
        ("mae encoder", None, "image_size"), ("siglip zero-shot", "vision_config", "image_size"),
        ("siglip zero-shot", "text_config", "max_position_embeddings"), ("dinov3 encoder", None, "hidden_size"),
    ],
)  # fmt: skip
def test_what_transformers_fills_in_is_not_computed_first(name, part, setting, tmp_path):
    """Sine and cosine positions, positions' numbers, rotary angles: of a million pixels they would take gigabytes."""
    ZOO[name]().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for value in (10**5, 10**6, 10**9):
        edit(tmp_path, **({part: config[part] | {setting: value}} if part else {setting: value}))
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        refusal(tmp_path)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 100_000


# weights


def rewrite(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor.clone() for name, tensor in tensors.items()}
    save_file(change(kept) or kept, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("length", [0, 4, 8, 20, 1000, -1000])
def test_a_shortened_file_is_named(length, saved):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    assert f"{path} is damaged or no safetensors file" in refusal(saved)


def test_a_header_that_lies_is_refused(saved):
    path = saved / "model.safetensors"
    for length in (2**62, 10**7):
        path.write_bytes(length.to_bytes(8, "little") + path.read_bytes()[8:])
        assert f"{path} is damaged or no safetensors file" in refusal(saved)


def test_a_folder_in_the_place_of_the_file_is_refused(saved):
    (saved / "model.safetensors").unlink()
    (saved / "model.safetensors").mkdir()
    assert "safetensors" in refusal(saved)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_that_are_not_finite_are_named(dtype, value, saved):
    def change(tensors):
        for name in tensors:
            tensors[name] = tensors[name].to(dtype)
        tensors["classifier.weight"][1, 2:4] = value

    rewrite(saved, change)
    edit(saved, dtype=str(dtype).removeprefix("torch."))
    assert ": classifier.weight holds 2 values that are NaN or infinite, of 160" in refusal(saved)


def test_large_finite_weights_are_taken(saved):
    def change(tensors):
        tensors["classifier.bias"].fill_(2e38)  # their sum is infinite

    rewrite(saved, change)
    assert bool((HookedViT.from_pretrained(saved, device="cpu").head.bias == 2e38).all())


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn, torch.bool])
def test_weights_that_are_no_floats_are_not_cast(dtype, saved):
    def change(tensors):
        tensors["classifier.weight"] = torch.ones(tensors["classifier.weight"].shape).to(dtype)

    rewrite(saved, change)
    assert f"classifier.weight is {dtype}" in refusal(saved)


def renamed(prefix):
    def change(tensors):
        return {prefix + name: tensor for name, tensor in tensors.items()}

    return change


@pytest.mark.parametrize(("prefix", "wrapper"), [("_orig_mod.", "torch.compile"), ("module.", "DataParallel")])
def test_names_of_a_wrapped_model_are_refused_in_one_short_line(prefix, wrapper, saved):
    rewrite(saved, renamed(prefix))
    line = refusal(saved).replace(str(saved), "FOLDER")
    assert f"; all names begin with `{prefix}`, which {wrapper} puts there. " in line
    assert len(line) < 250


def test_names_of_a_wrapped_part_are_refused_alike(saved):
    def change(tensors):
        return {name.replace("vit.encoder.", "vit.encoder._orig_mod."): tensor for name, tensor in tensors.items()}

    rewrite(saved, change)
    assert "; 48 names contain `_orig_mod.`, which torch.compile puts there. " in refusal(saved)


def test_names_under_another_prefix_are_refused_alike(saved):
    rewrite(saved, renamed("network."))
    line = refusal(saved).replace(str(saved), "FOLDER")
    assert "; all names begin with `network.`, where it has classifier.bias. " in line
    assert len(line) < 250


# shards


@pytest.fixture
def sharded(saved) -> Path:
    """The checkpoint in two files with an index."""
    names = sorted(tensors := load_file(saved / "model.safetensors"))
    halves = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for file, own in halves.items():
        save_file({name: tensors[name].clone() for name in own}, saved / file, metadata={"format": "pt"})
    index = {name: file for file, own in halves.items() for name in own}
    (saved / "model.safetensors").unlink()
    (saved / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return saved


def test_shards_are_one_model(sharded, whole):
    found, wanted = (HookedViT.from_pretrained(folder, device="cpu").state_dict() for folder in (sharded, whole))
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in found)


@pytest.mark.parametrize(
    "file", ["../outside.safetensors", "/tmp/outside.safetensors", "..", "a\\b.safetensors", "one.bin", 3, ["x"]]
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


def test_links_to_files_and_folders_are_followed(sharded, whole, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    for path in sharded.glob("*.safetensors"):
        path.rename(tmp_path / "elsewhere" / path.name)
        path.symlink_to(tmp_path / "elsewhere" / path.name)
    (tmp_path / "link").symlink_to(sharded)
    found, wanted = (HookedViT.from_pretrained(folder, device="cpu") for folder in (tmp_path / "link", whole))
    assert all(torch.equal(a, b) for a, b in zip(found.parameters(), wanted.parameters(), strict=True))


def test_a_weight_in_two_shards_is_named(sharded):
    tensors = load_file(sharded / "two.safetensors") | {"classifier.bias": torch.zeros(5)}
    save_file(tensors, sharded / "two.safetensors", metadata={"format": "pt"})
    assert "holds classifier.bias a second time" in refusal(sharded)


# the hub


@pytest.fixture
def on_hub(whole, tmp_path, monkeypatch) -> Path:
    """The checkpoint in a cache of the hub, as someone/vit: its snapshot's folder."""
    own = tmp_path / "hub" / "models--someone--vit"
    (own / "refs").mkdir(parents=True)
    (own / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("mechvit.models.revisions._SETTLED", {})
    return Path(shutil.copytree(whole, own / "snapshots" / ("a" * 40)))


def test_a_hub_id_is_loaded_by_the_same_loader(on_hub, whole):
    found, wanted = (HookedViT.from_pretrained(name, device="cpu") for name in ("someone/vit", whole))
    assert all(torch.equal(a, b) for a, b in zip(found.parameters(), wanted.parameters(), strict=True))
    assert found.hf_config.name_or_path == "someone/vit"
    assert found.image_processor.to_dict() == wanted.image_processor.to_dict()
    edit(on_hub, num_hidden_layers=10**6)
    assert "num_hidden_layers 1000000" in refusal(Path("someone/vit"))


def test_a_hub_model_of_pickles_is_refused_or_read_as_the_hub_converted_it(on_hub, whole, monkeypatch):
    (on_hub / "model.safetensors").rename(on_hub / "pytorch_model.bin")
    assert "it has no model.safetensors. Nothing is unpickled" in refusal(Path("someone/vit"))
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: False)
    converted = str(whole / "model.safetensors"), "refs/pr/1", False
    monkeypatch.setattr(safetensors_conversion, "auto_conversion", lambda where: converted)
    assert HookedViT.from_pretrained("someone/vit", device="cpu").cfg.n_layers == 3


# saved HookedViTs


@pytest.fixture
def ours(whole, tmp_path) -> Path:
    HookedViT.from_pretrained(whole, device="cpu").save_pretrained(tmp_path / "ours")
    return tmp_path / "ours"


def refused_ours(folder: Path) -> str:
    with pytest.raises(ValueError, match=re.escape(str(folder))) as error:
        HookedViT.from_pretrained(folder, device="cpu")
    line = str(error.value)
    assert "\n" not in line
    assert len(line) < 1000
    return line


@pytest.mark.parametrize(
    "changes",
    [
        {"n_layers": 10**6}, {"n_layers": 10**12}, {"n_channels": 10**6}, {"d_mlp": 10**8}, {"d_model": 0},
        {"d_model": "x"}, {"n_heads": None}, {"architecture": "os"}, {"dtype": "load"}, {"family": "x"},
        {"id2label": []}, {"image_size": 10**6}, {"n_registers": 10**7},
    ],
    ids=str,
)  # fmt: skip
def test_our_config_is_compared_with_our_weights_first(changes, ours):
    about = json.loads((ours / "hooked_vit.json").read_text())
    about["hooked_vit"] |= changes
    (ours / "hooked_vit.json").write_text(json.dumps(about))
    started, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused_ours(ours)
    assert time.process_time() - started < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 300_000


@pytest.mark.parametrize("text", ["[]", "{}", "half", '{"hooked_vit": [], "hugging_face": []}'])
def test_our_config_of_another_form_is_refused(text, ours):
    (ours / "hooked_vit.json").write_text(text)
    refused_ours(ours)


def test_our_weights_are_checked(ours):
    path = ours / "hooked_vit.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    save_file(tensors | {"head.weight": tensors["head.weight"] * math.nan}, path)
    assert "head.weight holds 160 values that are NaN or infinite" in refused_ours(ours)
    del tensors["blocks.1.attn.q.weight"]
    save_file(tensors | {"surplus": torch.zeros(2), "head.bias": torch.zeros(7)}, path)
    line = refused_ours(ours)
    assert "missing blocks.1.attn.q.weight; left over surplus; head.bias is (7,), must be (5,)" in line
    path.write_bytes(path.read_bytes()[:-10])
    assert f"{path} is damaged or no safetensors file" in refused_ours(ours)
    path.unlink()
    assert str(path) in refused_ours(ours)


# every number of every family


def numbers(settings: dict[str, Any], at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Give the path of each number in a config."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from numbers(value, (*at, name))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield (*at, name)


@pytest.mark.processes
@pytest.mark.parametrize("name", ["vit classifier", *(pytest.param(n, marks=pytest.mark.slow) for n in ZOO)])
def test_any_number_loads_or_is_refused_at_once(name, tmp_path):
    """In a process of its own, whose largest memory is asked for."""
    results, process = tmp_path / "results.json", os.fork()
    if process == 0:
        try:
            torch.set_num_threads(1)  # a pool of threads doesn't survive a fork
            results.write_text(json.dumps(_try_numbers(name, tmp_path / "checkpoint")))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.waitpid(process, 0)
    seconds, kilobytes, faults, count = json.loads(results.read_text())
    assert faults == []
    assert count > 20
    assert seconds < 2
    assert kilobytes < 300_000


def _try_numbers(name: str, folder: Path) -> tuple[float, int, list[str], int]:
    ZOO[name]().save_pretrained(folder)
    whole = json.loads((folder / "config.json").read_text())
    longest, faults, count = 0.0, [], 0
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for path in numbers(whole):
        for value in (10**6, 10**9, 0, -1, math.nan, "x", [3]):
            settings = copy.deepcopy(whole)
            part = settings
            for word in path[:-1]:
                part = part[word]
            part[path[-1]] = value
            (folder / "config.json").write_text(json.dumps(settings))
            started = time.process_time()
            try:
                HookedViT.from_pretrained(folder, device="cpu")
            except ValueError as error:
                if "\n" in str(error) or str(folder) not in str(error) or len(str(error)) > 1000:
                    faults.append(f"{path} = {value}: {error}")
            except BaseException as error:
                faults.append(f"{path} = {value}: {error!r}")
            longest, count = max(longest, time.process_time() - started), count + 1
    return longest, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory, faults, count
