"""The section on where the gain lives: its figures, what they say, and the open questions in the report."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from browsing import needs_chromium, until
from fake_gain import MODELS, gain_tables
from fake_run import write_fake_run

from mechvit.visualization import read_run, render_report
from mechvit.visualization.report.gain_section import gain_section
from mechvit.visualization.report.run_figures import draw_figure, sections

OF_ALL = ["gain-patching", "gain-related", "gain-steering", "gain-similarity", "gain-depth"]
OF_ONE = [
    "gain-swaps",
    "gain-interpolation",
    "gain-heads",
    "gain-attribution",
    "gain-latents",
    "gain-shared",
    "gain-ablation",
]
QUESTION = {
    "id": "open_isolate_gaussian_blur",
    "claim": "Can it be isolated <script>alert(1)</script>?",
    "source": "section 5, future work",
    "what": "Share on held-out images",
    "unit": "share of the gain",
    "kind": "other",
    "threshold": None,
    "rule": "Yes when at most half do; no when not; otherwise unclear.",
    "parts": [
        {"label": "recovered", "value": 0.9, "low": 0.85, "high": 0.95},
        {"label": "parts in the set, of 11: blocks.0.attn, blocks.0.mlp", "value": 3, "low": None, "high": None},
    ],
    "decides": 0,
    "verdict": "yes",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A run whose strongest models were taken apart."""
    run = write_fake_run(tmp_path_factory.mktemp("gain") / "photos")
    for name, table in gain_tables(np.random.default_rng(0)).items():
        table.to_parquet(run / "tables" / f"{name}.parquet")
    claims = json.loads((run / "claims.json").read_text())
    (run / "claims.json").write_text(json.dumps([*claims, QUESTION]))
    return run


@pytest.fixture(scope="module")
def run(folder):
    return read_run(folder)


@pytest.fixture(scope="module")
def html(folder) -> str:
    return render_report(folder).read_text(encoding="utf-8")


def test_a_run_that_took_no_model_apart_has_no_such_section(tmp_path):
    run = read_run(write_fake_run(tmp_path / "run", saes=False, images=20))
    assert gain_section(run) is None
    assert [section.id for section in sections(run)] == ["performance", "lens", "attention", "saes"]


@pytest.mark.long
def test_every_figure_is_drawn_and_said(run):
    section = gain_section(run)
    assert [spec.id for spec in section.figures] == [*OF_ALL, *(f"{id}-{model}" for model in MODELS for id in OF_ONE)]
    for spec in section.figures:
        found = draw_figure(run, spec)
        assert len(found.figure.data) > 0, spec.id
        (said,) = found.reading[:1]
        assert re.search(r"\d", said), spec.id
        assert "nan" not in said
        title = found.figure.layout.title.text
        if spec.id.endswith(MODELS):
            assert title.startswith(("Gaussian blur 4: ", "Gaussian noise 4: "))


@pytest.mark.long
def test_readings_say_what_the_tables_say(run):
    said = {spec.id: " ".join(draw_figure(run, spec).reading) for spec in gain_section(run).figures}
    table = run.table("gain_patching").query(
        "tuned_on == 'gaussian_blur_4' and direction == 'tuned into base' and quantity == 'logit_difference'"
        " and kind != 'resid'"
    )
    best = table.loc[table["recovered"].idxmax()]
    assert f"block {best['layer']}: {best['recovered']:+.2f} [" in said["gain-patching"]
    swaps = run.table("gain_swaps").query(
        "tuned_on == 'gaussian_noise_4' and direction == 'tuned into base' and corruption == 'gaussian_noise_4'"
    )
    best = swaps.loc[swaps["recovered"].idxmax()]
    assert f"share of the gap is {best['part']}: {best['recovered']:+.2f}" in said["gain-swaps-gaussian_noise_4"]
    assert "holds 3 of 11 parts: blocks.0.attn, blocks.0.mlp and blocks.1.attn" in said["gain-swaps-gaussian_noise_4"]
    assert "On held-out images it recovers +0.90 [+0.85, +0.95]" in said["gain-swaps-gaussian_noise_4"]
    assert "at blocks.1.hook_resid_post recovers +0.20 [+0.15, +0.25]" in said["gain-steering"]
    assert "+3.0 [−2.0, +8.0] points more than random directions" in said["gain-steering"]
    assert " at alpha 0.5 (77.5%)" in said["gain-interpolation-gaussian_blur_4"]
    assert "distance (receiver) −0.50 [−0.60, −0.40]" in said["gain-heads-gaussian_blur_4"]
    assert said["gain-heads-gaussian_blur_4"].count("(receiver)") == 1
    assert "Pearson’s r 0.99 [0.97, 1.01]" in said["gain-attribution-gaussian_blur_4"]
    assert "differs most from the base at layer 4: CKA 0.800" in said["gain-similarity"]
    assert "−0.30 [−0.40, −0.20] layers for " in said["gain-depth"]
    assert said["gain-latents-gaussian_blur_4"].startswith(
        "At a false discovery rate of 5%, the corruption changes 2 of the base’s 6 latents, and 3 of the 5 matching "
        "latents of the tuned model. In 1 of the matches the two changes differ, most in latent 4: +0.400 in the base, "
        "−0.200"
    )
    shared = said["gain-shared-gaussian_blur_4"]
    assert (
        "changes 2 of the 6 latents in the base and 3 in the tuned model. In 1 the two changes differ; in 1" in shared
    )
    assert "16 with the largest approximate effects, Pearson’s r 0.90" in said["gain-attribution-gaussian_blur_4"]
    assert "4 latents +2.0 [−3.0, +7.0] points" in said["gain-ablation-gaussian_noise_4"]
    assert "on other filters of its group: the gain’s interval lies above zero in 1 of 1" in said["gain-related"]


@pytest.mark.long
def test_questions_have_a_table_of_their_own(html, run):
    assert [claim["id"] for claim in run.questions] == ["open_isolate_gaussian_blur"]
    start = html.index("Questions that the paper leaves open")
    table = html[start : html.index("</table>", start)]
    assert re.findall(r'<tr id="claim-(\w+)">', table) == ["open_isolate_gaussian_blur"]
    assert '<span class="verdict yes">yes</span>' in table
    assert '<a href="#gain-patching">' in table
    assert '<a href="#gain-swaps-gaussian_blur_4">' in table
    assert '<a href="#gain-swaps-gaussian_noise_4">' not in table
    assert "&lt;script&gt;alert(1)" in table
    assert "<span>parts in the set, of 11: blocks.0.attn, blocks.0.mlp</span> <b>3</b>" in table
    assert "1 yes" not in html  # the tally is of the claims alone


DRAWN = "n => document.querySelectorAll('#gain .plot.js-plotly-plot').length === n"


@needs_chromium
def test_one_models_figures_wait_in_a_fold(visit_once, folder, html):
    page = visit_once(folder / "report.html")
    until(page, DRAWN, len(OF_ALL))
    page.wait_for_timeout(500)  # nothing else is drawn while the browser is idle
    assert page.evaluate("document.querySelectorAll('#gain .plot.js-plotly-plot').length") == len(OF_ALL)
    blur, noise = page.locator("#gain details.fold").all()
    assert blur.locator("summary").inner_text().startswith(f"Tuned on Gaussian blur 4 {len(OF_ONE)} figures: Weights")
    page.locator("#claim-open_isolate_gaussian_blur a[href='#gain-swaps-gaussian_blur_4']").click()
    until(page, "() => document.querySelector('#gain-swaps-gaussian_blur_4 .main-svg')")
    until(
        page, "() => Math.abs(document.querySelector('#gain-swaps-gaussian_blur_4').getBoundingClientRect().top) < 120"
    )
    assert (blur.get_attribute("open"), noise.get_attribute("open")) == ("", None)
    blur.locator("summary").press("Enter")
    page.locator("#theme").click()
    blur.locator("summary").press("Enter")  # drawn again in the new theme, at its full width
    until(page, "() => document.querySelector('#gain-swaps-gaussian_blur_4 .plot').layout.paper_bgcolor === '#17191d'")
    assert page.evaluate("document.querySelector('#gain-swaps-gaussian_blur_4 .main-svg').clientWidth") > 800


@needs_chromium
def test_section_is_drawn_offline(visit_once, folder, html):
    page = visit_once(folder / "report.html")
    for fold in page.locator("#gain details.fold:not([open]) summary").all():
        fold.click()
    until(page, DRAWN, len(OF_ALL) + 2 * len(OF_ONE))
    assert page.evaluate("[...document.querySelectorAll('#gain .plot')].every((p) => p.querySelector('path, rect.bg'))")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator("nav.contents a[href='#gain']").click()
    assert page.locator("#gain h2").inner_text() == "Where the gain lives"
    cells = page.locator("#gain-patching .plot .heatmaplayer text, #gain-patching .plot .heatmap-label")
    assert cells.count() > 20  # numbers in the cells


@needs_chromium
def test_an_address_opens_the_fold_and_paper_them_all(visit, folder, html):
    page = visit(folder / "report.html", address="gain-heads-gaussian_noise_4")
    until(page, "() => document.querySelector('#gain-heads-gaussian_noise_4 .main-svg')")
    until(
        page, "() => Math.abs(document.querySelector('#gain-heads-gaussian_noise_4').getBoundingClientRect().top) < 120"
    )
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    until(page, DRAWN, len(OF_ALL) + 2 * len(OF_ONE))
    assert page.locator("#gain-ablation-gaussian_blur_4 .plot").is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert [fold.get_attribute("open") for fold in page.locator("#gain details.fold").all()] == [None, ""]
