"""Small random models and images that every test shares."""

from __future__ import annotations

import gc
import os
import shutil
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

if not any(os.path.exists(f"/dev/{name}") for name in ("nvidia0", "dxg")):
    os.environ.setdefault(
        "TRITON_INTERPRET", "1"
    )  # kernels are interpreted where there is no GPU; asked at their import

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import longest
import pytest
import shape_checks

if TYPE_CHECKING:
    import datasets
    import transformers

    from mechvit import HookedViT


shape_checks.install()

ASKED = ("git", "file")
"""Commands by which libraries ask for their version, and for the machine that they run on."""
STARTED: list[str] = []
"""Processes that the test of the moment has started."""


def _note_a_start(event: str, args: tuple[Any, ...]) -> None:
    if event in ("os.fork", "os.forkpty", "os.posix_spawn"):
        STARTED.append(event)
    if event == "subprocess.Popen" and os.path.basename(str(args[1][0])) not in ASKED:
        STARTED.append(str(args[1])[:200])


sys.addaudithook(_note_a_start)

os.fsync = lambda descriptor: None  # a power cut is no test's matter, and waiting for disks takes a minute


gc.disable()  # nearly all that is made while tests are collected stays


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files: whole files go to whichever process is free."""
    place = {name: i for i, name in enumerate(longest.FILES)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


def pytest_collection_finish() -> None:
    """Make the garbage collector skip what all tests share: a full pass over all modules takes half a second."""
    gc.enable()
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()  # so that libraries take their objects back without complaint


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Draw the same random numbers in a test and in the fixtures that it builds, and have what a process says once be
    said in each test, whatever ran before it."""
    import torch

    torch.manual_seed(0)
    STARTED.clear()
    if (labels := sys.modules.get("mechvit.data.sources.labels")) is not None:
        labels._SAID.clear()
    if item.get_closest_marker("browser") and shutil.which("chromium") is None:
        pytest.skip("needs Debian's chromium on the PATH")


@pytest.fixture(autouse=True)
def starts_are_marked(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that starts another process and is marked neither `processes` nor `browser`."""
    yield
    marked = any(request.node.get_closest_marker(name) for name in ("processes", "browser"))
    assert marked or not STARTED, f"mark this test `processes`: it started {STARTED[0]}"


@pytest.fixture(scope="session")
def tiny_hf() -> transformers.ViTForImageClassification:
    """A Hugging Face ViT: 32 px, patch 8, width 32, 3 layers, 2 heads, 5 classes; every weight far from its init."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        id2label=dict(enumerate(["ant", "bee", "cat", "dog", "elk"])),
        label2id={name: i for i, name in enumerate(["ant", "bee", "cat", "dog", "elk"])},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ViTForImageClassification(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.25 if parameter.ndim > 1 else 0.5
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(scope="session")
def tiny_processor() -> transformers.ViTImageProcessorPil:
    """The image processor that goes with `tiny_hf`."""
    from transformers import ViTImageProcessorPil

    return ViTImageProcessorPil(size={"height": 32, "width": 32})


@pytest.fixture
def tiny_model(
    tiny_hf: transformers.ViTForImageClassification, tiny_processor: transformers.ViTImageProcessorPil
) -> HookedViT:
    """`tiny_hf` as a HookedViT with its image processor; made anew for every test."""
    from mechvit import HookedViT

    return HookedViT.from_hf(tiny_hf, image_processor=tiny_processor)


@pytest.fixture(scope="session")
def tiny_images(tiny_processor: transformers.ViTImageProcessorPil) -> datasets.Dataset:
    """24 prepared crops of real photographs (`pixels` uint8 [3, 32, 32]) in 5 classes."""
    from mechvit.data import load_images, prepare

    images = load_images("photos", "test", limit=24, image_size=32)
    names = images.features["label"].names
    renamed = images.map(lambda row: {"label": row["label"] % 5}, keep_in_memory=True, load_from_cache_file=False)
    assert len(names) == 19
    return prepare(renamed, tiny_processor)
