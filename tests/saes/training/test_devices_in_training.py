"""On which device an SAE's training draws, keeps random numbers, and meets other processes."""

from __future__ import annotations

from datetime import timedelta

import pytest
import torch
from sae_lens import TrainingSAE

from mechvit.saes import ARCHITECTURES, TrainConfig, train_on
from mechvit.saes import distributed as parallel
from mechvit.saes.training.architectures import make_sae
from mechvit.saes.training.checkpoints import random_state
from mechvit.saes.training.initialisation import start_from_data
from mechvit.saes.training.train import seed_generators

CONFIG = TrainConfig(architectures=ARCHITECTURES, epochs=1, k=3, expansion_factor=4, train_batch_size_tokens=128)


@pytest.mark.parametrize("spec", CONFIG.saes({"blocks.1.hook_resid_post": 16}), ids=lambda spec: spec.name)
@pytest.mark.parametrize("fast", [True, False])
def test_weights_are_drawn_on_the_cpu(spec, fast, monkeypatch):
    """The meta device stands for a GPU; what it draws would have no numbers."""
    drawn = []
    real = TrainingSAE.initialize_weights
    monkeypatch.setattr(
        TrainingSAE, "initialize_weights", lambda self: (real(self), drawn.append(self.W_dec.device.type))
    )
    config = TrainConfig(**{**vars(CONFIG), "fast": fast})
    sae = make_sae(spec, 16, config, 0, torch.device("meta"))
    assert drawn == ["cpu"]
    assert {tensor.device.type for tensor in (*sae.parameters(), *sae.buffers())} == {"meta"}
    assert (sae.device.type, sae.cfg.device) == ("meta", "meta")
    torch.manual_seed(3)
    first = make_sae(spec, 16, config, 0, torch.device("cpu"))
    torch.manual_seed(3)
    assert torch.equal(first.W_dec, make_sae(spec, 16, config, 0, torch.device("cpu")).W_dec)


def test_the_tokens_to_start_from_are_drawn_on_the_cpu(monkeypatch, make_streams, tmp_path):
    asked = []
    real = torch.randint
    monkeypatch.setattr(torch, "randint", lambda *args, **kwargs: (asked.append(kwargs), real(*args, **kwargs))[1])
    train_on(
        make_streams(steps=2),
        tmp_path / "saes",
        config=TrainConfig(**{**vars(CONFIG), "decoder_init": "data"}),
        progress=None,
    )
    assert len(asked) == len(ARCHITECTURES)
    assert asked == [{}] * len(ARCHITECTURES)
    assert start_from_data.__module__ == "mechvit.saes.training.initialisation"


def test_random_numbers_of_the_gpu_in_use_are_kept(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: (asked.append(device), torch.zeros(16))[1])
    assert set(random_state(torch.device("cpu"))) == {"cpu"}
    assert set(random_state(torch.device("cuda", 1))) == {"cpu", "cuda"}
    assert asked == [torch.device("cuda", 1)]


def test_only_the_gpu_in_use_is_seeded(monkeypatch):
    seeded, here = [], []

    class Here:
        def __init__(self, device):
            self.device = device

        def __enter__(self):
            here.append(self.device)

        def __exit__(self, *raised):
            here.pop()

    monkeypatch.setattr(torch.cuda, "device", Here)
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: seeded.append((seed, *here)))
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("all GPUs are seeded"))
    seed_generators(7, torch.device("cpu"))
    assert (seeded, torch.initial_seed()) == ([], 7)
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(7)))
    seed_generators(8, torch.device("cuda", 1))
    assert seeded == [(8, torch.device("cuda", 1))]


@pytest.fixture
def torchrun(monkeypatch):
    """Two processes of torchrun on a machine of four GPUs, this one the second; gives how the group was made."""
    made = []
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: made.append(str(device)))
    monkeypatch.setattr(
        parallel.dist,
        "init_process_group",
        lambda backend, timeout: made.append((backend, timeout > timedelta(days=1))),
    )
    monkeypatch.setattr(parallel.dist, "destroy_process_group", lambda: None)
    return made


@pytest.mark.parametrize("asked", ["cuda", None])
def test_every_process_has_its_own_gpu_and_patience(torchrun, asked):
    with parallel.processes(asked) as device:
        assert device == "cuda:1"
    assert torchrun == ["cuda:1", ("nccl", True)]


def test_processes_on_the_cpu(torchrun):
    with parallel.processes("cpu") as device:
        assert device == "cpu"
    assert torchrun == [("gloo", True)]


def test_processes_that_would_share_a_gpu_are_refused(torchrun, monkeypatch):
    with pytest.raises(
        ValueError, match="device cuda:0 would put all 2 processes on one GPU: use cuda, which is one for each"
    ):
        parallel.processes("cuda:0").__enter__()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="a GPU for each of the 2 processes; 1 are visible"):
        parallel.processes("cuda").__enter__()
    assert torchrun == []
