"""A training that was cut off anywhere goes on to the same bits; other settings are named; nothing is done twice."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from mechvit import HookedViT
from mechvit.data import Corruption
from mechvit.files import MARKER, replacing
from mechvit.saes import ImageStreams, SAEConfig, Sweep, TrainConfig, read_history, train_on
from mechvit.saes.training import checkpoints as checkpoints_module
from mechvit.saes.training import publishing as publishing_module
from mechvit.saes.training.checkpoints import changed
from mechvit.saes.training.learner import Learner

CONFIG = SAEConfig(
    architectures=("standard", "batchtopk", "jumprelu"),
    epochs=3,
    k=3,
    expansion_factor=4,
    lr=5e-3,
    train_batch_size_tokens=64,
    patience=1,
    images_per_batch=5,
    buffer_images=6,
    segment_images=8,
)
STEPS = 6  # an epoch of either stream


@pytest.fixture(scope="module")
def streams_of(make_streams, tiny_hf, tiny_processor, tiny_images):
    """Make image streams, which go on where they were, or streams without a state, which are read again."""

    def make(kind):
        if kind == "memory":
            return make_streams(batch=64, steps=STEPS)
        model, corruptions = HookedViT.from_hf(tiny_hf, tiny_processor), (Corruption("gaussian_noise", 2),)
        return ImageStreams(model, tiny_images, tiny_images.select(range(5)), corruptions=corruptions, config=CONFIG)

    return make


def said_of(kind):
    """Expect what is said at the end of a training on so few images that not every SAE's L0 came down to k."""
    return pytest.warns(UserWarning, match="SAE's L0 never came down") if kind == "images" else nullcontext()


@pytest.fixture(scope="module")
def whole(streams_of, tmp_path_factory):
    """Return what a training on streams of one kind leaves where nothing cuts it off."""

    @functools.cache
    def trained(kind):
        out = tmp_path_factory.mktemp(kind) / "whole"
        with said_of(kind):
            train(streams_of(kind), out)
        return everything(out)

    return trained


def train(streams, out, config=CONFIG, **options):
    options = {"checkpoint_every": 4, "log_every": 2, "progress": None} | options
    return train_on(streams, out, config=config, **options)


def everything(out: Path) -> dict[str, bytes]:
    """Every file and its bytes, but for the marker, which holds times."""
    paths = [path for path in sorted(out.rglob("*")) if path.is_file() and path.name != MARKER]
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


class Cut(Exception):
    """An exception in the place of a kill."""


def cut_after(monkeypatch, owner, name, calls):
    """Make a function raise after so many calls."""
    real, count = getattr(owner, name), [0]

    def fails(*args, **kwargs):
        count[0] += 1
        if count[0] > calls:
            raise Cut
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, fails)


@pytest.mark.long
@pytest.mark.parametrize(
    ("owner", "name", "calls"),
    [
        (Learner, "step", 0),
        (Learner, "step", 3 * 5 + 1),  # after a checkpoint, between two SAEs
        (Learner, "step", 3 * STEPS),  # just after the first epoch's checkpoint
        (Learner, "remember", 1),  # in a check
        (checkpoints_module, "save_file", 6),  # in a checkpoint
        (replacing.os, "replace", 14),  # before a checkpoint is renamed
        (publishing_module, "model_card", 1),  # in publishing
    ],
)
@pytest.mark.parametrize("kind", ["images", "memory"])
def test_goes_on_to_the_same_bits(streams_of, whole, tmp_path, monkeypatch, kind, owner, name, calls):
    for function in ("save", "load"):  # nothing is pickled
        monkeypatch.setattr(torch, function, None)
    streams, expected = streams_of(kind), whole(kind)
    steps = []
    with said_of(kind):
        with monkeypatch.context() as cut:
            cut_after(cut, owner, name, calls)
            with pytest.raises(Cut):
                train(streams, tmp_path / "cut")
        assert not (tmp_path / "cut").exists()
        torch.manual_seed(calls)  # the caller's random numbers change nothing
        step = Learner.step
        monkeypatch.setattr(Learner, "step", lambda self, batch: (steps.append(1), step(self, batch))[1])
        train(streams, tmp_path / "cut")
    assert {"history.parquet", "metrics.csv", "settings.json", "batchtopk/sae_weights.safetensors"} <= expected.keys()
    assert everything(tmp_path / "cut") == expected
    assert not (tmp_path / "cut.partial").exists()
    if calls:
        assert len(steps) < 3 * 3 * STEPS, "it must go on, not begin anew"


@pytest.mark.long
def test_many_cuts_in_a_row(streams_of, whole, tmp_path, monkeypatch):
    streams = streams_of("memory")
    for _ in range(30):
        with monkeypatch.context() as cut:
            cut_after(cut, Learner, "step", 3 * 4)  # as far as the next checkpoint
            try:
                train(streams, tmp_path / "cut", checkpoint_every=2)
                break
            except Cut:
                pass
    assert everything(tmp_path / "cut") == whole("memory")


def test_a_finished_training_is_not_done_again(make_streams, tmp_path, monkeypatch):
    streams = make_streams(batch=64, steps=STEPS)
    first = train(streams, tmp_path / "saes")
    before = everything(tmp_path / "saes")
    monkeypatch.setattr(Learner, "step", None)
    for overwrite in (False, True):
        assert train(streams, tmp_path / "saes", overwrite=overwrite, log_every=5) == first
    assert everything(tmp_path / "saes") == before


@pytest.mark.long
def test_other_settings_are_named_and_replaced_on_request_only(make_streams, tmp_path, monkeypatch):
    streams = make_streams(batch=64, steps=STEPS)
    train(streams, tmp_path / "saes")
    before = everything(tmp_path / "saes")
    other = replace(CONFIG, k=2, sweep=Sweep(lr=(5e-3, 1e-3)))
    with pytest.raises(ValueError, match=r"config\.k was 3 and is 2; config\.sweep\.lr was \[\] and is \[0\.005,"):
        train(streams, tmp_path / "saes", other)
    with monkeypatch.context() as cut:
        cut_after(cut, Learner, "step", 40)
        with pytest.raises(Cut):
            train(streams, tmp_path / "saes", other, overwrite=True)
    assert everything(tmp_path / "saes") == before, "the old SAEs stay until the new ones are whole"
    with pytest.raises(ValueError, match=r"with other settings: .*expansion_factor was 4 and is 8"):
        train(streams, tmp_path / "saes", replace(CONFIG, expansion_factor=8))
    found = train(streams, tmp_path / "saes", other, overwrite=True)
    assert set(found) == {path.name for path in (tmp_path / "saes").iterdir() if path.is_dir()}
    assert "batchtopk-lr0.001" in found


@pytest.mark.long
def test_asking_for_what_is_done_leaves_another_training_alone(make_streams, tmp_path, monkeypatch):
    streams, other = make_streams(batch=64, steps=STEPS), replace(CONFIG, k=2)
    train(streams, tmp_path / "saes")
    with monkeypatch.context() as cut:
        cut_after(cut, Learner, "step", 40)
        with pytest.raises(Cut):
            train(streams, tmp_path / "saes", other, overwrite=True)
    before = everything(tmp_path / "saes.partial")
    train(streams, tmp_path / "saes")
    assert everything(tmp_path / "saes.partial") == before
    train(streams, tmp_path / "alone", other)
    train(streams, tmp_path / "saes", other, overwrite=True)
    assert everything(tmp_path / "saes") == everything(tmp_path / "alone")


def test_other_activations_are_named(make_streams, tmp_path, monkeypatch):
    streams = make_streams(batch=64, steps=STEPS)
    train(streams, tmp_path / "saes")
    about = streams.about()
    monkeypatch.setattr(streams, "about", lambda: about | {"model_name": "elsewhere"})
    train(streams, tmp_path / "saes")  # the same model in another place
    monkeypatch.setattr(streams, "about", lambda: about | {"checkpoint_hash": "another"})
    with pytest.raises(ValueError, match=r'streams\.checkpoint_hash was "none" and is "another"'):
        train(streams, tmp_path / "saes")


def test_a_foreign_folder_is_never_touched(make_streams, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mother.txt").write_text("Dear")
    with pytest.raises(ValueError, match="is no earlier training of SAEs"):
        train(make_streams(batch=64, steps=STEPS), tmp_path / "letters", overwrite=True)
    assert everything(tmp_path / "letters") == {"mother.txt": b"Dear"}


def test_a_full_disk_loses_nothing(streams_of, whole, tmp_path, monkeypatch):
    """The checkpoint that cannot be written leaves the one before; the training goes on from that."""
    streams = streams_of("memory")

    def full(tensors, path, real=checkpoints_module.save_file, left=[8]):  # noqa: B006
        left[0] -= 1
        if left[0] < 0:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        real(tensors, path)

    with monkeypatch.context() as disk:
        disk.setattr(checkpoints_module, "save_file", full)
        with pytest.raises(
            OSError, match=r"the disk of .* is full while .*step-000000008-epoch-0001 was written. Make room"
        ):
            train(streams, tmp_path / "cut")
    assert [path.name for path in (tmp_path / "cut.partial").glob("step-*")] == ["step-000000006-epoch-0001"]
    train(streams, tmp_path / "cut")
    assert everything(tmp_path / "cut") == whole("memory")


def test_changed_names_every_difference():
    there = {"a": 1, "b": {"c": [1, 2], "d": "x"}, "gone": None}
    assert changed(there, json.loads(json.dumps(there))) == []
    assert changed(there, {"a": 1, "b": {"c": [1, 3], "d": "x"}, "new": 0.5}) == [
        "b.c was [1, 2] and is [1, 3]",
        "new was null and is 0.5",
    ]


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import torch
from memory_streams import MemoryStreams
from mechvit.saes import TrainConfig, train_on

def draw(n, d, seed, dtype):
    directions = torch.randn(24, d, generator=torch.Generator().manual_seed(9))
    generator = torch.Generator().manual_seed(seed)
    codes = torch.rand(n, 24, generator=generator)
    return 1 + (codes * (codes > 0.9)) @ directions + 0.1 * torch.randn(n, d, generator=generator)

config = TrainConfig(
    architectures=("standard", "batchtopk", "gated"), epochs=4, k=3, expansion_factor=4, train_batch_size_tokens=128
)
train_on(MemoryStreams(draw, {{"resid": 12}}, 128, 150), sys.argv[1], config=config, checkpoint_every=20, log_every=5)
"""


@pytest.mark.processes
@pytest.mark.slow
def test_killed_and_restarted_gives_the_same_bytes(tmp_path):
    """A process that gets SIGKILL twice, whatever it is doing, against one that runs through."""
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parents[1])))

    def start(out):
        return subprocess.Popen([sys.executable, str(script), str(out)], stderr=subprocess.DEVNULL)

    assert start(tmp_path / "whole").wait(timeout=300) == 0
    metrics = tmp_path / "cut.partial" / "metrics.csv"
    killed = 0
    for rows in (400, 1300):
        process = start(tmp_path / "cut")
        while process.poll() is None and not (metrics.is_file() and len(metrics.read_bytes().splitlines()) > rows):
            time.sleep(0.01)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.wait(timeout=60)
    assert killed == 2
    assert not (tmp_path / "cut").exists()
    assert start(tmp_path / "cut").wait(timeout=300) == 0
    assert everything(tmp_path / "whole") == everything(tmp_path / "cut")
    pd.testing.assert_frame_equal(read_history(tmp_path / "whole"), read_history(tmp_path / "cut"))


def test_refuses_batches_of_another_size(make_streams, tmp_path):
    config = TrainConfig(train_batch_size_tokens=32, k=3, expansion_factor=4)
    with pytest.raises(ValueError, match="train_batch_size_tokens = 32; got 64"):
        train(make_streams(batch=64, steps=STEPS), tmp_path / "saes", config)
