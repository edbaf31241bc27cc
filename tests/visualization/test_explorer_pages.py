"""The attention explorer's page in a real browser: other models, names and screens, a finger, and the full size."""

from __future__ import annotations

import numpy as np
import pytest
from browsing import FRAME, SLACK, hover_cost, needs_chromium, until
from explorer_parts import alpha, choose, drawn, heat, move_to, patch
from hf_zoo import ZOO
from random_maps import random_explorer
from test_explorer import HOSTILE, unpack

from mechvit import HookedViT
from mechvit.views import attention_explorer

pytestmark = needs_chromium


@pytest.mark.parametrize("name", ["siglip vision", "registers classifier"])
def test_models_without_cls_or_with_registers(visit, tmp_path, tiny_processor, tiny_images, name):
    model = HookedViT.from_hf(ZOO[name](), tiny_processor)
    explorer = attention_explorer({"one": model}, tiny_images, (), limit=1)
    page = visit(explorer.save(tmp_path / "explorer.html"))
    prefix = model.cfg.n_prefix_tokens
    drawn(page, query=0 if prefix else patch(2, 2, 0), picture=0)
    assert page.locator(".ex-panel").count() == 1
    assert page.locator(".ex-legend").inner_text().count("difference") == 0  # there is none to show
    assert ("CLS" in page.locator(".ex-help").inner_text()) == ("CLS" in explorer.prefix)
    chips = page.locator(".cv-choice", has_text="Token").locator("label").all_inner_texts()
    assert chips == list(explorer.prefix)
    choose(page, "Range", "this head")
    spec = explorer.spec()
    move_to(page, 0, 0, 3)
    drawn(page, query=patch(0, 3, prefix))
    row = unpack(spec, 0, 0, 0, 2)[0, patch(0, 3, prefix), prefix:]
    np.testing.assert_allclose(alpha(page, 0), heat(row, spec["pictures"][0]["panels"][0][0]["scale"][2][0]), atol=2)
    if prefix:
        choose(page, "Token", "register 2")
        drawn(page, query=2, locked=1)


def test_hostile_names_are_text_and_long_ones_break_nothing(visit, tmp_path, tiny_model, tiny_images):
    long = "x" * 10_000
    array = np.asarray(tiny_images[0]["pixels"], np.uint8).transpose(1, 2, 0)
    models = {HOSTILE: tiny_model, long: tiny_model}
    explorer = attention_explorer(models, {HOSTILE: array, long: array}, title=HOSTILE)
    page = visit(explorer.save(tmp_path / "explorer.html"))
    drawn(page, picture=0)
    visible = HOSTILE.replace("\u2028", "")
    assert page.locator("h1").inner_text().replace("\u2028", "").replace("\n", "") == visible
    assert page.locator(".ex-title").text_content() == HOSTILE
    assert page.locator(".ex-panel figcaption").first.text_content() == f"{HOSTILE}, clean"
    page.locator(".ex-strip input").nth(1).check(force=True)
    drawn(page, picture=1)
    assert page.locator(".ex-title").text_content() == long
    assert page.locator(".ex-title").bounding_box()["height"] < 80
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_narrow_and_dark(visit, explorer, tmp_path):
    page = visit(explorer.save(tmp_path / "explorer.html"), width=400, theme="dark")
    drawn(page, picture=0)
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    for name in (".ex-numbers", ".ex-values", ".ex-status", ".ex-panel figcaption"):
        cut = "name => [...document.querySelectorAll(name)].filter((e) => e.scrollWidth > e.clientWidth).length"
        assert page.evaluate(cut, name) == 0, name
        assert page.locator(name).first.evaluate("e => getComputedStyle(e).textOverflow") == "clip"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(23, 25, 29)"
    page.get_by_role("button", name="Light theme").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_a_tap_locks_a_patch_and_another_frees_it(visit, explorer, tmp_path):
    page = visit(explorer.save(tmp_path / "explorer.html"), width=400, touch=True)
    drawn(page, picture=0)
    page.locator(".ex-stage").first.scroll_into_view_if_needed()
    box = page.locator(".ex-stage").first.bounding_box()

    def tap(row: int, column: int) -> None:
        page.touchscreen.tap(box["x"] + box["width"] * (column + 0.5) / 4, box["y"] + box["height"] * (row + 0.5) / 4)

    tap(1, 2)
    drawn(page, query=patch(1, 2), locked=1)
    tap(3, 0)
    drawn(page, query=patch(3, 0), locked=1)
    tap(3, 0)
    drawn(page, query=patch(3, 0), locked=0)


@pytest.mark.slow
@pytest.mark.parametrize(("pictures", "block"), [(1, 1), (8, 2)])
def test_full_size_page_is_small_and_quick(visit, tmp_path, pictures, block):
    """12 x 12 heads, 197 tokens, clean and corrupted in two models: one picture patch by patch, or eight in blocks."""
    explorer = random_explorer(titles=[f"picture {place}" for place in range(pictures)])
    path = explorer.save(tmp_path / "explorer.html")
    page = visit(path)
    until(page, "() => document.querySelector('.ex')?.dataset.drawn")
    first = page.evaluate("performance.now()")
    until(page, "() => document.querySelector('.ex').dataset.thumbnails === '146'")  # each head, and two rollouts
    whole = page.evaluate("performance.now()")
    median, worst = hover_cost(page, "explorer redraw", 40)
    print(
        f"explorer of {pictures}: {path.stat().st_size / 1e6:.1f} MB, first drawn within {first:.0f} ms, all within "
        f"{whole:.0f} ms, a hover redraw {median:.1f} ms (at most {worst:.1f})"
    )
    assert {picture["block"] for picture in explorer.spec()["pictures"]} == {block}
    assert path.stat().st_size <= 25_000_000
    assert first < 2000 * SLACK
    assert whole < 5000 * SLACK
    assert median < FRAME * SLACK
