"""Probes of models: no image is scored by a probe that saw it, and a model that carries one gives its logits."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from hf_zoo import ZOO

from mechvit import HookedViT
from mechvit.analysis import cross_fitted, evaluate, fit_probe, fit_shared_probe, with_probe
from mechvit.analysis.heads.folds import stratified_parts
from mechvit.analysis.heads.probe import head_inputs
from mechvit.analysis.inputs import pixel_values
from mechvit.data import ImageBatch


@pytest.fixture(scope="module")
def coloured() -> ImageBatch:
    """Sixty noisy images of three colours, which any encoder tells apart, with ids that are no places."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    colours = torch.tensor([[0.8, 0.2, 0.2], [0.2, 0.8, 0.2], [0.2, 0.2, 0.8]])
    images = colours[labels][:, :, None, None] + 0.1 * torch.randn(60, 3, 32, 32, generator=generator)
    return ImageBatch(images.clamp(0, 1), labels, 500 + torch.arange(60))


@pytest.fixture
def bare(tiny_processor) -> HookedViT:
    return HookedViT.from_hf(ZOO["dinov2 encoder, swiglu"](), tiny_processor)


def test_a_probe_of_a_bare_encoder_tells_classes_apart(bare, coloured):
    probe = fit_probe(bare, coloured)
    assert probe.pooling == "cls+mean"
    assert probe.performance().accuracy > 0.9
    assert probe.performance().ece() < 0.2
    assert probe.image_id.tolist() == coloured.image_ids.tolist()
    assert probe.fold.tolist() == stratified_parts(coloured.labels.numpy(), 5, 0).tolist()
    assert probe.id2label == {0: "0", 1: "1", 2: "2"}
    assert list(probe.head_frame(model="base")["n_fit"] + probe.head_frame()["n_chosen_on"]) == [48] * 5
    assert (probe.to_frame(model="base")["fold"].value_counts() == 12).all()
    assert repr(probe).startswith("Probe(60 images, 3 classes, 5 folds, reads cls+mean: accuracy")


def test_no_image_is_scored_by_a_probe_that_saw_it(bare, coloured):
    """Another picture in one image's place changes every probe but the one that scores it."""
    first = fit_probe(bare, coloured)
    images = coloured.images.clone()
    images[7] = torch.rand(3, 32, 32)
    second = fit_probe(bare, dataclasses.replace(coloured, images=images))
    own = int(first.fold[7])
    for k in range(5):
        assert torch.equal(first.heads[k].weight, second.heads[k].weight) == (k == own)
    same = (first.fold == own) & (torch.arange(60) != 7)
    assert torch.equal(first.logits[same], second.logits[same])


def test_labels_without_sense_are_not_learned(bare, coloured):
    labels = torch.randint(3, (60,), generator=torch.Generator().manual_seed(4))
    assert fit_probe(bare, dataclasses.replace(coloured, labels=labels)).performance().accuracy < 0.55


def test_a_model_that_carries_a_probe_gives_its_logits(bare, tiny_model, coloured):
    for model in (bare, tiny_model):
        probe = fit_probe(model, coloured, id2label={0: "red", 1: "green", 2: "blue"})
        for k in (0, 3):
            headed = with_probe(model, probe.heads[k])
            rows = (probe.fold == k).nonzero()[:, 0]
            part = coloured.take(rows)
            torch.testing.assert_close(
                headed(pixel_values(model, part)).double(), probe.logits[rows], rtol=1e-3, atol=1e-3
            )
            assert headed.cfg.id2label == {0: "red", 1: "green", 2: "blue"}
            assert evaluate(headed, part).prediction.tolist() == probe.performance().prediction[rows].tolist()


def test_the_same_folds_score_other_conditions(bare, coloured):
    probe = fit_probe(bare, coloured)
    again = cross_fitted(bare, probe, coloured)
    assert torch.equal(again.logits, probe.logits)
    blurred = cross_fitted(bare, probe, coloured.take(slice(5, 30)), "gaussian_noise_4")
    assert blurred.fold.tolist() == probe.fold[5:30].tolist()
    assert not torch.equal(blurred.logits, probe.logits[5:30])
    fitted_there = fit_probe(bare, coloured, "gaussian_noise_4")
    assert not torch.equal(fitted_there.heads[0].weight, probe.heads[0].weight)


def test_what_the_head_reads_is_streamed_in_order(tiny_model, coloured):
    whole = head_inputs(tiny_model, coloured, batch_size=60)
    parts = head_inputs(tiny_model, coloured, batch_size=7)
    torch.testing.assert_close(parts.features, whole.features)
    assert parts.image_id.tolist() == coloured.image_ids.tolist()
    _, cache = tiny_model.run_with_cache(pixel_values(tiny_model, coloured), names_filter="hook_head_input")
    torch.testing.assert_close(whole.features, cache["hook_head_input"])


def test_a_shared_probe_sees_each_image_once_for_each_model(tiny_model, coloured):
    other = copy.deepcopy(tiny_model)
    with torch.no_grad():
        for parameter in other.blocks.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    head = fit_shared_probe({"base": tiny_model, "tuned": other}, coloured)
    assert head.n_fit + head.n_chosen_on == 120
    assert head.n_chosen_on == 30
    for model in (tiny_model, other):
        assert evaluate(with_probe(model, head), coloured).accuracy > 0.8
    twice = fit_shared_probe({"a": tiny_model, "b": tiny_model}, coloured)
    alone = fit_shared_probe({"a": tiny_model}, coloured)
    np.testing.assert_allclose(twice.weight, alone.weight, atol=0.2 * float(alone.weight.abs().max()))


def test_names_of_the_images_are_the_classes(tiny_model, tiny_images):
    probe = fit_probe(tiny_model, tiny_images, folds=2)
    assert probe.id2label == tiny_model.cfg.id2label or set(probe.id2label) >= set(range(5))


def test_what_gives_no_probe_is_refused(tiny_model, bare, coloured):
    with pytest.raises(ValueError, match="labels must be classes of the probe, 0 to 2; got \\[-1\\]"):
        fit_probe(bare, dataclasses.replace(coloured, labels=coloured.labels - 1), id2label=dict(enumerate("abc")))
    with pytest.raises(ValueError, match="at least 10 images; got 6"):
        fit_probe(bare, coloured.take(slice(0, 6)))
    with pytest.raises(ValueError, match="folds"):
        fit_probe(bare, coloured, folds=1)
    with pytest.raises(ValueError, match="read the same tokens; they read base: cls, 32 values; tuned: cls\\+mean, 64"):
        fit_shared_probe({"base": tiny_model, "tuned": bare}, coloured)
    with pytest.raises(ValueError, match="at least one model"):
        fit_shared_probe({}, coloured)
