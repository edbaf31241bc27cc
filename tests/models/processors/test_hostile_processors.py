"""Hostile settings of image processors: one line that names the folder, the file and the setting, before a picture is
made."""

from __future__ import annotations

import json
import math
import re
import resource
from pathlib import Path
from typing import Any

import pytest
import transformers
from hostile_folders import JSON

from mechvit import HookedViT
from mechvit.models.processors.image_processor import read_image_processor


def edit(folder: Path, changes: dict[str, Any]) -> None:
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refusal(folder: Path) -> str:
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=re.escape(str(folder))) as error:
        read_image_processor(folder)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 300_000
    return str(error.value)


@pytest.mark.parametrize("name", JSON)
@pytest.mark.parametrize("file", ["preprocessor_config.json", "processor_config.json"])
def test_a_processor_that_is_none_is_refused(file, name, saved_checkpoint):
    (saved_checkpoint / "preprocessor_config.json").unlink()
    text = JSON[name]
    (saved_checkpoint / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=re.escape(str(saved_checkpoint))) as error:
        HookedViT.from_pretrained(saved_checkpoint, device="cpu")
    assert file in str(error.value)
    assert ("must hold settings by name" if name in ("a list", "a word", "null") else "is damaged") in str(error.value)
    assert "\n" not in str(error.value)


SWITCHES = (
    "do_resize",
    "do_rescale",
    "do_normalize",
    "do_center_crop",
    "do_pad",
    "do_convert_rgb",
    "default_to_square",
)
SIZES = (
    "x",
    {},
    [],
    {"height": "x"},
    {"height": 0, "width": 0},
    {"height": -4, "width": 8},
    2.5,
    True,
    [8, None, 0],
    10**9,
    {"shortest_edge": 10**7},
    {"height": 10**6, "width": 10**6},
    {"height": [32], "width": 32},
    math.nan,
)
WRONG: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(SWITCHES, ("x", 1, 0, [True], {}, "false")),
    **dict.fromkeys(("size", "crop_size", "pad_size"), SIZES),
    "rescale_factor": ("x", [0.1], {}, True, math.inf, math.nan, 0, -1.0, "0.00392"),
    "image_mean": ("x", [], ["x", 0, 0], [math.nan] * 3, {}, [None, 0, 0], True),
    "image_std": ("x", [], [0, 0, 0], [-1, 1, 1], [math.inf] * 3, {}, [None, 1, 1], True, 0),
    "resample": (99, -1, [2], {}, True, 2.5, "bicubic", "x"),
    "image_processor_type": (3, ["ViTImageProcessor"], {}),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_setting_that_no_processor_has_is_named(name, saved_checkpoint):
    whole = (saved_checkpoint / "preprocessor_config.json").read_text()
    for value in WRONG[name]:
        (saved_checkpoint / "preprocessor_config.json").write_text(whole)
        edit(saved_checkpoint, {name: value})
        line = refusal(saved_checkpoint)
        assert f"{name} of its preprocessor_config.json must be" in line, value
        assert f"got {value!r}. Correct it." in line


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"image_mean": None}, "image_mean"),
        ({"image_std": None}, "image_std"),
        ({"size": None}, "size"),
        ({"rescale_factor": None}, "rescale_factor"),
        ({"do_center_crop": True, "crop_size": None}, "crop_size"),
        ({"image_std": [1]}, "image_std"),
        ({"image_processor_type": "os.system"}, "os.system"),
        ({"do_center_crop": True, "crop_size": {"height": 10**6, "width": 1}}, "crop_size"),
    ],
    ids=str,
)
def test_settings_that_do_not_go_together_are_named(changes, name, saved_checkpoint):
    edit(saved_checkpoint, changes)
    line = refusal(saved_checkpoint)
    assert name in line
    assert "preprocessor_config.json" in line


def test_settings_that_are_left_open_are_taken_as_transformers_takes_them(saved_checkpoint):
    wanted = read_image_processor(saved_checkpoint)
    edit(saved_checkpoint, dict.fromkeys(["do_center_crop", "crop_size", "do_convert_rgb", "do_pad", "pad_size"]))
    found = read_image_processor(saved_checkpoint)
    assert (found.size, found.image_mean) == (wanted.size, wanted.image_mean)


def test_the_image_processor_of_a_processor_is_named_with_its_file(saved_checkpoint):
    own = json.loads((saved_checkpoint / "preprocessor_config.json").read_text())
    path = saved_checkpoint / "processor_config.json"
    path.write_text(json.dumps({"image_processor": own | {"rescale_factor": "x"}}))
    assert "rescale_factor of its processor_config.json must be a number" in refusal(saved_checkpoint)
    path.write_text(json.dumps({"image_processor": [own]}))
    assert "image_processor of its processor_config.json must hold settings by name" in refusal(saved_checkpoint)
    path.write_text(json.dumps({"image_processor": own}))
    (saved_checkpoint / "preprocessor_config.json").write_text("not json")  # which transformers does not read then
    assert isinstance(read_image_processor(saved_checkpoint), transformers.ViTImageProcessorPil)


@pytest.mark.parametrize("changes", [{"max_num_patches": 0}, {"patch_size": "x"}, {"max_num_patches": 10**12}], ids=str)
def test_patches_of_siglip_2_are_counted_first(changes, tmp_path):
    transformers.Siglip2ImageProcessorPil().save_pretrained(tmp_path)
    edit(tmp_path, changes)
    assert next(iter(changes)) in refusal(tmp_path)
