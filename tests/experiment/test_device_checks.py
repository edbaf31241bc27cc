"""A command says where it computes, once, and refuses what cannot be before it loads anything."""

from __future__ import annotations

import pytest
import torch

from mechvit.experiment import device_checks
from mechvit.experiment.device_checks import check_device
from mechvit.models import devices


@pytest.fixture(autouse=True)
def unsaid():
    device_checks._say_device.cache_clear()


def test_the_device_is_said_once(capsys):
    for _ in range(2):
        check_device("cpu")
    assert capsys.readouterr().err == "device: cpu\n"


@pytest.mark.parametrize("device", [None, "cpu"])
def test_why_a_gpu_that_is_there_is_not_used_is_said(monkeypatch, capsys, device):
    monkeypatch.setattr(devices, "_shows_gpu", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    check_device(device)
    said = capsys.readouterr().err
    assert said.startswith("device: cpu (a GPU is there, and this torch (")
    assert said.endswith(") was built without CUDA: install a build with it)\n")


@pytest.mark.parametrize(("device", "shown"), [("abacus", "'abacus'"), ("meta", "'meta'"), ("cuda:77", "'cuda:77'")])
def test_what_cannot_be_is_refused(device, shown, capsys):
    with pytest.raises(ValueError, match=f"device {shown} cannot be used here"):
        check_device(device)
    assert capsys.readouterr().err == ""


def test_torchrun_is_refused_where_one_process_runs(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="runs in one process: start it without torchrun"):
        check_device("cpu")
    check_device("cpu", processes=True)
