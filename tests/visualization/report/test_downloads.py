"""The CSV buttons in a real browser, offline: what is saved is the very table that the figure was drawn from."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pandas as pd
import pytest
from browsing import needs_chromium, until
from fake_tables import TUNED
from page_parts import latents, status
from random_maps import random_explorer, random_lens

from mechvit.visualization.report.claims_table import claim_effects
from mechvit.visualization.report.run_figures import draw_figure
from mechvit.visualization.report.sections import SECTIONS

pytestmark = needs_chromium
SPECS = [spec for section in SECTIONS for spec in section.figures]
HOSTILE = '=HYPERLINK("http://x"), </script><script>alert(1)</script>\n"two"'


def saved(page, press) -> tuple[str, str]:
    """The name and the text of what a press saves."""
    with page.expect_download() as waiting:
        press()
    with open(waiting.value.path(), encoding="utf-8", newline="") as file:
        return waiting.value.suggested_filename, file.read()


def test_every_figure_saves_its_table(visit_once, run_folder, run):
    page = visit_once(run_folder / "report.html")
    for spec in SPECS:
        button = page.locator(f"#{spec.id} button.csv")
        name, text = saved(page, button.click)
        assert name == f"{spec.id if spec.summarise else spec.table}.csv"
        wanted = draw_figure(run, spec).table.reset_index(drop=True)
        pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(text)), wanted, check_dtype=False, rtol=1e-12)
        assert "CSV" in button.inner_text()
        assert button.get_attribute("aria-label").startswith("Save the data of ")


def test_claims_are_saved_with_hostile_parts_as_text(visit_once, run_folder, run):
    page = visit_once(run_folder / "report.html")
    _, text = saved(page, page.locator("#claims-figure button.csv").click)
    pd.testing.assert_frame_equal(
        pd.read_csv(io.StringIO(text), keep_default_na=False, na_values=[""]).fillna({"part": ""}),
        claim_effects(run.claims),
        check_dtype=False,
        rtol=1e-12,
    )
    assert "<img src=x onerror=alert(2)> first layer" in text


def test_the_keyboard_saves_table_one(visit_once, run_folder, run):
    page = visit_once(run_folder / "report.html")
    button = page.locator("#performance .table button.csv")
    button.focus()
    name, text = saved(page, lambda: page.keyboard.press("Enter"))
    assert name == "performance_summary.csv"
    assert len(pd.read_csv(io.StringIO(text))) == len(run.table("performance_summary"))


@pytest.fixture
def hostile() -> dict:
    return {"models": [HOSTILE, "+tuned"], "conditions": ["clean", TUNED[0]], "titles": [HOSTILE, "x" * 10_000]}


def test_explorer_saves_its_heads(visit, tmp_path, hostile):
    explorer = random_explorer(**hostile, layers=2, heads=3, side=4)
    page = visit(explorer.save(tmp_path / "explorer.html"))
    until(page, "() => document.querySelector('.ex').dataset.drawn")
    name, text = saved(page, page.get_by_role("button", name="Heads’ numbers (CSV)").click)
    assert name == "heads.csv"
    header, *rows = csv.reader(io.StringIO(text, newline=""))
    assert header == ["picture", "model", "condition", "layer", "head", "entropy_nats", "distance_patches", "CLS_mass"]
    assert len(rows) == 2 * 2 * 2 * 3
    assert {row[0] for row in rows} == {f"'{HOSTILE}"}  # an apostrophe, so that no spreadsheet computes it
    assert {row[1] for row in rows} == {f"'{HOSTILE}", "'+tuned"}
    panels = json.loads(json.dumps(explorer.spec()))["pictures"][0]["panels"]
    first, last = rows[0], rows[-1]
    for row, panel, layer, head in ((first, panels[0][0], 0, 0), (last, panels[1][1], 1, 2)):
        wanted = [panel["entropy"][layer][head], panel["distance"][layer][head], panel["prefix_mass"][layer][head][0]]
        np.testing.assert_allclose([float(value) for value in row[5:]], wanted, rtol=1e-9)
    page.locator(".ex-strip input").nth(1).check(force=True)
    until(page, "() => document.querySelector('.ex').dataset.drawn.startsWith('1 ')")
    _, text = saved(page, page.get_by_role("button", name="Heads’ numbers (CSV)").click)
    assert next(csv.reader(io.StringIO(text.split("\r\n", 1)[1], newline="")))[0] == "x" * 10_000


def test_lens_saves_its_lines(visit, tmp_path, hostile):
    lens = random_lens(**hostile, names=[HOSTILE, "cat", "dog"], side=4)
    page = visit(lens.save(tmp_path / "lens.html"))
    until(page, "() => document.querySelector('.pl').dataset.drawn")
    name, text = saved(page, page.get_by_role("button", name="Lines above (CSV)").click)
    assert name == "trajectories.csv"
    read = pd.read_csv(io.StringIO(text, newline=""))
    frame = lens.pictures[0].trajectories
    np.testing.assert_allclose(read["probability"], frame["probability"], rtol=1e-12)
    assert set(read["class"]) == {f"'{HOSTILE}", "cat"}
    assert read["layer"].tolist() == frame["layer"].tolist()


def test_features_save_the_listed_latents(open_at, found):
    page = open_at()
    status(page, "dense")
    name, text = saved(page, page.locator("#list button.csv").click)
    assert name == "latents.csv"
    read = pd.read_csv(io.StringIO(text, newline=""))
    features = found.saes["base standard"].features
    assert read["latent"].tolist() == latents(page)
    listed, moved = read["latent"].tolist(), found.saes["base standard"].sensitivity[2]
    np.testing.assert_allclose(read["firing_rate"], features.firing_rate[listed], rtol=1e-6)
    np.testing.assert_allclose(read["moved_by_gaussian_noise_4"], moved[listed], rtol=1e-6)
    assert set(read["sae"]) == {"base standard"}
    assert read["class"].str.startswith("</script><script>").any() or len(set(read["class"])) > 1
