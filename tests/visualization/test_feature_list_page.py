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
        "Latent": np.arange(48.0),
        "log₁₀ rate": features.firing_rate,
        "Mean": features.mean_activation,
        "Max": features.max_activation,
        "Purity": features.mass_label_purity,
        "Moved": found.saes["base standard"].sensitivity[1],
    }
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
    for down in (False, True):
        classes = column(page, 3)
        known = [text for text in classes if text != "–"]
        assert known == sorted(known, reverse=down)
        assert classes[len(known) :] == ["–"] * (len(classes) - len(known)) != []
        page.locator("#list thead").get_by_role("button", name="Class").click()


def test_cells_are_the_numbers(open_at, found):
    page = open_at()
    status(page, "all")
    sae = found.saes["base standard"]
    for j, rate, peak, purity in zip(latents(page), column(page, 4), column(page, 6), column(page, 7), strict=True):
        firing = float(sae.features.firing_rate[j])
        if firing == 0:
            assert (rate, peak, purity) == ("–", "0", "–")
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


def test_neighbours_follow_the_tables_order(open_at):
    page = open_at()
    order = latents(page)
    page.locator("#list tbody a").first.click()
    above, below = (page.get_by_role("button", name=f"The latent {where} in the table") for where in ("above", "below"))
    assert (above.is_disabled(), below.is_disabled()) == (True, False)
    page.locator("#list thead").get_by_role("button", name="Max").click()  # now upwards: it is the last
    assert latents(page)[-1] == order[0]
    assert (above.is_disabled(), below.is_disabled()) == (False, True)
    above.click()
    assert page.locator("#detail h2").inner_text() == f"Latent {latents(page)[-2]}"
    page.get_by_label("Search by class or number").fill("no such class")
    assert (above.is_disabled(), below.is_disabled()) == (True, True)
    page.locator("#detail").press("ArrowRight")
    assert page.locator("#detail h2").inner_text() == f"Latent {order[1]}"


def test_tab_goes_from_the_bar_through_the_table_to_the_latent(open_at):
    page = open_at("feature=9")
    page.evaluate("scrollTo(0, 0)")
    seen, last = [], -1
    for _ in range(300):
        page.keyboard.press("Tab")
        place, part, outline = page.evaluate(
            """() => {
                 const e = document.activeElement;
                 const part = e.closest('#bar, #list, #detail')?.id ?? (e.id || e.tagName);
                 const look = getComputedStyle(e.matches('.choice input') ? e.nextElementSibling : e);
                 return [[...document.querySelectorAll('*')].indexOf(e), part, look.outlineStyle !== 'none'];
               }"""
        )
        if part == "BODY":
            break
        assert outline, f"no visible focus in {part}"
        assert place > last
        seen.append(part)
        last = place
    assert list(dict.fromkeys(seen)) == ["bar", "theme", "list", "detail"]
    assert seen.count("bar") == 2  # the SAE, the overlay
    assert seen.count("list") > 8 + len(latents(page))


def test_on_paper_a_latent_stands_alone(open_at, found):
    page = open_at(f"feature={int(found.saes['base standard'].chosen[0])}")
    page.set_viewport_size({"width": 688, "height": 1017})
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    for hidden in ("#bar", "#list", "#theme", "#detail nav"):
        assert not page.locator(hidden).is_visible()
    assert page.locator("#detail .tile canvas").first.is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 688
    assert page.evaluate(
        "[...document.querySelectorAll('#detail *')].every((e) => e.getBoundingClientRect().right <= 688)"
    )
    assert page.evaluate("(e => e.scrollHeight === e.clientHeight)(document.getElementById('detail'))")


def test_on_a_phone_the_saes_can_be_told_apart(open_at, found):
    page = open_at(width=400)
    names = page.locator("#bar .choice").first.locator("label span")
    assert names.all_text_contents() == list(found.saes)
    for name in ("base standard", "tuned"):
        assert names.filter(has_text=name).evaluate("e => e.scrollWidth <= e.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth") == 400
