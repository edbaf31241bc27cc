"""Devices of a training: on the one device that was asked for, or on several processes with the same batches."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mechvit.data import Corruption, load_images, prepare
from mechvit.finetuning import FinetuneConfig, ViTShape, finetune, train_from_scratch
from mechvit.finetuning.arguments import exact_convolutions, training_arguments

CONFIG = FinetuneConfig(learning_rate=1e-3, epochs=2, batch_size=16, patience=2)


@pytest.fixture
def gpus(monkeypatch):
    """Make torch report GPUs; the fixture is a function that sets their number."""

    def there_are(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
        monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())

    yield there_are
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.processes
@pytest.mark.parametrize(
    ("count", "asked", "expected"),
    [
        (4, "cuda:1", "cuda:1"),
        (4, "cuda", "cuda:0"),
        (4, None, "cuda:0"),
        (1, None, "cuda:0"),
        (4, torch.device("cuda", 3), "cuda:3"),
        (4, "cpu", "cpu"),
        (0, None, "cpu"),
    ],
)
def test_one_device_as_asked(gpus, tmp_path, count, asked, expected):
    """With several GPUs, transformers itself would take all: n_gpu = 4, and 64 images a step."""
    from accelerate import Accelerator

    gpus(count)
    arguments = training_arguments(CONFIG, tmp_path, asked, False)
    assert str(arguments.device) == expected
    assert (arguments.n_gpu, arguments.train_batch_size) == (int(expected != "cpu"), 16)
    assert arguments.parallel_mode.value == "not_parallel"
    assert str(Accelerator(cpu=arguments.use_cpu).device) == expected


def test_a_batch_that_processes_cannot_share_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ValueError, match="batch_size must be a multiple of the 3 processes, which share it; got 16"):
        training_arguments(CONFIG, tmp_path, "cpu", False)


def test_convolutions_are_exact_in_training_and_as_before_afterwards():
    conv = torch.backends.cudnn.conv
    before = conv.fp32_precision
    assert before != "ieee"
    with exact_convolutions():
        assert conv.fp32_precision == "ieee"
    assert conv.fp32_precision == before


WORKER = """
import sys
sys.path.insert(0, {tests!r})
from test_arguments import images_of, train
train(sys.argv[1], sys.argv[2], images_of())
"""


def images_of():
    """80 images to train on and 40 to check on, which two processes can share."""
    from transformers import ViTImageProcessorPil

    processor = ViTImageProcessorPil(size={"height": 32, "width": 32})
    return [
        prepare(load_images("photos", part, limit=n, image_size=32), processor)
        for part, n in (("finetune", 80), ("finetune_validation", 40))
    ]


def train(base, out, images):
    finetune(
        base, *images, out, corruption=Corruption("gaussian_noise", 2), config=CONFIG, device="cpu", progress=False
    )


@pytest.mark.processes
@pytest.mark.slow
def test_two_processes_train_the_same_batches(tmp_path):
    """One process's training is the reference; two may differ by the order of sums."""
    images = images_of()
    shape = ViTShape(image_size=32, d_model=32, n_layers=2, n_heads=2, d_mlp=64)
    base = train_from_scratch(shape, *images, tmp_path / "base", config=CONFIG, device="cpu", progress=False)
    train(base, tmp_path / "one", images)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER.format(tests=str(Path(__file__).parent)))
    done = subprocess.run(
        [*launch, str(worker), str(base), str(tmp_path / "two")],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    one, two, before = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two", "base"))
    moved = max(float((one[name] - before[name]).abs().max()) for name in one)
    apart = max(float((one[name] - two[name]).abs().max()) for name in one)
    assert apart < 1e-3 * moved, (apart, moved)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "one", "two", "worker.py"]
