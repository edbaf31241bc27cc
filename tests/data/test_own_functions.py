"""Functions that are registered as corruptions, in Python and from files and modules on a command line."""

from __future__ import annotations

import os
import sys
from functools import partial

import pytest
import torch

from mechvit.data import Corruption, corrupt, fingerprint, parse_condition, register_corruption
from mechvit.data.conditions import as_condition
from mechvit.data.corruption_spec import CLEAN, CORRUPTION_FAMILIES
from mechvit.data.corruptions import CORRUPTIONS
from mechvit.data.mixture_spec import Mixture, parse_training

IDS = torch.tensor([3, 11, 1_000_007, 0, 2**40, 12])


@pytest.fixture(autouse=True)
def as_before():
    """Forget what a test registers."""
    families, functions = dict(CORRUPTION_FAMILIES), dict(CORRUPTIONS)
    yield
    for table, before in ((CORRUPTION_FAMILIES, families), (CORRUPTIONS, functions)):
        table.clear()
        table.update(before)


def haze(images, level):
    return images + (1 - images) * level / 10


def test_a_registered_function_is_a_corruption_everywhere(photos):
    register_corruption("haze", haze, levels=range(1, 6), title="Morning haze")
    condition = parse_condition("haze_3")
    assert condition == Corruption("haze", 3)
    assert (condition.key, condition.title, condition.group) == ("haze_3", "Morning haze 3", "function")
    assert torch.equal(corrupt(photos, "haze_3", IDS), photos + (1 - photos) * 3 / 10)
    assert Mixture.parse("clean+haze_2").members == (CLEAN, Corruption("haze", 2))
    assert parse_training("both=haze_1+fog_2").key == "both"
    assert sorted([condition, CLEAN, Corruption("haze", 1)])[-1] == condition


def test_a_function_of_images_alone_has_no_level(photos):
    register_corruption("negative", lambda images: 1 - images)
    assert torch.equal(corrupt(photos, "negative", IDS), 1 - photos)
    assert parse_condition("negative").title == "Negative"
    with pytest.raises(ValueError, match="only level 0: write negative; got 2"):
        parse_condition("negative_2")


def test_seeds_belong_to_the_image_and_the_run(photos):
    def noise(images, level, seeds):
        made = [torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds]
        return images * (1 - level / 10) + torch.stack(made) * level / 10

    register_corruption("grain", noise)
    whole = corrupt(photos, "grain_2", IDS)
    for i in range(len(IDS)):
        assert torch.equal(corrupt(photos[i : i + 1], "grain_2", IDS[i : i + 1]), whole[i : i + 1])
    assert not torch.equal(corrupt(photos, "grain_2", IDS, seed=1), whole)
    assert not torch.equal(corrupt(photos[:1].expand(6, -1, -1, -1), "grain_2", IDS)[0], whole[1])


def test_the_images_themselves_stay(photos):
    register_corruption("dark", lambda images: images.mul_(0.5))
    before = photos.clone()
    assert torch.equal(corrupt(photos, "dark", IDS), photos / 2)
    assert torch.equal(photos, before)


calls = iter(range(1000))


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x: x[:, :, 1:], r"wrong must return images like those it is given, torch.float32 \[6, 3, 48, 48\]"),
        (lambda x: x.double(), r"it returned torch.float64 \[6, 3, 48, 48\]"),
        (lambda x: x.numpy(), "wrong must return a tensor like the images; it returned a ndarray"),
        (lambda x: x + 0.5, r"wrong must return images in \[0, 1\]; it returned values from"),
        (lambda x: x / 0 * 0, r"wrong must return images in \[0, 1\]; it returned values from nan to nan"),
        (lambda x: x * 0 + next(calls) / 1000, "called twice it differs by 0.001"),
        (lambda x: x / x.max() * 0 + x.mean(), "whatever is in its batch; alone it differs by"),
        (lambda x: x.reshape(-1, 7), r"the function of wrong failed on images \[6, 3, 48, 48\]: RuntimeError: .* line"),
    ],
)
def test_what_a_function_returns_is_checked_on_the_first_batch(photos, function, said):
    register_corruption("wrong", function)
    with pytest.raises(ValueError, match=said) as refused:
        corrupt(photos, "wrong", IDS)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "function", "levels", "said"),
    [
        ("fog", haze, None, "'fog' is a condition of this package"),
        ("clean", haze, None, "'clean' is a condition of this package"),
        ("pgd", haze, None, "'pgd' is a condition of this package"),
        ("haze_3", haze, None, "does not end in _ and a number"),
        ("my haze", haze, None, "holds letters, digits and _ only"),
        ("haze", 3, None, "must take images, .*; got a int"),
        ("haze", lambda: 0, None, r"this one takes \(\)"),
        ("haze", lambda a, b, c, d: a, None, r"this one takes \(a, b, c, d\)"),
        ("haze", lambda a, *, level: a, None, r"this one takes \(a, level\)"),
        ("haze", lambda x: x, (1, 2), "takes images alone, and levels need one of images and level"),
        ("haze", haze, (), "must be some whole numbers from 1"),
        ("haze", haze, (0, 1), "levels"),
    ],
)
def test_what_cannot_be_registered(name, function, levels, said):
    with pytest.raises(ValueError, match=said):
        register_corruption(name, function, levels=levels)


def test_levels_are_those_given():
    register_corruption("haze", haze, levels=(1, 3))
    with pytest.raises(ValueError, match="haze's levels are 1, 3; got 2"):
        parse_condition("haze_2")
    with pytest.raises(ValueError, match=r"haze needs its level, .*, as in haze_1"):
        parse_condition("haze")


def test_a_blur_registered_again_is_the_same_to_the_bit(photos):
    register_corruption("mine", lambda x: CORRUPTIONS["gaussian_blur"](x, 4, torch.zeros(len(x), dtype=torch.int64), 0))
    assert torch.equal(corrupt(photos, "mine", IDS), corrupt(photos, "gaussian_blur_4", IDS))


def test_fingerprints_tell_functions_apart_by_source_and_by_what_they_make():
    assert fingerprint("gaussian_blur_4") is None
    assert fingerprint(CLEAN) is None
    found = []
    for factor in (0.5, 0.6):  # the same source, another value that it reads
        register_corruption("dark", lambda images, by=factor: images * by)
        found.append(fingerprint("dark"))
        assert fingerprint("dark") == found[-1]
    register_corruption("dark", lambda images: images * 0.5)  # another source, the same images
    found.append(fingerprint("dark"))
    register_corruption("dark", partial(haze, level=2))
    found.append(fingerprint("dark"))
    assert len(set(found)) == 4


FILE = """
from mechvit.data import register_corruption

def haze(images, level):
    return images + (1 - images) * level / 10

register_corruption("mist", lambda images, level: images * 0.9 ** level, levels=(1, 2), title="Mist")
"""


def test_a_file_is_imported_and_its_function_registered(tmp_path, photos, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = tmp_path / "my_file.py"
    path.write_text(FILE)
    os.utime(path, (1e9, 1e9))
    assert parse_condition(f"{path}:haze_3") == as_condition("haze_3") == Corruption("haze", 3)
    assert torch.equal(corrupt(photos, "haze_3", IDS), haze(photos, 3))
    assert parse_condition(f"{path}:mist_2").title == "Mist 2"
    with pytest.raises(ValueError, match="mist's levels are 1, 2; got 3"):
        parse_condition(f"{path}:mist_3")
    before = fingerprint("haze_3")
    path.write_text(FILE.replace("/ 10", "/ 20"))  # edited: the new one counts, also in this process
    os.utime(path, (1e9 + 0.5, 1e9 + 0.5))  # and in the same second, to which bytecode is dated
    parse_condition(f"{path}:haze_3")
    assert torch.equal(corrupt(photos, "haze_3", IDS), photos + (1 - photos) * 3 / 20)
    assert fingerprint("haze_3") != before


def test_a_module_is_imported(tmp_path, monkeypatch):
    (tmp_path / "own_conditions.py").write_text(FILE)
    monkeypatch.syspath_prepend(tmp_path)
    assert parse_condition("own_conditions:haze_3").key == "haze_3"


@pytest.mark.parametrize(
    ("text", "content", "said"),
    [
        ("none.py:haze_3", None, "there is no file .*none.py"),
        ("file.py:mist_3", FILE.replace('"mist"', '"dew"'), "has no function 'mist', .* it has .*haze"),
        ("file.py:haze", FILE, "haze needs its level"),
        ("file.py:haze_0", FILE, "haze's level is .*, 1 or more; got 0"),
        ("file.py:haze_3", "import nothing_of_this_name", "cannot be imported: ModuleNotFoundError: .*, at line 1"),
        ("file.py:haze_3", "def haze(images:", "cannot be imported: SyntaxError"),
        ("file.py:haze_3", "def haze():\n    return 0", r"this one takes \(\)"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(tmp_path, text, content, said):
    if content is not None:
        (tmp_path / "file.py").write_text(content)
    with pytest.raises(ValueError, match=said) as refused:
        parse_condition(f"{tmp_path}/{text}")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no_such_module:haze_3", "there is no module no_such_module, .*as in no_such_module.py:haze_3"),
        ("json:haze_3", "json has no function 'haze'"),
        ("my-file:haze_3", "is written module:name_level or file.py:name_level"),
    ],
)
def test_what_is_wrong_with_a_module_is_said_in_one_line(text, said):
    with pytest.raises(ValueError, match=said):
        parse_condition(text)


def test_two_files_cannot_give_one_name(tmp_path):
    for name in ("one.py", "two.py"):
        (tmp_path / name).write_text(FILE)
    parse_condition(f"{tmp_path}/one.py:haze_3")
    with pytest.raises(ValueError, match="another function is registered as 'haze' already"):
        parse_condition(f"{tmp_path}/two.py:haze_3")
