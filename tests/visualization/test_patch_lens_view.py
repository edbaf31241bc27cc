"""The patch lens's page: the lens's own numbers, in a real browser, offline."""

from __future__ import annotations

import base64
import copy
import dataclasses
import json
import re
import zlib

import numpy as np
import pandas as pd
import pytest
import torch
from browsing import FRAME, SLACK, hover_cost, needs_chromium, until
from hf_zoo import ZOO
from random_maps import random_lens

from mechvit import HookedViT
from mechvit.analysis import class_trajectories, patch_lens
from mechvit.data import corrupt, normalize
from mechvit.data.batches import iter_batches
from mechvit.views import patch_lens_view
from mechvit.visualization import figures
from mechvit.visualization.style import BASE

HOSTILE = "</script><script>alert(1)</script>\u2028<b>"
KEYS = ("clean", "gaussian_blur_2", "gaussian_noise_4")


@pytest.fixture(scope="module")
def models(tiny_hf, tiny_processor) -> dict[str, HookedViT]:
    tuned = copy.deepcopy(tiny_hf)
    with torch.no_grad():
        tuned.classifier.weight.add_(0.4 * torch.randn(5, 32, generator=torch.Generator().manual_seed(6)))
    return {"base": HookedViT.from_hf(tiny_hf, tiny_processor), "tuned": HookedViT.from_hf(tuned, tiny_processor)}


@pytest.fixture(scope="module")
def view(models, tiny_images):
    return patch_lens_view(models, tiny_images, KEYS[1:], limit=2, top=3, seed=3)


@pytest.fixture(scope="module")
def lenses(models, tiny_images, tiny_processor) -> list[list[tuple[np.ndarray, np.ndarray]]]:
    """[model][condition]: class ids and probabilities [picture, layer, patch, rank]."""
    batch = next(iter_batches(tiny_images.select([0, 1]), batch_size=2))
    pixels = [normalize(corrupt(batch.images, key, batch.image_ids, seed=3), tiny_processor) for key in KEYS]
    found = [[patch_lens(model, part, top=3) for part in pixels] for model in models.values()]
    return [[(lens.classes.numpy(), lens.probability.numpy()) for lens in line] for line in found]


def test_page_holds_the_lens(view, lenses):
    spec = json.loads(json.dumps(view.spec()))
    assert (spec["models"], spec["conditions"]) == (["base", "tuned"], ["clean", "Gaussian blur 2", "Gaussian noise 4"])
    for p, picture in enumerate(spec["pictures"]):
        for m, line in enumerate(picture["panels"]):
            for c, panel in enumerate(line):
                parts = (zlib.decompress(base64.b64decode(panel[name])) for name in ("classes", "probability"))
                places, codes = (
                    np.frombuffer(part, kind).reshape(4, 16, 3) for part, kind in zip(parts, ("<u2", "u1"), strict=True)
                )
                names = np.asarray(spec["names"])[places]
                assert (names == np.asarray(["ant", "bee", "cat", "dog", "elk"])[lenses[m][c][0][p]]).all()
                np.testing.assert_allclose((codes / 255) ** 2, lenses[m][c][1][p], atol=0.004)


def test_trajectories_follow_the_label_and_the_predictions(view, models, tiny_images, tiny_processor):
    batch = next(iter_batches(tiny_images.select([0]), batch_size=1))
    frame = view.pictures[0].trajectories
    label = int(batch.labels)
    names = frame["class"].unique().tolist()
    assert names[0] == f"{['ant', 'bee', 'cat', 'dog', 'elk'][label]} (label)"
    assert len(names) == 3
    pixels = normalize(corrupt(batch.images, KEYS[2], batch.image_ids, seed=3), tiny_processor)
    expected = class_trajectories(models["tuned"], pixels, [label]).probability[0, :, 0].numpy()
    part = frame.query("model == 'tuned' and condition == 'Gaussian noise 4'")
    np.testing.assert_allclose(part[part["class"] == names[0]]["probability"], expected, rtol=1e-6)


def test_figure_draws_a_line_a_model_class_and_condition():
    rows = [
        (model, condition, layer, name, 0.1 * layer + 0.01 * len(name))
        for model in ("base", HOSTILE)
        for condition in ("clean", "noise")
        for layer in (2, 0, 1)
        for name in ("cat", "y" * 10_000)
    ]
    frame = pd.DataFrame(rows, columns=["model", "condition", "layer", "class", "probability"])
    figure = figures.image_trajectories(frame)
    assert len(figure.data) == 8
    first = figure.data[0]
    assert (list(first.x), first.line.color, first.line.dash, first.name) == ([0, 1, 2], BASE, "solid", "base: cat")
    np.testing.assert_allclose(first.y, [0.03, 0.13, 0.23])
    assert figure.data[1].line.dash == "dash"
    assert sum(trace.showlegend for trace in figure.data) == 4
    assert len(figure.data[1].name) < 100
    assert "<script" not in figure.to_json().replace("\\u003c", "<")
    with pytest.raises(ValueError, match="trajectories must have the columns"):
        figures.image_trajectories(frame.drop(columns="class"))


def test_hostile_text_stays_text(tiny_hf, tiny_processor, tiny_images):
    hf = copy.deepcopy(tiny_hf)
    hf.config.id2label = {0: HOSTILE, 1: "z" * 10_000, 2: "cat", 3: "dog", 4: "elk"}
    model = HookedViT.from_hf(hf, tiny_processor)
    array = np.asarray(tiny_images[0]["pixels"], np.uint8).transpose(1, 2, 0)
    html = patch_lens_view({HOSTILE: model}, {HOSTILE: array}, top=5, title=HOSTILE).html()
    assert "<script>alert" not in html
    spec = json.loads(re.search(r'<div class="ex pl"><script type="application/json">(.*?)</script>', html, re.S)[1])
    assert set(spec["names"]) == set(hf.config.id2label.values())


def test_view_refuses(tiny_model, tiny_processor, tiny_images):
    bare = HookedViT.from_hf(ZOO["dinov3 encoder"](), tiny_processor)
    with pytest.raises(ValueError, match=r"this DINOv3ViTModel has none: load a classifier"):
        patch_lens_view({"bare": bare}, tiny_images)
    renamed = copy.deepcopy(tiny_model)
    renamed.cfg = dataclasses.replace(renamed.cfg, id2label=dict(enumerate("vwxyz")))
    with pytest.raises(ValueError, match="must have the same classes; 'renamed' has others"):
        patch_lens_view({"base": tiny_model, "renamed": renamed}, tiny_images)
    with pytest.raises(ValueError, match="top and followed must be at least 1; got 0 and 3"):
        patch_lens_view({"base": tiny_model}, tiny_images, top=0)


@pytest.mark.parametrize("name", ["siglip zero-shot", "dinov2 classifier", "ijepa classifier", "deit with teacher"])
def test_families(name, tiny_processor, tiny_images):
    entry = ZOO[name]
    model = HookedViT.from_hf(entry(), tiny_processor, **entry.zero_shot_head())
    spec = patch_lens_view({"one": model}, tiny_images, limit=1).spec()
    assert (spec["layers"], spec["top"], spec["grid"]) == (4, 5, (4, 4))
    assert len(spec["names"]) == 5


def drawn(page, **wanted: object) -> None:
    """Wait until the panels show this state (picture, corruption, layer, focus, patch, locked)."""
    until(
        page,
        """(wanted) => {
             const names = ["picture", "corruption", "layer", "focus", "patch", "locked"];
             const text = document.querySelector(".pl").dataset.drawn;
             return text && Object.entries(wanted).every(([k, v]) => text.split(" ")[names.indexOf(k)] === String(v));
           }""",
        wanted,
    )


@pytest.fixture(scope="module")
def saved(view, tmp_path_factory):
    return view.save(tmp_path_factory.mktemp("lens") / "lens.html")


@pytest.fixture
def page(visit_once, saved):
    """The view's page as it is when it opens."""
    page = visit_once(saved)
    until(page, "() => document.querySelector('.pl')?.dataset.drawn")
    page.mouse.move(0, 0)
    page.locator(".ex-strip input").first.check(force=True)
    page.locator(".cv-choice", has_text="Corruption").locator("input").first.check(force=True)
    page.get_by_label("Colour shows").select_option(index=0)
    page.get_by_label("Layer").fill("3")
    drawn(page, picture=0, corruption=1, layer=3, focus=0, locked=0)
    return page


def move_to(page, panel: int, row: int, column: int) -> None:
    box = page.locator(".ex-stage").nth(panel).bounding_box()
    page.mouse.move(box["x"] + box["width"] * (column + 0.5) / 4, box["y"] + box["height"] * (row + 0.5) / 4)


def listed(page, panel: int) -> list[list[str]]:
    """The lines under a panel: class and number."""
    items = page.locator(".pl-list").nth(panel).locator("li").all()
    return [[item.locator("span").inner_text(), item.locator("b").inner_text()] for item in items]


def canvas(page, panel: int) -> np.ndarray:
    """[patch, rgba] as drawn."""
    values = page.evaluate(
        """(panel) => {
             const canvas = document.querySelectorAll(".ex-stage canvas")[panel];
             return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];
           }""",
        panel,
    )
    return np.asarray(values, np.float64).reshape(-1, 4)


NAMES = np.asarray(["ant", "bee", "cat", "dog", "elk"])


@needs_chromium
def test_a_patch_reads_its_classes_in_every_panel(page, lenses):
    move_to(page, 3, 2, 1)
    drawn(page, patch=9)
    for panel, (model, condition) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        classes, probability = (part[0, 3, 9] for part in lenses[model][condition])
        lines = listed(page, panel)
        assert [name for name, _ in lines] == NAMES[classes].tolist()
        np.testing.assert_allclose([float(p.replace("−", "-")) for _, p in lines], probability, atol=0.004)
    assert (
        page.locator(".ex-status").inner_text() == "After layer 2 (lens layer 3); strongest classes of row 2, column 1"
    )
    page.mouse.down()
    page.mouse.up()
    drawn(page, patch=9, locked=1)
    move_to(page, 0, 0, 0)
    page.wait_for_timeout(100)
    drawn(page, patch=9, locked=1)
    page.locator(".ex-stage").first.press("Escape")
    drawn(page, locked=0)


@needs_chromium
def test_layer_corruption_and_picture(page, lenses):
    page.get_by_label("Layer").fill("0")
    drawn(page, layer=0)
    assert page.locator(".ex-status").inner_text().startswith("Embedding (lens layer 0)")
    page.locator(".cv-choice", has_text="Corruption").get_by_label("Gaussian noise 4").check(force=True)
    drawn(page, corruption=2)
    page.locator(".ex-strip input").nth(1).check(force=True)
    drawn(page, picture=1)
    page.get_by_label("Layer").press("ArrowRight")
    drawn(page, layer=1)
    winners = NAMES[lenses[1][2][0][1, 1, :, 0]].tolist()
    assert {name: int(n.split()[0]) for name, n in listed(page, 3)} == {
        name: winners.count(name) for name in set(winners)
    }
    alpha = 255 * 0.8 * (0.25 + 0.75 * lenses[1][2][1][1, 1, :, 0])
    np.testing.assert_allclose(canvas(page, 3)[:, 3], alpha, atol=2.5)
    colours = {winner: tuple(rgb) for winner, rgb in zip(winners, canvas(page, 3)[:, :3].round(-1), strict=True)}
    assert len(set(colours.values())) == len(set(winners))  # one colour a class


@needs_chromium
def test_colour_shows_one_class(page, lenses):
    """The probability of one class: the more, the more opaque."""
    options = page.get_by_label("Colour shows").locator("option").all_inner_texts()
    name = options[1].removeprefix("probability of ")
    page.get_by_label("Colour shows").select_option(index=1)
    drawn(page, focus=1)
    classes, probability = (part[0, 3] for part in lenses[0][0])
    share = (probability * (NAMES[classes] == name)).sum(-1)
    np.testing.assert_allclose(canvas(page, 0)[:, 3], 255 * 0.8 * (0.35 + 0.65 * np.sqrt(share)), atol=3)


@needs_chromium
def test_trajectories_are_drawn_in_both_themes(page, view):
    until(page, "() => document.querySelector('.pl-plot')._fullData?.length === 18")
    frame = view.pictures[0].trajectories
    y = page.evaluate("[...document.querySelector('.pl-plot')._fullData[0].y]")
    part = frame.query("model == 'base' and condition == 'clean'")
    np.testing.assert_allclose(y, part[part["class"] == frame["class"].iloc[0]]["probability"], rtol=1e-6)
    page.get_by_role("button", name="Dark theme").click()
    until(page, "() => document.querySelector('.pl-plot').layout.paper_bgcolor === '#17191d'")


@needs_chromium
def test_hostile_classes_are_text_on_the_screen(visit, tmp_path, tiny_hf, tiny_processor, tiny_images):
    hf = copy.deepcopy(tiny_hf)
    hf.config.id2label = {0: HOSTILE, 1: "z" * 10_000, 2: f"{HOSTILE} two", 3: f"{HOSTILE} three", 4: "<img src=x>"}
    model = HookedViT.from_hf(hf, tiny_processor)
    page = visit(patch_lens_view({HOSTILE: model}, tiny_images, limit=1).save(tmp_path / "lens.html"))
    drawn(page, picture=0)
    move_to(page, 0, 1, 1)
    drawn(page, patch=5)
    shown = page.locator(".pl-list").first.locator("span").all_text_contents()
    assert set(shown) == set(hf.config.id2label.values())
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    until(page, "() => document.querySelector('.pl-plot .legendtext')")
    assert "<script>" in page.locator(".pl-plot .legendtext").first.text_content()


@needs_chromium
@pytest.mark.slow
def test_full_size_page_is_small_and_quick(visit, tmp_path):
    """8 pictures of 196 patches, 13 layers, a thousand classes, clean and corrupted in two models."""
    titles, names = [f"picture {place}" for place in range(8)], [f"class {place}" for place in range(1000)]
    conditions = ["clean", "blur"]
    lens = random_lens(models=["base", "tuned"], conditions=conditions, titles=titles, names=names, side=14, layers=13)
    path = lens.save(tmp_path / "lens.html")
    page = visit(path)
    until(page, "() => document.querySelector('.pl')?.dataset.drawn")
    first = page.evaluate("performance.now()")
    median, worst = hover_cost(page, "patch lens redraw", 40)
    print(
        f"patch lens of 8: {path.stat().st_size / 1e6:.1f} MB, drawn within {first:.0f} ms, "
        f"a hover redraw {median:.1f} ms (at most {worst:.1f})"
    )
    assert path.stat().st_size <= 25_000_000
    assert first < 2000 * SLACK
    assert median < FRAME * SLACK
