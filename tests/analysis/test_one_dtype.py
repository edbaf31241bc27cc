"""Models that are compared compute in one dtype, and each on its own device."""

from __future__ import annotations

import copy

import pytest
import torch

from mechvit.analysis import corrupted_performance, linear_cka, patch_models, study, swap_weights
from mechvit.analysis.inputs import distinct, model_batches
from mechvit.data import Corruption
from mechvit.views import attention_explorer, patch_lens_view

BLUR = Corruption("gaussian_blur", 2)
COMPARISONS = {
    "study": lambda base, tuned, images: study({"base": base, "tuned": tuned}, images, [BLUR]),
    "performance": lambda base, tuned, images: corrupted_performance({"base": base, "tuned": tuned}, images, [BLUR]),
    "cka": lambda base, tuned, images: linear_cka(base, tuned, images, BLUR),
    "patching": lambda base, tuned, images: patch_models(base, tuned, images, BLUR),
    "swapping": lambda base, tuned, images: swap_weights(base, tuned, images, [BLUR]),
    "explorer": lambda base, tuned, images: attention_explorer({"base": base, "tuned": tuned}, images, limit=1),
    "lens": lambda base, tuned, images: patch_lens_view({"base": base, "tuned": tuned}, images, limit=1),
}


@pytest.mark.parametrize("name", COMPARISONS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_another_dtype_is_refused_with_the_way_out(name, dtype, tiny_model, tiny_images):
    other = copy.deepcopy(tiny_model).to(dtype)
    with pytest.raises(ValueError, match=r"dtype.*torch\.float32.*dtype=torch\.float32"):
        COMPARISONS[name](tiny_model, other, tiny_images)


def test_each_model_gets_a_batch_on_its_own_device(tiny_model, tiny_images):
    elsewhere = copy.deepcopy(tiny_model).to("meta")
    models = {"here": tiny_model, "too": copy.deepcopy(tiny_model), "there": elsewhere}
    batches = next(iter(model_batches(models, tiny_images, 4)))
    assert {name: batch.images.device.type for name, batch in batches.items()} == {
        "here": "cpu",
        "too": "cpu",
        "there": "meta",
    }
    assert batches["there"].labels.is_meta
    assert [names for _, names in distinct(batches)] == [["here", "too"], ["there"]]
