"""A latent's page in a real browser: the numbers of its panels, and the kinds of its examples."""

from __future__ import annotations

import sys

import pytest
from browsing import needs_chromium

pytestmark = needs_chromium


@pytest.fixture
def shown(open_at, found):
    """A latent that fires often, its place, and its page."""
    sae = found.saes["base standard"]
    place = int(sae.features.firing_rate[sae.chosen].argmax())
    return sae, place, open_at(f"feature={int(sae.chosen[place])}")


def panel(page, title: str):
    return page.locator("section.panel").filter(has=page.locator("h3", has_text=title)).first


def numbers(texts: list[str]) -> list[float]:
    return [float(text.replace("−", "-").rstrip("%")) for text in texts]


def test_nearest_directions(shown):
    sae, place, page = shown
    own = panel(page, "Nearest directions")
    links = [link.get_attribute("href") for link in own.locator("a.link").all()]
    assert links == [f"#sae=0&feature={int(j)}" for j in sae.nearest[place]]
    assert numbers(own.locator("a.link > b").all_inner_texts()) == pytest.approx(
        sae.nearest_cosine[place].tolist(), rel=0.06, abs=1e-3
    )


def test_class_distribution(shown):
    sae, place, page = shown
    share = sae.label_share[place].nan_to_num(0).sort(descending=True, stable=True).values
    wanted = [100 * float(value) for value in share if value > 0][:8]
    assert numbers(panel(page, "Classes").locator(".bars > b").all_inner_texts()) == pytest.approx(wanted, abs=0.51)


def test_classes_beyond_those_shown_are_summed_up(visit, browser_of_features, found, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[type(browser_of_features).__module__], "LABELS_SHOWN", 2)
    sae = found.saes["base standard"]
    share = sae.label_share.nan_to_num(0).sort(descending=True).values
    place = int(share[:, 2:].sum(1).argmax())
    path = browser_of_features.save(tmp_path / "features.html")
    page = visit(path)
    page.evaluate("hash => { location.hash = hash; }", f"feature={int(sae.chosen[place])}")
    bars = panel(page, "Classes").locator(".bars")
    bars.wait_for()
    assert bars.locator("> span").all_inner_texts()[2:] == ["other classes"]
    wanted = [100 * float(value) for value in (*share[place, :2], share[place, 2:].sum())]
    assert numbers(bars.locator("> b").all_inner_texts()) == pytest.approx(wanted, abs=0.51)


def test_direct_effect_through_decoder_and_head(shown):
    sae, place, page = shown
    logits, j = sae.features.logits, int(sae.chosen[place])
    wanted = [*logits.raised_by[j].tolist(), *logits.lowered_by[j].tolist()[::-1]]
    shown_values = numbers(panel(page, "Direct effect").locator(".bars > b").all_inner_texts())
    assert shown_values == pytest.approx(wanted, rel=6e-3, abs=1e-6)


def test_clean_against_corrupted(shown):
    sae, place, page = shown
    j = int(sae.chosen[place])
    texts = panel(page, "Clean against corrupted").locator(".bars > b").all_inner_texts()
    moved = list(sae.features.sensitivity.values())
    assert numbers([texts[0]])[0] == pytest.approx(float(moved[0].clean_mean[j]), rel=6e-3)
    for text, one in zip(texts[1:], moved, strict=True):
        mean, kept = text.split(" · keeps ")
        assert numbers([mean])[0] == pytest.approx(float(one.clean_mean[j] + one.mean_difference[j]), rel=6e-3)
        assert numbers([kept])[0] == pytest.approx(100 * float(one.kept[j]), abs=0.51)


def test_quantile_and_random_examples_are_named(shown, found):
    sae, place, page = shown
    tiles = [text.split("\n")[0] for text in page.locator("#detail .tile").all_inner_texts()]
    kinds = [k for k, row in zip(found.example_kinds, sae.example_row[place].tolist(), strict=True) if row >= 0]
    assert {"top", "random"} < set(kinds)
    assert len(tiles) == len(kinds)
    for text, kind in zip(tiles, kinds, strict=True):
        assert text.endswith(f" · {kind}") if kind != "top" else " · " not in text
