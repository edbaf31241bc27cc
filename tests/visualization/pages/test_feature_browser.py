"""The feature browser's file: it holds the very numbers, shows untrusted names as text, and stays small."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from feature_pages import HOSTILE, LONG, NAMES, SMALL, hostile_model, large_images, make_browser
from PIL import Image
from random_saes import make_sae

from mechvit.saes.dashboard.results import Browsing
from mechvit.views import feature_browser


@pytest.fixture(scope="module")
def browser(tiny_hf, tiny_processor, tiny_images):
    return make_browser(tiny_hf, tiny_processor, tiny_images)


@pytest.fixture(scope="module")
def spec(browser):
    return json.loads(json.dumps(browser.spec(), allow_nan=False))


def unpacked(text: str, dtype: str = "<f4") -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype)


def test_the_table_holds_every_latent(spec, browser):
    for shown, (name, sae) in zip(spec["saes"], browser.found.saes.items(), strict=True):
        assert shown["name"] == name
        table, features = shown["table"], sae.features
        for key, values in {
            "rate": features.firing_rate,
            "mean": features.mean_activation,
            "max": features.max_activation,
            "purity": features.mass_label_purity,
            "selectivity": features.selectivity,
        }.items():
            np.testing.assert_array_equal(unpacked(table[key]), values.float())
        np.testing.assert_array_equal(unpacked(table["label"], "<i4"), features.mass_label)
        for own, values in zip(table["sensitivity"], sae.sensitivity, strict=True):
            np.testing.assert_array_equal(unpacked(own), values.float())


def test_pages_hold_what_was_found(spec, browser):
    found = browser.found
    for shown, (name, sae) in zip(spec["saes"], found.saes.items(), strict=True):
        shape = (len(sae.chosen), len(found.conditions), len(found.example_kinds), 17)
        maps = unpacked(shown["maps"], "u1").reshape(shape)
        for i, page in enumerate(shown["pages"]):
            j = int(sae.chosen[i])
            assert page["id"] == j
            np.testing.assert_allclose(
                maps[i] / 255 * page["top"],
                sae.maps[:, i].nan_to_num(0),  # what has no example is not drawn
                atol=max(page["top"], 1e-9) * (1 / 255 + 1e-3),
            )
            np.testing.assert_array_equal(maps[i] > 0, sae.maps[:, i] > 0)
            for example, row, score in zip(page["examples"], sae.example_row[i], sae.example_score[i], strict=True):
                if row < 0:
                    assert example is None
                    continue
                image = spec["images"][example[0]]
                assert image["id"] == int(found.image_ids[row])
                assert image["label"] == int(found.labels[row])
                assert example[1] == pytest.approx(float(score), rel=1e-3)
            assert [other for other, _ in page["nearest"]] == sae.nearest[i].tolist()
            shares = dict(page["labels"])
            for label, share in enumerate(sae.label_share[i].tolist()):
                assert shares[label] == pytest.approx(share, rel=1e-3, abs=1e-9)
            assert page["ablation"]["logit"] == pytest.approx(float(sae.ablation.label_logit[i]), rel=1e-3)
            for other, match in zip(found.saes, page["matches"], strict=True):
                if other == name:
                    assert match is None
                else:
                    assert match[0] == int(found.matches[name, other].match[j])
            for key, own in zip(found.corruptions, page["corrupted"], strict=True):
                moved = sae.features.sensitivity[key]
                assert own["mean"] == pytest.approx(float(moved.clean_mean[j] + moved.mean_difference[j]), rel=1e-3)
        strongest = unpacked(shown["strongest"]["feature"], "<i4").reshape(sae.strongest.feature.shape)
        np.testing.assert_array_equal(strongest, sae.strongest.feature)


def test_each_picture_is_stored_once(spec, browser):
    text = browser.html()
    rows = {row for row, _ in browser.found.pictures}
    assert len(spec["images"]) == len(rows)
    assert len(re.findall(r"data:image/webp;base64", text)) == len(browser.found.pictures)
    picture = spec["images"][0]["picture"].removeprefix("data:image/webp;base64,")
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB"), float)
    pixels = browser.found.pictures[min(rows), "clean"].numpy().transpose(1, 2, 0)
    assert np.abs(shown - pixels).mean() < 12  # lossy


def test_names_are_text(browser):
    class Scripts(HTMLParser):
        found = 0

        def handle_starttag(self, tag, attrs):
            self.found += tag == "script"

    text = browser.html()
    reader = Scripts()
    reader.feed(text)
    assert reader.found == text.count("<script") == text.count("</script>")
    harmless = dataclasses.replace(browser, title="a title").html()
    assert reader.found == harmless.count("<script")
    assert "<script>alert" not in text
    assert f"<h1>{html.escape(HOSTILE, quote=False)}"[:30] in text
    assert LONG in text
    frame = browser._repr_html_()
    assert frame.startswith("<iframe srcdoc=")
    assert "<script" not in frame
    assert html.unescape(frame.split('srcdoc="')[1].split('" width')[0]) == text


def test_saved_whole(browser, tmp_path):
    path = browser.save(tmp_path / "new" / "features.html")
    assert path.read_text(encoding="utf-8").startswith(browser.html() + "<!-- mechvit ")
    assert [file.name for file in path.parent.iterdir()] == ["features.html"]


def test_no_corruption_is_needed(tiny_hf, tiny_processor, tiny_images):
    model = hostile_model(tiny_hf, tiny_processor)
    browser = feature_browser({"one": (model, make_sae(hook_tokens="patches"))}, tiny_images, settings=SMALL)
    spec = browser.spec()
    assert spec["corruptions"] == []
    assert [condition["key"] for condition in spec["conditions"]] == ["clean"]
    assert spec["classes"][: len(NAMES)] == list(NAMES)
    assert spec["saes"][0]["table"]["sensitivity"] == []
    assert browser.html()


@pytest.mark.slow
def test_budget_at_224_pixels(tmp_path):
    """20 images to ask, 200 latents, hundreds of different noisy pictures: the worst case stays below the budget."""
    saes, images = large_images()
    settings = Browsing(n_features=200, n_images=20, batch_size=16)
    browser = feature_browser(saes, images, ["gaussian_blur_4", "gaussian_noise_4"], settings=settings)
    found = browser.found
    assert len(found.saes["one"].chosen) == 200
    assert found.saes["one"].maps.shape[-1] == 197
    size = browser.save(tmp_path / "features.html").stat().st_size
    print(f"{size / 1e6:.1f} MB, {len(found.pictures)} pictures")
    assert size < 25e6
    there = found.saes["one"].example_row >= 0
    assert torch.equal(found.saes["one"].maps.isfinite().all(-1).all(0), there)
