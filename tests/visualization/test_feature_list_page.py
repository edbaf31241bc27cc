"""The feature browser's table in a real browser, offline: what is sorted, filtered and reached by keys."""

from __future__ import annotations

import math

import numpy as np
import pytest
from browsing import needs_chromium
from feature_pages import NAMES
from page_parts import column, latents, slide, status

pytestmark = needs_chromium


def test_table_sorts_by_every_column(open_at, found):
    page = open_at()
    features = found.saes["base standard"].features
    status(page, "all")
    assert sorted(latents(page)) == list(range(48))
    values = {
        "Latent": np.arange(48.0), "log₁₀ rate": features.firing_rate, "Mean": features.mean_activation,
        "Max": features.max_activation, "Purity": features.mass_label_purity,
        "Moved": found.saes["base standard"].sensitivity[1],
    }  # fmt: skip
    for title, value in values.items():
        button = page.locator("#list thead").get_by_role("button", name=title)
        for _ in range(2):
            button.click()
            shown = np.asarray(value, float)[latents(page)]
            down = page.locator(f"#list th:has-text('{title}')").get_attribute("aria-sort") == "descending"
            known = shown[~np.isnan(shown)]
            assert (np.diff(known) <= 0).all() if down else (np.diff(known) >= 0).all()
            assert np.isnan(shown[len(known) :]).all()  # what is not known comes last, both ways
    page.locator("#list thead").get_by_role("button", name="Class").click()
    classes = [text for text in column(page, 3) if text != "–"]
    assert classes == sorted(classes)


def test_cells_are_the_numbers(open_at, found):
    page = open_at()
    status(page, "all")
    sae = found.saes["base standard"]
    for j, rate, peak, purity in zip(latents(page), column(page, 4), column(page, 6), column(page, 7), strict=True):
        firing = float(sae.features.firing_rate[j])
        if firing == 0:
            assert (peak, purity) == ("0", "–")
            continue
        assert float(rate.replace("−", "-")) == pytest.approx(math.log10(firing), abs=0.006)
        assert float(peak) == pytest.approx(float(sae.features.max_activation[j]), rel=6e-3)
        assert int(purity.rstrip("%")) == pytest.approx(100 * float(sae.features.mass_label_purity[j]), abs=0.51)


def test_filters_and_search(open_at, found):
    page = open_at()
    sae = found.saes["base standard"]
    rate, label = sae.features.firing_rate, sae.features.mass_label
    assert set(latents(page)) == set(sae.chosen.tolist())  # those with a page, at first
    for key, wanted in {"dead": rate == 0, "alive": rate > 0, "dense": rate > 0.1, "all": rate >= 0}.items():
        status(page, key)
        assert set(latents(page)) == set(wanted.nonzero()[:, 0].tolist())
        assert page.locator(".count").inner_text() == f"{int(wanted.sum())} of 48 latents"
    assert 4 <= int((rate == 0).sum()) < 48
    slide(page, "Purity ≥ at least", 40)
    pure = sae.features.mass_label_purity >= 0.4
    assert set(latents(page)) == set(pure.nonzero()[:, 0].tolist())
    slide(page, "Purity ≥ at least", 0)
    slide(page, "Moved ≥ at least", 60)
    for i in range(3):
        page.get_by_label("Corruption that the column Moved is about").select_option(str(i))
        assert set(latents(page)) == set((sae.sensitivity[i] >= 0.6).nonzero()[:, 0].tolist())
    slide(page, "Moved ≥ at least", 0)
    search = page.get_by_label("Search by class or number")
    search.fill("ELK")
    assert set(latents(page)) == set((label == NAMES.index("elk")).nonzero()[:, 0].tolist())
    search.fill("17")
    assert latents(page) == [17]
    search.fill("alert(1)")
    assert set(latents(page)) == set((label == 0).nonzero()[:, 0].tolist())
    search.fill("no such class")
    assert latents(page) == []


def test_keys_go_up_and_down_the_table(open_at):
    page = open_at()
    order = latents(page)
    page.locator("#list tbody a").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("#detail h2").inner_text() == f"Latent {order[0]}"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert page.locator("#detail h2").inner_text() == f"Latent {order[1]}"
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.type") == "search"
