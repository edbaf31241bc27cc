"""Using the report: on paper, by keyboard, from figure to claim; in a real browser, offline."""

from __future__ import annotations

import re
import shutil

import pytest
from browsing import needs_chromium, until

from mechvit.visualization import render_report
from mechvit.visualization.style import PAPER

pytestmark = needs_chromium
WIDTH, HEIGHT = 688, 1017
"""Pixels of A4 between margins of 14 mm."""
READY = """() => [...document.querySelectorAll('.plot, .pl-plot')].every((p) => p.querySelector('.main-svg'))
  && [...document.querySelectorAll('.ex')].every((view) => view.dataset.drawn)"""


@pytest.fixture(scope="module")
def path(run_folder, tmp_path_factory):
    """The report with a features page beside it."""
    run = tmp_path_factory.mktemp("use") / "run"
    shutil.copytree(run_folder, run, ignore=shutil.ignore_patterns("report.html"))
    (run / "features.html").write_text("<!doctype html><title>features</title><p>features", encoding="utf-8")
    return render_report(run)


def test_everything_is_drawn_without_scrolling(visit_once, path):
    """While the browser is idle: what is printed, or jumped to, is there."""
    page = visit_once(path)
    until(page, READY)
    assert page.evaluate("scrollY") == 0
    assert page.locator(".cv-slot canvas").count() == 0  # but for circuitsvis, which takes seconds


def test_on_paper_nothing_is_cut_off(visit_once, path):
    page = visit_once(path)
    until(page, READY)
    page.emulate_media(color_scheme="dark")
    until(page, "() => document.querySelector('.plot').layout.paper_bgcolor === '#17191d'")
    page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    until(page, "() => [...document.querySelectorAll('.plot, .pl-plot')].every((p) => p.layout.width === 680)")
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTH
    wide = page.evaluate(
        """(width) => [...document.querySelectorAll('main *')].filter((e) => {
             const box = e.getBoundingClientRect();
             return box.width && box.right > width + 0.5 && !e.closest('svg, .hidden, .modebar, .cv');
           }).map((e) => e.className || e.tagName)""",
        WIDTH,
    )
    assert wide == []
    tall = page.evaluate("[...document.querySelectorAll('.figure')].map((f) => f.getBoundingClientRect().height)")
    assert max(tall) < HEIGHT
    assert page.evaluate("document.querySelector('.plot').layout.paper_bgcolor") == PAPER
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    for hidden in (".contents", "button.csv", ".ex-controls", ".cv"):
        assert not page.locator(hidden).first.is_visible()
    assert page.locator(".on-paper").is_visible()
    assert page.locator(".ex-panel canvas").first.is_visible()
    page.emulate_media(media="screen")
    page.set_viewport_size({"width": 1280, "height": 900})
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    until(page, "() => document.querySelector('.plot').layout.paper_bgcolor === '#17191d'")
    until(page, "() => document.querySelector('.plot .main-svg').getBoundingClientRect().width > 800")
    page.emulate_media(color_scheme="light")
    until(page, "(paper) => document.querySelector('.plot').layout.paper_bgcolor === paper", PAPER)


def test_a_pdf_has_few_pages_and_every_figure(visit_once, path, tmp_path):
    page = visit_once(path)
    until(page, READY)
    page.pdf(path=tmp_path / "report.pdf", format="A4", print_background=True)
    data = (tmp_path / "report.pdf").read_bytes()
    assert 10 <= len(re.findall(rb"/Type\s*/Page\b", data)) <= 24
    assert page.evaluate("document.querySelectorAll('.plot .main-svg').length") >= 12
    assert not page.locator(".on-paper").is_visible()


def test_tab_reaches_everything_in_reading_order(visit_once, path):
    page = visit_once(path)
    until(page, READY)
    page.evaluate("scrollTo(0, 0)")
    seen = []
    for _ in range(400):
        page.keyboard.press("Tab")
        further, what, outline = page.evaluate(
            """() => {
                 const e = document.activeElement;
                 const last = window.lastFocused ?? document.body;
                 window.lastFocused = e;
                 const kinds = { csv: 'button.csv', contents: '.contents a', rule: 'summary', stage: '.ex-stage',
                   board: '.ex-board canvas' };
                 const kind = Object.keys(kinds).find((name) => e.matches(kinds[name])) ?? (e.id || e.tagName);
                 const shown = e.matches('.cv-choice input') ? e.nextElementSibling : e;
                 const look = getComputedStyle(shown);
                 const seen = look.outlineStyle !== 'none' || look.boxShadow !== 'none' || e.closest('.js-plotly-plot');
                 const further = last.compareDocumentPosition(e) & Node.DOCUMENT_POSITION_FOLLOWING;
                 return [Boolean(further), kind, Boolean(seen)];
               }"""
        )
        if what == "BODY":
            break
        seen.append(what)
        assert outline, f"no visible focus on {what}"
        assert further
    assert seen.count("contents") == 9
    assert seen[9] == "theme"
    assert seen.count("csv") == 14 + 2  # under each figure and table, and in the explorer and the lens
    assert seen.count("rule") >= 6
    assert seen.count("board") == 1
    assert seen.count("stage") == 9 + 6  # of the explorer, and of the lens of three models


def test_a_claim_leads_to_its_figure_and_back(visit_once, path):
    page = visit_once(path)
    page.locator("#claim-entropy_sign_gaussian_noise .source a").first.press("Enter")
    assert page.evaluate("location.hash") == "#entropy"
    until(page, "() => Math.abs(document.querySelector('#entropy').getBoundingClientRect().top) < 120")
    until(page, "() => document.querySelector('#entropy .main-svg')")
    page.locator("#entropy a[href='#claim-entropy_sign_gaussian_noise']").press("Enter")
    until(
        page,
        "() => { const y = document.querySelector('#claim-entropy_sign_gaussian_noise').getBoundingClientRect().top;"
        " return y > -5 && y < 300; }",
    )


def test_contents_lead_to_the_features_page(visit_once, path):
    page = visit_once(path)
    page.locator(".contents a", has_text="SAE features").click()
    until(page, "() => document.title === 'features'")
    assert page.url.startswith("file:")
