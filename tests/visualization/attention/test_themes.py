"""Light, dark and paper on every page, in a real browser, offline."""

from __future__ import annotations

import numpy as np
import pytest
from browsing import check_paper, needs_chromium, until
from random_maps import random_explorer, random_lens, random_pictures

from mechvit.visualization.attention.circuitsvis_view import AttentionPanel, AttentionView

pytestmark = needs_chromium
SHOWN = {"models": ["base", "tuned"], "conditions": ["clean", "blur"], "titles": ["one"]}


@pytest.fixture(scope="module")
def pages(run_folder, path, tmp_path_factory):
    """One of each page but the transfer's."""
    folder = tmp_path_factory.mktemp("pages")
    patterns = np.random.default_rng(0).dirichlet(np.ones(5), (2, 3, 5)).astype(np.float32)
    panel = AttentionPanel(title="clean", patterns=patterns, picture=random_pictures(2, 1, 0)[0])
    tokens = ("CLS", "r0c0", "r0c1", "r1c0", "r1c1")
    attention = AttentionView(panels=(panel,), tokens=tokens, grid=(2, 2), layers=(0, 1), heads=(0, 1, 2))
    explorer = random_explorer(**SHOWN, layers=2, heads=2, side=4)
    lens = random_lens(**SHOWN, names=["ant", "bee"], side=4, layers=3)
    return {
        "report": run_folder / "report.html",
        "features": path,
        "attention": attention.save(folder / "attention.html"),
        "explorer": explorer.save(folder / "explorer.html"),
        "lens": lens.save(folder / "lens.html"),
    }


NAMES = ["report", "features", "attention", "explorer", "lens"]


@pytest.mark.parametrize("name", NAMES)
def test_paper_is_light(visit_once, pages, name):
    page = visit_once(pages[name], theme="dark")
    check_paper(page)
    if name == "report":
        until(page, "() => document.querySelector('.js-plotly-plot')?.layout")
        assert page.evaluate("document.querySelector('.js-plotly-plot').layout.paper_bgcolor") == "#17191d"


@pytest.mark.parametrize("name", NAMES)
def test_a_page_follows_the_system_until_the_button_is_pressed(visit_once, pages, name):
    page = visit_once(pages[name], theme="dark")
    theme = "() => document.documentElement.dataset.theme"
    button = page.locator("#theme")
    page.emulate_media(color_scheme="light")
    until(page, f"() => ({theme})() === 'light'")
    assert (page.evaluate(theme), button.inner_text()) == ("light", "Dark theme")
    page.emulate_media(color_scheme="dark")
    until(page, f"() => ({theme})() === 'dark'")
    assert button.inner_text() == "Light theme"
    button.click()
    assert (page.evaluate(theme), button.inner_text()) == ("light", "Dark theme")
    page.emulate_media(color_scheme="light")
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(100)
    assert page.evaluate(theme) == "light"


def test_bars_have_their_conditions_colour_in_both_themes(open_at, found):
    sae = found.saes["base standard"]
    page = open_at(f"feature={int(sae.chosen[int(sae.features.firing_rate[sae.chosen].argmax())])}")
    panel = page.locator("section.panel", has_text="Clean against corrupted")
    ink = "node => getComputedStyle(node).backgroundColor"
    bars = panel.locator(".bars > i > i")
    light = [bar.evaluate(ink) for bar in bars.all()]
    page.locator("#theme").click()
    dark = [bar.evaluate(ink) for bar in bars.all()]
    assert len(set(light)) == len(light) == 4
    assert not set(light) & set(dark)
