"""The attention explorer in a real browser, offline: what a hover, a click or a key puts on the screen."""

from __future__ import annotations

import json

import numpy as np
import pytest
from browsing import needs_chromium, until
from explorer_parts import alpha, choose, colours, drawn, heat, move_to, patch, top_of
from test_explorer import unpack

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def spec(explorer) -> dict:
    return json.loads(json.dumps(explorer.spec()))


@pytest.fixture
def page(visit, explorer, tmp_path):
    page = visit(explorer.save(tmp_path / "explorer.html"))
    drawn(page, picture=0)
    choose(page, "Range", "this head")
    return page


def test_hover_shows_where_a_patch_attends_in_every_panel(page, spec):
    move_to(page, 0, 1, 2)
    drawn(page, query=patch(1, 2))
    top = top_of(spec, 0, 1, 2, 0)
    for panel, (model, condition) in {0: (0, 0), 1: (0, 1), 3: (1, 0), 4: (1, 1)}.items():
        row = unpack(spec, 0, model, condition, 2)[0, patch(1, 2)]
        np.testing.assert_allclose(alpha(page, panel), heat(row[1:], top), atol=2)
    assert page.locator(".ex-status").inner_text() == "Layer 2, head 0; attention from row 1, column 2"
    titles = page.locator(".ex-panel figcaption").all_inner_texts()
    assert titles[:3] == ["Base, clean", "Base, Gaussian blur 4", "Base, difference"]
    assert titles[6:] == ["Tuned − Base, clean", "Tuned − Base, Gaussian blur 4", "Tuned − Base, difference"]
    strongest = unpack(spec, 0, 0, 0, 2)[0, patch(1, 2), 1:]
    place = f"at row {strongest.argmax() // 4}, column {strongest.argmax() % 4}"
    text = page.locator(".ex-values").first.inner_text()
    assert text.split("\n")[0] == f"{strongest.max():#.3g} {place}"
    page.mouse.move(2, 2)
    drawn(page, query=0)  # CLS again


def test_a_click_locks_and_a_hover_then_reads_weights(page, spec):
    move_to(page, 4, 3, 0)
    page.mouse.down()
    page.mouse.up()
    drawn(page, query=patch(3, 0), locked=1)
    assert page.locator(".ex-status").inner_text().endswith("row 3, column 0 (locked)")
    assert page.locator(".ex-mark.ex-locked:visible").count() == 9
    move_to(page, 1, 0, 1)
    until(page, "() => document.querySelector('.ex-values').textContent.includes('at row 0, column 1')")
    for panel, (model, condition) in {0: (0, 0), 1: (0, 1), 4: (1, 1)}.items():
        weight = unpack(spec, 0, model, condition, 2)[0, patch(3, 0), patch(0, 1)]
        said = page.locator(".ex-values").nth(panel).inner_text().split(" at ")[0]
        assert float(said.replace("−", "-")) == pytest.approx(weight, rel=0.006)
    difference = np.subtract(*(unpack(spec, 0, 0, c, 2)[0, patch(3, 0), patch(0, 1)] for c in (1, 0)))
    said = page.locator(".ex-values").nth(2).inner_text().split(" at ")[0]
    assert float(said.replace("−", "-")) == pytest.approx(difference, rel=0.01, abs=1e-6)
    drawn(page, query=patch(3, 0))
    move_to(page, 4, 3, 0)
    page.mouse.down()
    page.mouse.up()
    drawn(page, locked=0)


def test_thumbnails_choose_head_layer_and_rollout(page, spec):
    board = page.locator(".ex-board canvas")
    box = board.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.25, box["y"] + 4)  # the second of six columns, the first layer
    drawn(page, row=0, cell=1, query=0)
    row = unpack(spec, 0, 1, 0, 0)[1, 0, 1:]
    np.testing.assert_allclose(alpha(page, 3), heat(row, top_of(spec, 0, 1, 0, 1)), atol=2)
    board.press("ArrowDown")
    drawn(page, row=1, cell=1)
    for _ in range(2):
        board.press("ArrowDown")
    drawn(page, row=3, cell=1)
    assert page.locator(".ex-status").inner_text().startswith("Rollout through all layers: min; attention from CLS")
    assert page.locator(".ex-numbers").first.inner_text() == ""
    rolled = unpack(spec, 0, 0, 0, 3)[1, 0, 1:]
    np.testing.assert_allclose(alpha(page, 0), heat(rolled, top_of(spec, 0, 1, 3, 1)), atol=2)
    for _ in range(9):
        board.press("ArrowRight")
    drawn(page, row=3, cell=5)
    assert "max, lowest 90% dropped" in page.locator(".ex-status").inner_text()


def test_thumbnails_show_the_query_of_every_head(page, spec):
    """The tile of layer 1, head 0 holds that head's CLS row; at `this row` its strongest patch is the brightest."""
    choose(page, "Range", "this row")
    pixels = """([x, y]) => {
        const data = document.querySelector('.ex-board canvas').getContext('2d').getImageData(x, y, 4, 4).data;
        return [...data].filter((_, i) => i % 4 < 3);
    }"""
    row = unpack(spec, 0, 0, 0, 1)[0, 0, 1:]
    until(
        page,
        f"([at, ...place]) => {{ const a = ({pixels})(place); return a[3 * at] === 252 && a[3 * at + 2] === 164 }}",
        [int(row.argmax()), 1, 6],
    )
    shown = np.asarray(page.evaluate(pixels, [1, 6])).reshape(16, 3) @ [0.2126, 0.7152, 0.0722]
    assert (np.argsort(shown, kind="stable")[-3:] == np.argsort(row, kind="stable")[-3:]).all()


def test_thumbnails_show_numbers(page, spec):
    page.get_by_label("Thumbnails show").select_option(label="entropy")
    page.get_by_label("of", exact=True).select_option(label="Base, difference")
    panels = spec["pictures"][0]["panels"][0]
    change = np.subtract(panels[1]["entropy"], panels[0]["entropy"])
    layer, head = np.unravel_index(np.abs(change).argmax(), change.shape)
    strongest = [190, 80, 8] if change[layer, head] > 0 else [11, 90, 148]
    until(
        page,
        """([x, y, colour]) => colour.every((value, i) => value ===
             document.querySelector('.ex-board canvas').getContext('2d').getImageData(x, y, 1, 1).data[i])""",
        [int(head) * 5 + 2, int(layer) * 5 + 2, strongest],
    )
    numbers = page.locator(".ex-numbers").all_inner_texts()
    clean = panels[0]
    distance = clean["distance"][2][0]
    assert numbers[0].split("\n") == [
        f"entropy {clean['entropy'][2][0]:#.3g} nats",
        f"distance {distance:#.3g} patches ({distance * 8:#.3g} px)",
        f"CLS mass {clean['prefix_mass'][2][0][0]:#.3g}",
    ]
    assert abs(change[2, 0]) > 0.001
    assert numbers[2].startswith(f"entropy {change[2, 0]:+#.2g} nats".replace("-", "−"))
    most = f"{np.abs(change).max():#.3g}"
    legend = page.locator(".ex-legend span")
    assert legend.count() == 3
    assert legend.nth(2).text_content() == f"thumbnails: entropy −{most}  +{most} nats"
    canvas = page.locator(".ex-board canvas")
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 4)  # the second head of the first layer
    said = f"Layer 0, head 1: entropy {change[0, 1]:+#.3g} nats".replace("-", "−")
    assert canvas.get_attribute("title") == said
    page.get_by_label("Thumbnails show").select_option(label="CLS mass")
    page.get_by_label("of", exact=True).select_option(label="Base, clean")
    most = f"{np.asarray(clean['prefix_mass']).max():#.3g}"
    until(
        page,
        "(said) => document.querySelectorAll('.ex-legend span')[2].textContent === said",
        f"thumbnails: CLS mass 0  {most}",
    )
    page.get_by_label("Thumbnails show").select_option(label="attention")
    until(page, "() => document.querySelectorAll('.ex-legend span').length === 2")


def test_corruption_picture_and_direction(page, spec):
    choose(page, "Corruption", "Gaussian noise 4")
    drawn(page, corruption=2)
    assert page.locator(".ex-panel figcaption").nth(1).inner_text() == "Base, Gaussian noise 4"
    row = unpack(spec, 0, 0, 2, 2)[0, 0, 1:]
    np.testing.assert_allclose(alpha(page, 1), heat(row, top_of(spec, 0, 2, 2, 0)), atol=2)
    sources = page.evaluate("[...document.querySelectorAll('.ex-stage img')].map((image) => image.src)")
    assert sources[1] == spec["pictures"][0]["pictures"][2]
    page.locator(".ex-strip input").nth(2).check(force=True)
    drawn(page, picture=2)
    assert page.locator(".ex-title").inner_text() == spec["pictures"][2]["title"]
    choose(page, "Patch", "is attended by")
    until(page, "() => document.querySelector('.ex-status').textContent.includes('attention that comes to CLS')")
    column = unpack(spec, 2, 1, 0, 2)[0, 1:, 0]
    np.testing.assert_allclose(alpha(page, 3), heat(column, top_of(spec, 2, 2, 2, 0)), atol=2)


def test_scale_range_and_overlay(page, spec):
    row = unpack(spec, 0, 0, 0, 2)[0, 0, 1:]
    choose(page, "Scale", "linear")
    page.wait_for_timeout(100)
    np.testing.assert_allclose(alpha(page, 0), heat(row, top_of(spec, 0, 1, 2, 0), root=False), atol=2)
    choose(page, "Range", "all heads")
    page.wait_for_timeout(100)
    top = max(top_of(spec, 0, 1, layer, head) for layer in range(3) for head in range(2))
    np.testing.assert_allclose(alpha(page, 0), heat(row, top, root=False), atol=2)
    assert f"{top:#.3g}" in page.locator(".ex-legend").inner_text()
    choose(page, "Range", "this row")
    page.wait_for_timeout(100)
    top = max(unpack(spec, 0, m, c, 2)[0, 0, 1:].max() for m in (0, 1) for c in (0, 1))
    np.testing.assert_allclose(alpha(page, 0), heat(row, top, root=False), atol=2)
    page.get_by_label("Overlay").fill("0")
    until(
        page, "() => document.querySelector('.ex-stage canvas').getContext('2d').getImageData(1, 1, 1, 1).data[3] === 0"
    )
    assert alpha(page, 4).max() == 0
    assert page.locator(".ex-stage img").first.is_visible()
    choose(page, "Picture under it", "hidden")
    assert not page.locator(".ex-stage img").first.is_visible()


def test_difference_is_orange_where_attention_grew_and_blue_where_it_fell(page, spec):
    choose(page, "Range", "this row")
    page.wait_for_timeout(100)
    change = np.subtract(*(unpack(spec, 0, 0, c, 2)[0, 0, 1:] for c in (1, 0)))
    shown = colours(page, 2)
    large = np.abs(change) > 0.02 * np.abs(change).max()
    assert large.sum() > 8
    assert ((shown[:, 0] > shown[:, 2]) == (change > 0))[large].all()


def test_keyboard_alone_moves_locks_and_frees(page, spec):
    stage = page.locator(".ex-stage").first
    stage.focus()
    stage.press("ArrowRight")  # from CLS to the middle, and one on
    drawn(page, query=patch(2, 3))
    stage.press("ArrowUp")
    stage.press("Enter")
    drawn(page, query=patch(1, 3), locked=1)
    stage.press("ArrowLeft")
    drawn(page, query=patch(1, 2), locked=1)
    assert page.locator(".ex-status").inner_text() == "Layer 2, head 0; attention from row 1, column 2 (locked)"
    stage.press("Escape")
    drawn(page, locked=0)
    stage.press("c")
    drawn(page, query=0, locked=1)
    row = unpack(spec, 0, 0, 0, 2)[0, 0, 1:]
    np.testing.assert_allclose(alpha(page, 0), heat(row, top_of(spec, 0, 1, 2, 0)), atol=2)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.classList.contains('ex-stage')")
