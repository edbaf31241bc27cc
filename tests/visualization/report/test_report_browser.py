"""The pages in a real browser, offline: no console message, no request, everything drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from browsing import needs_chromium, scroll_through, until
from fake_run import write_fake_run

from mechvit.visualization import render_report
from mechvit.visualization.report.sections import SECTIONS
from mechvit.visualization.style import PAPER

FIGURES = 1 + sum(len(section.figures) for section in SECTIONS)  # the claims', then each section's
pytestmark = needs_chromium


def wait_for_views(page, panels: int, layer: str) -> None:
    """Until every panel of the chosen set shows its heads at this layer."""
    until(
        page,
        """([panels, layer]) => {
             const slots = [...document.querySelectorAll('.cv-slot')];
             return slots.length === panels && slots.every((slot) => slot.dataset.layer === layer
               && slot.querySelectorAll('h4').length === 3 && slot.querySelector('.cv-zoom canvas'));
           }""",
        [panels, layer],
    )


@pytest.fixture(scope="module")
def short(run_folder) -> Path:
    return run_folder / "report.html"


def test_report_draws_everything_offline(visit_once, short):
    page = visit_once(short)
    scroll_through(page)
    until(page, "n => document.querySelectorAll('.plot.js-plotly-plot').length === n", FIGURES)
    assert page.locator(".plot").count() == FIGURES
    assert page.evaluate("[...document.querySelectorAll('.plot')].every((p) => p.querySelector('path, rect.bg'))")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator("#views .cv").scroll_into_view_if_needed()
    page.evaluate("document.querySelector('#views .cv-panels').style.gridTemplateColumns = 'repeat(4, 200px)'")
    wait_for_views(page, 4, "5")
    assert page.evaluate(
        "[...document.querySelectorAll('#examples img, .cv img')].every((i) => i.complete && i.naturalWidth === 64)"
    )
    assert page.locator("#examples img").count() == 3 * 7


def test_page_decodes_the_very_patterns(visit_once, short, run):
    """The colour scale's top is the highest attention of the four panels at the shown layer, in four digits."""
    page = visit_once(short)
    page.locator("#views .cv").scroll_into_view_if_needed()
    _, patterns = run.attention()
    models, conditions = ("base", "gaussian_blur_4"), ("clean", "gaussian_blur_4")
    top = max(float(patterns[f"{model}/{condition}"][5].max()) for model in models for condition in conditions)
    assert float(page.locator(".cv-scale b").inner_text()) == pytest.approx(top, abs=1e-3)


def test_switching_corruption_layer_and_head(visit_once, short):
    page = visit_once(short)
    page.locator("#views .cv").scroll_into_view_if_needed()
    page.evaluate("document.querySelector('#views .cv-panels').style.gridTemplateColumns = 'repeat(4, 200px)'")
    wait_for_views(page, 4, "5")
    titles = page.locator(".cv-panel figcaption")
    assert "Blur 4 tuned, clean image" in titles.all_inner_texts()
    before = page.locator(".cv-scale b").inner_text()

    page.locator(".cv .cv-choice", has_text="Corruption").get_by_label("Gaussian noise 4").check(force=True)
    wait_for_views(page, 4, "5")
    assert titles.all_inner_texts() == [
        "Base, clean image",
        "Base, Gaussian noise 4 image",
        "Noise 4 tuned, clean image",
        "Noise 4 tuned, Gaussian noise 4 image",
    ]
    page.locator(".cv .cv-choice", has_text="Layer").get_by_label("0", exact=True).check(force=True)
    wait_for_views(page, 4, "0")
    assert page.locator(".cv-scale b").inner_text() != before

    page.locator(".cv-slot").first.get_by_role("button", name="Head 2").press("Enter")
    pressed = page.locator(".cv-slot [aria-pressed=true]")
    until(page, "() => document.querySelectorAll('.cv-slot [aria-pressed=true]').length === 4")
    assert [node.get_attribute("aria-label") for node in pressed.all()] == ["Head 2"] * 4


def test_themes(visit_once, short):
    """On a page that was opened light; one that was opened dark is with the other pages' themes."""
    page = visit_once(short)
    page.locator("#table-one").scroll_into_view_if_needed()
    until(page, "() => document.querySelector('.js-plotly-plot')?.layout")
    drawn = "(paper) => document.querySelector('.js-plotly-plot').layout.paper_bgcolor === paper"
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    assert page.evaluate(drawn, PAPER)
    page.locator("#theme").click()
    until(page, drawn, "#17191d")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(23, 25, 29)"
    assert page.locator("#theme").inner_text() == "Light theme"
    page.locator("#theme").click()
    until(page, drawn, PAPER)
    assert page.locator("#theme").inner_text() == "Dark theme"


def test_drawn_numbers_are_the_tables(visit_once, short, run):
    page = visit_once(short)
    page.locator("#class-probability").scroll_into_view_if_needed()
    until(page, "() => document.querySelector('#class-probability .js-plotly-plot')?._fullData?.length")
    drawn = page.evaluate(
        """[...document.querySelector('#class-probability .plot')._fullData.find((t) => t.name === 'Blur 4').y]"""
    )
    rows = run.table("lens_summary").query("model == corruption == 'gaussian_blur_4'").sort_values("layer")
    np.testing.assert_allclose(drawn, rows["probability"], rtol=1e-6)


def test_explorer_and_lens_work_in_the_report(visit_once, short):
    page = visit_once(short)
    page.locator(".ex:not(.pl)").scroll_into_view_if_needed()
    until(page, "() => document.querySelector('.ex:not(.pl)').dataset.drawn")
    page.locator(".ex-panel .ex-stage").first.hover(position={"x": 2, "y": 2})
    said = "Layer 2, head 0; attention from row 0, column 0"
    until(page, "(said) => document.querySelector('.ex-status').textContent === said", said)
    assert page.locator(".ex-title").first.inner_text() == "astronaut"
    page.locator(".pl").scroll_into_view_if_needed()
    until(page, "() => document.querySelector('.pl').dataset.drawn && document.querySelector('.pl-plot .legendtext')")
    page.locator(".pl .ex-stage").nth(1).hover(position={"x": 2, "y": 2})
    until(page, "() => document.querySelector('.pl .ex-status').textContent.includes('row 0, column 0')")
    assert page.locator(".pl-list").first.locator("li").count() == 3
    page.locator("#theme").click()
    until(page, "() => document.querySelector('.pl-plot').layout.paper_bgcolor === '#17191d'")
    page.locator("#theme").click()


def test_narrow_page_never_scrolls_sideways(visit_once, short):
    page = visit_once(short)
    page.set_viewport_size({"width": 400, "height": 900})
    page.evaluate("document.querySelector('#views .cv-panels').style.gridTemplateColumns = ''")  # an earlier test's
    scroll_through(page)
    until(page, "() => document.documentElement.scrollWidth === 400")
    clipped = page.evaluate(
        """[...document.querySelectorAll('main p, main h1, main h2, main h3, main summary')]
             .filter((e) => !e.closest('.scroll') && e.getBoundingClientRect().right > 400).map((e) => e.textContent)"""
    )
    assert clipped == []
    page.set_viewport_size({"width": 1280, "height": 900})


LONG = [letter * 10_000 for letter in "xyz"]


@pytest.fixture(scope="module")
def long(tmp_path_factory) -> Path:
    return render_report(write_fake_run(tmp_path_factory.mktemp("long") / "run", labels=LONG))


@pytest.mark.parametrize("width", [400, 1280])
def test_long_labels_break_nothing(visit_once, long, width):
    page = visit_once(long, width=400)
    page.set_viewport_size({"width": width, "height": 900})
    until(page, "(width) => document.documentElement.clientWidth === width", width)
    scroll_through(page)
    page.locator("#views .cv").scroll_into_view_if_needed()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    lines = {
        "#views .question .clip": 1,
        "#examples .label span": 2,
        "#views .ex:not(.pl) > .ex-title": 2,
        "#views .pl > .ex-title": 2,
    }
    for selector, most in lines.items():
        shown = page.locator(selector).first
        assert shown.text_content() in LONG
        height, line = shown.evaluate("e => [e.offsetHeight, parseFloat(getComputedStyle(e).lineHeight)]")
        assert height < (most + 0.5) * line, selector
    assert len(page.locator("#views .question .clip").get_attribute("title")) == 300
    assert page.locator("#made dd", has_text="x" * 10_000).evaluate("e => e.offsetHeight < 200")
    assert page.evaluate("document.querySelector('#examples').offsetHeight") < 1500
    assert page.evaluate("document.documentElement.scrollHeight") < 60_000
    page.emulate_media(media="print")
    assert page.locator("#made dd", has_text="x" * 10_000).evaluate("e => e.scrollHeight === e.clientHeight")
    page.emulate_media(media="screen")


@pytest.mark.parametrize("width", [1280, 400])
def test_long_titles_break_no_attention_view(visit, tmp_path, width, tiny_model, tiny_images):
    from mechvit.views import attention_view

    pixels = np.asarray(tiny_images[0]["pixels"], np.uint8).transpose(1, 2, 0)
    long = "x" * 10_000
    view = attention_view(tiny_model, {long: pixels, "dark": pixels // 2}, layers=[0], title=long)
    page = visit(view.save(tmp_path / "attention.html"), width=width)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("h1").bounding_box()["height"] < 120
    caption = page.locator(".cv-panel figcaption").first
    assert caption.text_content() == long
    assert caption.bounding_box()["height"] < 80
    assert len(page.title()) == 200


def test_saved_attention_view_opens_offline(visit, tmp_path, tiny_model, tiny_images):
    from mechvit.views import attention_view

    pixels = np.asarray(tiny_images[0]["pixels"], np.uint8).transpose(1, 2, 0)
    title = "</script><script>alert(1)</script>\u2028"
    view = attention_view(tiny_model, {title: pixels, "dark": pixels // 2}, layers=[0, 1], title=title)
    page = visit(view.save(tmp_path / "attention.html"))
    until(page, "() => [...document.querySelectorAll('.cv-slot')].every((s) => s.querySelectorAll('h4').length === 2)")
    assert page.locator("h1").inner_text() == title
    assert page.locator(".cv-slot canvas").count() >= 4
    page.locator(".cv .cv-choice", has_text="Layer").get_by_label("0", exact=True).check(force=True)
    until(page, "() => [...document.querySelectorAll('.cv-slot')].every((s) => s.dataset.layer === '0')")
