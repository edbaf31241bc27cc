"""Tensors given to a model follow it to its device; the meta device stands for another one where there is no GPU."""

from __future__ import annotations

import pytest
import torch
from family_runs import build, draw
from random_saes import RESID, make_sae
from zoo_options import daily

from mechvit import HookedViT
from mechvit.models import devices
from mechvit.models.devices import default_device, device_named, unused_gpu


@pytest.fixture
def elsewhere(make_hf) -> HookedViT:
    return HookedViT.from_hf(make_hf()).to("meta")


def test_pixels_and_labels_follow_the_model(elsewhere, pixels, labels):
    logits, loss = elsewhere(pixels, "both", labels=labels)
    assert (logits.device.type, logits.shape, loss.device.type) == ("meta", (4, 5), "meta")
    assert elsewhere(elsewhere.to_tokens(pixels)).is_meta
    assert elsewhere.run_with_cache(pixels, "loss", labels=labels, incl_bwd=True)[1]["hook_embed_grad"].is_meta


def test_residuals_follow_the_model(elsewhere, pixels):
    stream = torch.randn(4, 17, 32, dtype=torch.float64)
    assert elsewhere(stream, start_at_layer=1).is_meta
    found = elsewhere.unembed_residual(stream[:, elsewhere.head_tokens])
    assert (found.device.type, found.dtype) == ("meta", torch.float32)


def test_an_image_of_any_size_follows_the_model(elsewhere):
    assert elsewhere(torch.randn(1, 3, 40, 24), interpolate_pos_encoding=True).shape == (1, 5)


def test_a_compiled_cache_takes_pixels_of_another_device(elsewhere, pixels):
    cache = elsewhere.compile_cache(RESID, stop_at_layer=2, batch_size=4, backend="eager")
    assert cache(pixels)[RESID].is_meta
    assert cache(pixels[:1])[RESID].is_meta


@pytest.mark.parametrize("kind", ["standard", "jumprelu", "topk"])
def test_a_spliced_sae_follows_the_model(make_hf, pixels, kind):
    model, sae = HookedViT.from_hf(make_hf()), make_sae(kind)
    expected = model.run_with_saes(pixels, saes=[sae])
    model.to("meta")
    with model.saes([make_sae(kind)], use_error_term=True):
        assert model(pixels).is_meta
    model = HookedViT.from_hf(make_hf())
    model.add_sae(sae)
    assert torch.equal(model(pixels), expected)
    model.to("meta")
    assert model(pixels).is_meta
    assert sae.b_dec.is_meta


def test_an_sae_of_the_meta_device_is_refused(make_hf):
    with pytest.raises(ValueError, match="must hold weights"):
        HookedViT.from_hf(make_hf()).add_sae(make_sae().to("meta"))


@pytest.mark.parametrize("name", daily())
def test_every_family_takes_pixels_of_another_device_and_dtype(name):
    found = build(name).to("meta", torch.bfloat16)(draw())
    assert (found.device.type, found.dtype) == ("meta", torch.bfloat16)


@pytest.mark.parametrize("name", daily())
def test_a_hugging_face_model_lies_whole_where_it_came_from(name):
    """Buffers that are no weights (positions' indices, rotary frequencies) among the rest."""
    hf_model = build(name, torch.float32).to("meta").to_hf()
    places = {tensor.device.type for tensor in (*hf_model.parameters(), *hf_model.buffers())}
    assert places == {"meta"}


class Cuda:
    """The answers of torch.cuda on a machine with GPUs."""

    def __init__(self, monkeypatch, count: int, current: int = 0) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: current)


@pytest.mark.parametrize(
    ("name", "count", "current", "local_rank", "expected"),
    [
        (None, 0, 0, None, "cpu"),
        (None, 0, 0, "1", "cpu"),
        (None, 2, 1, None, "cuda:1"),
        (None, 4, 0, "3", "cuda:3"),
        ("cuda", 4, 0, "3", "cuda:3"),
        ("cuda", 2, 0, "3", "cuda:1"),
        ("cuda", 2, 1, None, "cuda:1"),
        ("cuda:0", 4, 1, "3", "cuda:0"),
        ("cpu", 4, 1, "3", "cpu"),
        (torch.device("cuda"), 4, 1, "2", "cuda:2"),
        ("cuda", 0, 0, None, "cuda"),
    ],
)
def test_device_of_a_process(monkeypatch, name, count, current, local_rank, expected):
    Cuda(monkeypatch, count, current)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if local_rank is not None:
        monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert device_named(name) == torch.device(expected)
    if name is None:
        assert default_device() == torch.device(expected)


def test_a_gpu_that_torch_cannot_use_is_explained(monkeypatch):
    Cuda(monkeypatch, 0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "_shows_gpu", lambda: False)
    assert unused_gpu() is None
    monkeypatch.setattr(devices, "_shows_gpu", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "was built without CUDA" in unused_gpu()
    monkeypatch.setattr(torch.version, "cuda", "13.0")

    def old_driver():
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040).\nPlease update.")

    monkeypatch.setattr(torch.cuda, "init", old_driver)
    said = unused_gpu()
    assert "CUDA 13.0) cannot use it (The NVIDIA driver on your system is too old (found version 11040))" in said
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert unused_gpu() == "CUDA_VISIBLE_DEVICES='' hides every GPU"
    Cuda(monkeypatch, 1)
    assert unused_gpu() is None
