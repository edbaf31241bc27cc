"""Content of the explorer's page: the model's own patterns, chosen to fit a budget, and text that stays text."""

from __future__ import annotations

import base64
import copy
import json
import re
import zlib

import numpy as np
import pytest
import torch
from hf_zoo import ZOO
from PIL import Image

from mechvit import HookedViT
from mechvit.analysis import attention_rollout
from mechvit.data import corrupt, normalize
from mechvit.data.batches import ImageBatch, iter_batches
from mechvit.views import attention_explorer
from mechvit.visualization import pool_patterns
from mechvit.visualization.attention.pattern_packing import fitting_tokens

HOSTILE = "</script><script>alert(1)</script>\u2028<!--"


def unpack(spec: dict, picture: int, model: int, condition: int, row: int) -> np.ndarray:
    """The patterns as the page's script inflates them: weights [cell, query, key]."""
    panel, block = spec["pictures"][picture]["panels"][model][condition], spec["pictures"][picture]["block"]
    tokens = len(spec["prefix"]) + int(np.prod([-(-n // block) for n in spec["grid"]]))
    codes = np.frombuffer(zlib.decompress(base64.b64decode(panel["rows"][row])), np.uint8).reshape(-1, tokens, tokens)
    return (codes / 255) ** 2 * np.asarray(panel["scale"][row])[:, None, None]


def test_page_holds_the_models_own_patterns(tiny_model, tiny_hf, tiny_processor, tiny_images):
    tuned_hf = copy.deepcopy(tiny_hf)
    with torch.no_grad():
        tuned_hf.vit.layers[1].attention.q_proj.weight.mul_(2)
    tuned = HookedViT.from_hf(tuned_hf, image_processor=tiny_processor)
    keys = ("clean", "gaussian_blur_2", "gaussian_noise_4")
    explorer = attention_explorer({"base": tiny_model, "tuned": tuned}, tiny_images, keys[1:], limit=2, seed=3)
    spec = json.loads(json.dumps(explorer.spec()))
    assert (spec["conditions"], spec["prefix"]) == (["clean", "Gaussian blur 2", "Gaussian noise 4"], ["CLS"])
    batch = next(iter_batches(tiny_images.select([0, 1]), batch_size=2))
    assert [p["title"] for p in spec["pictures"]] == [tiny_images.features["label"].names[i] for i in batch.labels]
    for m, model in enumerate((tiny_model, tuned)):
        for c, key in enumerate(keys):
            pixels = normalize(corrupt(batch.images, key, batch.image_ids, seed=3), tiny_processor)
            _, cache = model.run_with_cache(pixels)
            for picture in (0, 1):
                for layer in range(3):
                    expected = cache["pattern", layer][picture].detach().numpy()
                    found = unpack(spec, picture, m, c, layer)
                    assert np.abs(found - expected).max() < 0.005 * expected.max()
                rolled = unpack(spec, picture, m, c, 3)
                assert rolled.shape == (6, 17, 17)
                expected = attention_rollout(model, pixels, fusion="max", discard_ratio=0.9)[picture].numpy()
                assert np.abs(rolled[5] - expected).max() < 0.005 * expected.max()
    assert spec["rollouts"][5] == "max, lowest 90% dropped"


def test_pictures_share_the_budget(tiny_model, tiny_images):
    """All are stored in blocks at least; the first ones in full, as far as the budget reaches."""

    def of(limit: int, **options: object) -> dict:
        return attention_explorer({"base": tiny_model}, tiny_images, limit=limit, max_tokens=5, **options).spec()

    full = of(4)
    assert [picture["block"] for picture in full["pictures"]] == [1] * 4
    sizes = [sum(len(row) for panel in picture["panels"][0] for row in panel["rows"]) for picture in full["pictures"]]
    tight = of(4, max_bytes=sizes[0] + sizes[1] // 2 + 3000)
    blocks = [picture["block"] for picture in tight["pictures"]]
    assert blocks[0] == 1
    assert blocks[-1] == 2
    stored = sum(len(row) for p in tight["pictures"] for panel in p["panels"][0] for row in panel["rows"])
    assert stored <= sizes[0] + sizes[1] // 2 + 3000
    pooled = pool_patterns(unpack(full, 3, 0, 1, 2), (4, 4), 1, 5)
    assert np.abs(unpack(tight, 3, 0, 1, 2) - pooled).max() < 0.01 * pooled.max()
    numbers = ("entropy", "distance", "prefix_mass")
    for key in numbers:  # always of all patches
        assert tight["pictures"][3]["panels"][0][1][key] == full["pictures"][3]["panels"][0][1][key]


def test_too_much_is_refused_before_the_models_run(tiny_model, tiny_images):
    tiny_model.add_hook("hook_embed", lambda value, hook: pytest.fail("ran"))
    with pytest.raises(
        ValueError, match=r"max_bytes must hold the pooled patterns, .* at least .* got 1,000: give fewer"
    ):
        attention_explorer({"base": tiny_model}, tiny_images, max_bytes=1000)


@pytest.mark.parametrize(("room", "tokens"), [(10_000, 50), (2_000, 26), (900, 17), (150, 5)])
def test_blocks_grow_until_the_budget_holds(room, tokens):
    assert fitting_tokens(1, (14, 14), 1, 50, room) == tokens


def test_layers_and_heads_are_chosen(tiny_model, tiny_images):
    spec = attention_explorer({"base": tiny_model}, tiny_images, (), layers=[2], heads=[1], limit=1, fusions=()).spec()
    assert (spec["layers"], spec["heads"], spec["conditions"]) == ((2,), (1,), ("clean",))
    assert spec["rollouts"] == ()
    panel = spec["pictures"][0]["panels"][0][0]
    assert (len(panel["rows"]), len(panel["entropy"]), len(panel["entropy"][0])) == (1, 1, 1)
    whole = attention_explorer({"base": tiny_model}, tiny_images, (), limit=1).spec()
    np.testing.assert_array_equal(unpack(spec, 0, 0, 0, 0)[0], unpack(whole, 0, 0, 0, 2)[1])


@pytest.mark.parametrize("name", ["siglip zero-shot", "ijepa classifier", "registers classifier", "dinov3 encoder"])
def test_families(name, tiny_processor, tiny_images):
    entry = ZOO[name]
    model = HookedViT.from_hf(entry(), tiny_processor, **entry.zero_shot_head())
    spec = attention_explorer({"one": model}, tiny_images, limit=1).spec()
    prefix = ["CLS"] * model.cfg.cls_token + [f"register {i + 1}" for i in range(model.cfg.n_registers)]
    assert list(spec["prefix"]) == prefix
    for layer in range(3):
        np.testing.assert_allclose(unpack(spec, 0, 0, 1, layer).sum(-1), 1, atol=0.06)


def test_images_of_any_kind(tiny_model, tiny_images):
    pixels = np.asarray(tiny_images[5]["pixels"], np.uint8)
    array = pixels.transpose(1, 2, 0)
    batch = ImageBatch(torch.from_numpy(pixels)[None].float() / 255, torch.tensor([2]), torch.tensor([7]))
    specs = [
        attention_explorer({"base": tiny_model}, images, limit=1).spec()
        for images in ({HOSTILE: array}, {HOSTILE: Image.fromarray(array)}, batch)
    ]
    assert [spec["pictures"][0]["title"] for spec in specs] == [HOSTILE, HOSTILE, "cat"]
    for spec in specs[1:]:
        assert spec["pictures"][0]["panels"] == specs[0]["pictures"][0]["panels"]


def test_hostile_text_stays_text(tiny_model, tiny_images):
    long = "x" * 10_000
    array = np.asarray(tiny_images[0]["pixels"], np.uint8).transpose(1, 2, 0)
    explorer = attention_explorer({HOSTILE: tiny_model}, {HOSTILE: array, long: array}, title=HOSTILE)
    html = explorer.html()
    assert "<script>alert" not in html
    assert html.count("<script") == html.count("</script>") == 7
    spec = json.loads(re.search(r'<div class="ex"><script type="application/json">(.*?)</script>', html, re.S)[1])
    assert [picture["title"] for picture in spec["pictures"]] == [HOSTILE, long]
    assert spec["models"] == [HOSTILE]
    frame = explorer._repr_html_()
    assert frame.startswith('<iframe srcdoc="&lt;!doctype html&gt;')
    assert frame.count('"') == 10


def test_explorer_refuses(tiny_model, tiny_processor, tiny_images):
    with pytest.raises(ValueError, match="models must map a title to a HookedViT"):
        attention_explorer({}, tiny_images)
    other = HookedViT.from_hf(ZOO["registers classifier"](), tiny_processor)
    with pytest.raises(ValueError, match=r"must share .*'base' and 'other' have n_prefix_tokens 1 and 4"):
        attention_explorer({"base": tiny_model, "other": other}, tiny_images)
    with pytest.raises(ValueError, match="limit must be at least 1 picture; got 0"):
        attention_explorer({"base": tiny_model}, tiny_images, limit=0)
    with pytest.raises(ValueError, match="there is no image to look at"):
        attention_explorer({"base": tiny_model}, {})
    with pytest.raises(ValueError, match="rain"):
        attention_explorer({"base": tiny_model}, tiny_images, ["rain_3"])
