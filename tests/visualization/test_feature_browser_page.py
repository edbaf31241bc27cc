"""The feature browser in a real browser, offline: what is sorted, filtered, opened, clicked and drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from browsing import needs_chromium, until
from feature_pages import CORRUPTIONS, HOSTILE, LONG, SMALL, hostile_model
from page_parts import column, latents, pixels, status
from random_saes import make_sae

from mechvit import HookedViT
from mechvit.views import feature_browser

pytestmark = needs_chromium


def test_a_deep_link_opens_a_latent(open_at, visit, path, found):
    sae = found.saes["base standard"]
    i = int(sae.ablation.label_logit.nan_to_num(0).abs().argmax())
    j = int(sae.chosen[i])
    page = visit(path.with_name(path.name))
    page.goto(f"{path.as_uri()}#feature={j}")
    page.reload()
    assert page.locator("#detail h2").inner_text() == f"Latent {j}"
    facts = dict(zip(page.locator("dt").all_inner_texts(), page.locator("dd").all_inner_texts(), strict=True))
    assert float(facts["Highest"]) == pytest.approx(float(sae.features.max_activation[j]), rel=6e-3)
    text = page.locator("#detail").inner_text()
    for title in (
        "Activations",
        "Classes",
        "Clean against corrupted",
        "Direct effect",
        "Without it",
        "Nearest",
        "The same feature elsewhere",
    ):
        assert title in text
    logit = float(sae.ablation.label_logit[i])
    shown = text.split("The label's logit changes by ")[1].split(",")[0].replace("−", "-")
    assert float(shown) == pytest.approx(logit, rel=6e-3)
    assert page.locator(".tile canvas").count() == int((sae.example_row[i] >= 0).sum())
    assert page.locator(".histogram rect").count() == 24
    tokens = page.evaluate(
        "[...document.querySelectorAll('.histogram rect title')].map((title) => parseInt(title.textContent))"
    )
    assert tokens == sae.histogram[i].tolist()
    assert page.locator("#list tr[aria-current]").get_attribute("data-latent") == str(j)
    page.evaluate("() => { location.hash = 'sae=1&feature=9'; }")
    until(page, "() => document.querySelector('#detail h2').textContent === 'Latent 9'")
    assert page.locator("#bar input[name=sae]:checked").get_attribute("value") == "1"
    page.evaluate("() => { location.hash = 'sae=77&feature=x&image=-1'; }")  # nonsense leads to the images
    until(page, "() => document.querySelector('#detail h2').textContent === 'Ask an image'")


def test_a_latent_without_a_page_says_so(open_at, found):
    sae = found.saes["base standard"]
    j = next(j for j in range(48) if j not in sae.chosen.tolist())
    page = open_at(f"feature={j}")
    assert page.locator("#detail h2").inner_text() == f"Latent {j}"
    assert "images and effects were not kept" in page.locator("#detail").inner_text()
    assert page.locator("#detail canvas").count() == 0


def test_a_number_beyond_the_last_latent_is_named(open_at):
    page = open_at("feature=99999999")
    assert page.locator("#detail h2").inner_text() == "Latent 99999999"
    assert "There is no such latent: base standard has 0 to 47." in page.locator("#detail").inner_text()
    page.locator("#detail nav a").click()
    assert page.locator("#detail h2").inner_text() == "Ask an image"


def test_a_patch_leads_to_its_latents_and_on(open_at, found):
    page = open_at("image=2")
    sae = found.saes["base standard"]
    canvas = page.locator("canvas.big")
    canvas.wait_for()
    box = canvas.bounding_box()
    row, col = 1, 3
    canvas.click(position={"x": box["width"] * (col + 0.5) / 4, "y": box["height"] * (row + 0.5) / 4})
    assert page.locator(".found h3").inner_text() == "Strongest at row 1, column 3"

    def cards():
        return [int(text) for text in page.locator(".strong > span > b").all_inner_texts()]

    token = 1 + row * 4 + col
    wanted = [j for j in sae.strongest.feature[0, 2, token].tolist() if j >= 0]
    assert cards() == wanted
    values = [float(text) for text in page.locator(".strong .num").all_inner_texts()]
    np.testing.assert_allclose(values, sae.strongest.activation[0, 2, token, : len(wanted)], rtol=6e-3)
    page.locator("#detail").get_by_label("Gaussian noise 4").check(force=True)
    assert cards() == [j for j in sae.strongest.feature[2, 2, token].tolist() if j >= 0]
    rows = [
        row.split("\t")
        for row in page.locator(".found").locator("..").locator("table.plain tbody tr").all_inner_texts()
    ]
    codes = [
        dict(
            zip(
                sae.strongest.feature[c, 2, token].tolist(), sae.strongest.activation[c, 2, token].tolist(), strict=True
            )
        )
        for c in range(3)
    ]
    assert {int(row[0]) for row in rows} == {j for own in codes for j in list(own)[:5] if j >= 0}
    for latent, *values in rows:
        for value, own in zip(values, codes, strict=True):
            assert value == "–" if int(latent) not in own else float(value) == pytest.approx(own[int(latent)], rel=6e-3)
    page.get_by_role("button", name="CLS").click()
    assert page.locator(".found h3").inner_text() == "Strongest at CLS"
    assert cards() == [j for j in sae.strongest.feature[2, 2, 0].tolist() if j >= 0]
    canvas.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator(".found h3").inner_text() == "Strongest at row 0, column 1"
    page.keyboard.press("ArrowDown")
    assert page.locator(".found h3").inner_text() == "Strongest at row 1, column 1"
    first = cards()[0]
    page.locator(".strong").first.click()
    assert page.locator("#detail h2").inner_text() == f"Latent {first}"
    assert page.evaluate("location.hash") == f"#sae=0&feature={first}"
    page.go_back()
    until(page, "() => document.querySelector('.found h3')?.textContent === 'Strongest at row 1, column 1'")


def test_overlays_are_drawn_where_the_latent_fires(open_at, found):
    sae = found.saes["base standard"]
    fires = sae.maps[0, :, 0, 1:] > 0  # the strongest image, patches alone
    i = int(((fires.sum(1) - 8).abs() + 99 * (sae.maps[0, :, 0, 1:].amax(1) == 0)).argmin())
    assert 0 < int(fires[i].sum()) < 16
    page = open_at(f"feature={int(sae.chosen[i])}")
    tile = "#detail .tile canvas"
    seen = {}
    for mode in ("Off", "Heat", "Spotlight"):
        page.locator("#bar").get_by_label(mode).check(force=True)
        seen[mode] = pixels(page, tile)
    side = seen["Off"].shape[0] // 4

    def patches(array):
        return array.reshape(4, side, 4, side, 3).transpose(0, 2, 1, 3, 4).reshape(16, -1, 3)

    own = fires[i].numpy()
    plain, heat, light = (patches(seen[mode]) for mode in ("Off", "Heat", "Spotlight"))
    colourful = np.abs(heat - heat.mean(-1, keepdims=True)).mean((1, 2))
    assert (colourful[~own] < 2).all()  # grey where it does not fire
    assert (colourful[own] > 5).all()
    value = np.minimum(1, sae.maps[0, i, 0, 1:].numpy() / float(sae.maps[:, i].max()))
    dimmed = 0.66 * (1 - value)
    wanted = plain.mean((1, 2)) * (1 - dimmed) + np.mean([8, 10, 14]) * dimmed
    np.testing.assert_allclose(light.mean((1, 2)), wanted, atol=2.5)
    page.locator("#detail").get_by_label("Gaussian noise 4").check(force=True)
    noisy = patches(pixels(page, tile)).mean((1, 2))
    value = np.minimum(1, sae.maps[2, i, 0, 1:].numpy() / float(sae.maps[:, i].max()))
    wanted = plain.mean((1, 2)) * (1 - 0.66 * (1 - value)) + np.mean([8, 10, 14]) * 0.66 * (1 - value)
    np.testing.assert_allclose(noisy, wanted, atol=2.5)


def test_matches_lead_to_the_other_sae(open_at, found):
    sae = found.saes["base standard"]
    j = int(sae.chosen[0])
    page = open_at(f"feature={j}")
    match = int(found.matches["base standard", "tuned"].match[j])
    cosine = float(found.matches["base standard", "tuned"].cosine[j])
    link = page.locator(f"a[href='#sae=2&feature={match}']")
    assert float(link.locator(".num").inner_text().replace("−", "-")) == pytest.approx(cosine, rel=0.06, abs=1e-3)
    link.click()
    assert page.locator("#detail h2").inner_text() == f"Latent {match}"
    assert page.locator("#detail p.muted").inner_text().startswith("tuned")
    assert set(latents(page)) == set(found.saes["tuned"].chosen.tolist())
    if match in found.saes["tuned"].chosen.tolist():
        page.locator("#bar").get_by_label("base standard").check(force=True)
        assert page.locator("#detail h2").inner_text() == f"Latent {j}"


def test_hostile_and_long_names_are_text(open_at):
    page = open_at(width=1280)
    assert (
        page.locator("h1").inner_text() == " ".join(HOSTILE.split("\u2028"))
        or page.locator("h1").inner_text() == HOSTILE
    )
    assert page.locator("#bar .choice span span").nth(1).inner_text().startswith("</script>")
    status(page, "all")
    assert any(text.startswith("</script><script>") for text in column(page, 3))
    assert any(text.startswith(LONG[:40]) for text in column(page, 3))
    assert page.evaluate("document.scripts.length") == 8
    assert page.locator("img[onerror]").count() == 0
    for width in (1280, 420):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("Math.max(...[...document.querySelectorAll('td')].map((cell) => cell.offsetHeight))") < 60


@pytest.mark.parametrize("tokens", ["cls", "patches"])
def test_other_tokens_and_no_head(visit, tiny_hf, tiny_processor, tiny_images, tmp_path, tokens):
    """An SAE of CLS has no map to draw, one of patches no CLS to ask; a bare encoder predicts nothing."""
    bare = HookedViT.from_hf(tiny_hf.vit, image_processor=tiny_processor)
    browser = feature_browser({"one": (bare, make_sae(hook_tokens=tokens))}, tiny_images, settings=SMALL)
    sae = browser.found.saes["one"]
    page = visit(browser.save(tmp_path / "features.html"))
    place = "CLS" if tokens == "cls" else "row 2, column 2"
    assert page.locator(".found h3").inner_text() == f"Strongest at {place}"
    assert page.locator(".under button").all_inner_texts() == (["CLS"] if tokens == "cls" else [])
    token = 0 if tokens == "cls" else 10
    strongest = [j for j in sae.strongest.feature[0, 0, token].tolist() if j >= 0]
    assert [int(text) for text in page.locator(".strong > span > b").all_inner_texts()] == strongest
    assert "Predicted" not in page.locator("#detail").inner_text()
    assert page.locator("#bar [name=sae], [name=condition]").count() == 0
    page.locator("#list tbody a").first.click()
    assert page.locator(".tile canvas").count() > 0
    assert (" at CLS" in page.locator(".tile").first.inner_text()) == (tokens == "cls")
    text = page.locator("#detail").inner_text()
    assert "Activations" in text
    assert not any(title in text for title in ("Without it", "Direct effect", "Clean against", "elsewhere"))
    seen = []
    for mode in ("Off", "Heat"):
        page.locator("#bar").get_by_label(mode).check(force=True)
        seen.append(pixels(page, "#detail .tile canvas"))
    assert (np.abs(seen[0] - seen[1]).mean() > 1) == (tokens == "patches")


def test_images_without_labels_are_named_by_their_files(visit, tiny_hf, tiny_processor, tiny_images, tmp_path):
    unlabelled = tiny_images.map(lambda row: {"label": -1, "path": f"day/{row['image_id']}.png"})
    model = HookedViT.from_hf(tiny_hf, image_processor=tiny_processor)
    browser = feature_browser({"one": (model, make_sae(hook_tokens="all"))}, unlabelled, settings=SMALL)
    page = visit(browser.save(tmp_path / "features.html"))
    first = browser.found.shown[0]
    assert page.locator(".under .clip").first.inner_text() == f"{int(browser.found.image_ids[first])}.png"
    page.locator("#list tbody a").first.click()
    text = page.locator("#detail").inner_text()
    assert "Without it" in text
    assert "The label" not in text
    assert "undefined" not in text
    assert "Share of all its activation" not in text


def test_an_sae_that_never_fires(visit, tiny_hf, tiny_processor, tiny_images, tmp_path):
    sae = make_sae(hook_tokens="all")
    with torch.no_grad():
        sae.b_enc.fill_(-1e4)
    model = hostile_model(tiny_hf, tiny_processor)
    browser = feature_browser({"dead": (model, sae)}, tiny_images, CORRUPTIONS, settings=SMALL)
    page = visit(browser.save(tmp_path / "features.html"))
    assert latents(page) == []
    assert "No latent fires here." in page.locator(".found").inner_text()
    status(page, "dead")
    assert len(latents(page)) == 48
    page.locator("#list tbody a").nth(5).click()
    assert page.locator("#detail .tag").inner_text() == "dead"


def test_pointing_at_a_patch_gives_its_value(open_at, found):
    sae = found.saes["base standard"]
    i = int(sae.maps[0, :, 0, 1:].amax(1).argmax())
    page = open_at(f"feature={int(sae.chosen[i])}")
    canvas, value = page.locator(".tile canvas").first, page.locator(".tile b").first
    highest = value.inner_text()
    patch = int(sae.maps[0, i, 0, 1:].argmin())
    box = canvas.bounding_box()
    canvas.hover(position={"x": box["width"] * (patch % 4 + 0.5) / 4, "y": box["height"] * (patch // 4 + 0.5) / 4})
    shown, wanted = float(value.inner_text()), float(sae.maps[0, i, 0, 1 + patch])
    assert shown == pytest.approx(wanted, abs=float(sae.maps[:, i].max()) / 255)
    page.mouse.move(2, 2)
    assert value.inner_text() == highest


def test_pointing_at_a_latent_draws_where_it_is_strong(open_at):
    page = open_at("image=1&token=6")
    plain = pixels(page, "canvas.big")
    page.locator(".strong").first.hover()
    drawn = pixels(page, "canvas.big")
    assert np.abs(plain - drawn).mean() > 3
    page.mouse.move(2, 2)
    np.testing.assert_array_equal(pixels(page, "canvas.big"), plain)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_themes(open_at, theme):
    page = open_at(theme=theme)

    def paper():
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    assert paper() == ("rgb(23, 25, 29)" if theme == "dark" else "rgb(255, 255, 255)")
    before = paper()
    page.locator("#theme").click()
    assert paper() != before


def test_in_a_notebook_frame_links_stay_inside(visit, browser_of_features, tmp_path):
    outer = tmp_path / "notebook.html"
    outer.write_text(f"<!doctype html><title>notebook</title>{browser_of_features._repr_html_()}", encoding="utf-8")
    page = visit(outer)
    frame = page.frame_locator("iframe")
    frame.locator("#list tbody a").first.click()
    assert frame.locator("#detail h2").inner_text().startswith("Latent ")
    frame.locator("#detail nav a").click()
    assert frame.locator("#detail h2").inner_text() == "Ask an image"
    assert page.title() == "notebook"
    assert len(page.frames) == 2


def test_on_a_narrow_screen_the_latent_comes_into_view(open_at):
    page = open_at(width=420)
    page.locator("#list tbody a").first.click()
    until(page, "() => Math.abs(document.getElementById('detail').getBoundingClientRect().top) < 40")
    assert page.locator("#detail h2").inner_text().startswith("Latent ")
