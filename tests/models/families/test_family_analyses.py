"""The analyses and the scripts' loading run on every family that has a classifier, and read its own head."""

from __future__ import annotations

import pytest
import torch
from hf_zoo import ZOO
from zoo_options import daily

from mechvit import HookedViT
from mechvit.analysis import attention_shift, evaluate, logit_lens
from mechvit.data import load_images, normalize
from mechvit.data.batches import iter_batches
from mechvit.experiment.inputs import prepared_images

LENS = [name for name, entry in ZOO.items() if entry.zero_shot or "classifier" in name or "teacher" in name]


@pytest.fixture(scope="module")
def images():
    return load_images("photos", "test", limit=5, image_size=32)  # one of each of the first five classes


@pytest.mark.parametrize("name", daily(LENS))
def test_analyses_read_the_familys_own_head(name, images, tiny_processor):
    entry = ZOO[name]
    model = HookedViT.from_hf(entry(), tiny_processor, **entry.zero_shot_head())
    assert model.head is not None
    (batch,) = iter_batches(images, tiny_processor)
    with torch.no_grad():
        logits = model(normalize(batch.images, tiny_processor))
    lens = logit_lens(model, images)
    expected = logits.softmax(-1).gather(1, batch.labels[:, None])[:, 0]
    torch.testing.assert_close(lens.probability[:, -1], expected, rtol=0, atol=1e-5)
    assert (lens.probability[:, 0] - expected).abs().max() > 1e-4, "another layer is another distribution"
    performance = evaluate(model, images)
    assert float(performance.accuracy) == pytest.approx((logits.argmax(-1) == batch.labels).float().mean().item())
    shift = attention_shift(model, images, "gaussian_blur_4")
    assert shift.entropy_difference.shape == (5, model.cfg.n_layers)
    assert shift.entropy_difference.abs().max() > 1e-4


@pytest.mark.parametrize("name", ["clip classifier", "siglip classifier", "siglip2 classifier", "dinov2 classifier"])
def test_scripts_find_the_input_size(name, tiny_processor):
    hf_config = ZOO[name]().config
    hf_config.id2label = dict(enumerate(load_images("photos", "test", limit=1).features["label"].names))
    images = prepared_images("photos", "test", hf_config, tiny_processor, limit=3, seed=0)
    assert images.features["pixels"].shape == (3, 32, 32)
