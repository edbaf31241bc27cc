from __future__ import annotations

import base64
import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from fake_run import write_fake_run

from mechvit.visualization import read_run, render_report
from mechvit.visualization.html_page.page import circuitsvis_script, plotly_script
from mechvit.visualization.report.report_page import figure_spec, max_tokens, report_html
from mechvit.visualization.report.sections import SECTIONS

TABLES = 10
"""Tables that the figures were drawn from: several figures share one."""


class Outline(HTMLParser):
    """Element counts, section ids in order, and the text outside scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.counts, self.sections, self.words, self.inside = {}, [], [], ""
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.inside = tag
        if tag == "section":
            self.sections.append(dict(attrs)["id"])

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside not in ("script", "style"):
            self.words.append(data)


@pytest.fixture(scope="module")
def outline(html) -> Outline:
    return Outline(html)


def test_sections_come_in_order_with_the_claims_first(outline):
    own = [section.id for section in SECTIONS]
    assert outline.sections == ["claims", *own, "examples", "views", "made"]


def test_page_is_small_and_holds_each_bundle_once(html):
    assert len(html.encode()) < 8_000_000
    assert html.count(str(plotly_script())) == html.count(str(circuitsvis_script())) == 1
    assert "Content-Security-Policy" in html
    assert not re.search(r"<(script|link|img|iframe)[^>]*\b(src|href)=\"(?!data:)", html)


def test_every_claim_is_a_row_with_its_verdict_and_rule(html, run):
    table = html[html.index('<table class="claims">') : html.index("</table>", html.index('<table class="claims">'))]
    rows = re.findall(r'<tr id="claim-(\w+)">(.*?)</tr>', table, re.S)
    assert [id for id, _ in rows] == [claim["id"] for claim in run.claims]
    for (_, row), claim in zip(rows, run.claims, strict=True):
        text = Outline(row).text
        assert claim["claim"] in text
        assert text.endswith(claim["verdict"])
        assert claim["rule"] in text
        assert f"{claim['what']}." in text
        assert claim["source"][1:] in text


def test_every_figure_has_its_reading_and_definition(html, run, outline):
    specs = [spec for section in SECTIONS for spec in section.figures]
    assert html.count('class="plot"') == 1 + len(specs) == 12  # the claims' own figure, too
    for spec in specs:
        drawn = json.loads(re.search(rf'id="spec-{spec.id}">(.*?)</script>', html, re.S)[1])
        assert "template" not in drawn["layout"]
        assert not drawn["layout"].get("title", {}).get("text")  # the page's own heading has it
        assert spec.definition in outline.text
        for paragraph in spec.reading(run.table(spec.table, spec.columns)):
            assert paragraph in outline.text


def test_every_figure_and_table_offers_its_data_once(html, run):
    buttons = re.findall(r'<button type="button" class="csv" data-table="table-([\w-]+)"', html)
    held = re.findall(r'<script type="application/json" id="table-([\w-]+)">', html)
    assert len(buttons) == 12 + 2  # Table 1 and the SAEs' quality
    assert sorted(set(buttons)) == sorted(held)
    assert len(held) == TABLES


def test_claims_and_figures_lead_to_each_other(html, run):
    for claim in run.claims:
        row = html[html.index(f'<tr id="claim-{claim["id"]}">') :].split("</tr>")[0]
        for figure in re.findall(r'<a href="#([\w-]+)">', row):
            own = html[html.index(f'<figure class="figure" id="{figure}">') :].split("</figure>")[0]
            assert f'<a href="#claim-{claim["id"]}">' in own
        assert '<a href="#' in row


@pytest.mark.long
def test_features_are_linked_where_they_are(run_folder, tmp_path):
    assert 'href="features.html"' not in (run_folder / "report.html").read_text(encoding="utf-8")
    run = tmp_path / "run"
    shutil.copytree(run_folder, run, ignore=shutil.ignore_patterns("views", "report.html"))
    (run / "features.html").write_text("<!doctype html>")
    html = render_report(run).read_text(encoding="utf-8")
    assert html.count('href="features.html"') == 2  # among the contents, and in the SAEs' section


def test_hostile_labels_are_text(html, outline):
    assert "<script>alert" not in html
    assert "<img src=x" not in html
    assert "<b>cream" not in html
    assert outline.text.count("</script><script>alert(1)</script>") == 3  # example, attention view, configuration
    assert "<img src=x onerror=alert(2)> first layer" in outline.text
    # theme, figures, attention, explorer, lens and its two figures, tables, colours; plotly, circuitsvis and our own
    scripts = 1 + 12 + 1 + 1 + 3 + TABLES + 1 + 2 + 8
    assert outline.counts["script"] == html.count("</script>") == scripts


def test_figure_spec_is_narrow_and_exact():
    values = np.array([0.1, np.nan, 3.0])
    spec = json.loads(figure_spec(go.Figure(go.Scatter(x=np.arange(3), y=values), layout={"title": "</script>"})))
    (trace,) = spec["data"]
    assert (trace["x"]["dtype"], trace["y"]["dtype"]) == ("i1", "f4")
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(trace["y"]["bdata"]), "<f4"), values.astype("f4"))
    assert spec["layout"] == {"title": {"text": "</script>"}}


def test_attention_sets_pair_base_with_the_tuned_model(html):
    spec = json.loads(re.search(r'<div class="cv"><script type="application/json">(.*?)</script>', html, re.S)[1])
    titles = {s["title"]: [spec["panels"][panel]["title"] for panel in s["panels"]] for s in spec["sets"]}
    assert titles == {
        f"Gaussian {family} 4": [
            "Base, clean image",
            f"Base, Gaussian {family} 4 image",
            f"{family.capitalize()} 4 tuned, clean image",
            f"{family.capitalize()} 4 tuned, Gaussian {family} 4 image",
        ]
        for family in ("blur", "noise")
    }
    assert len(spec["panels"]) == 7  # the clean base is shared
    assert all(panel["picture"].startswith("data:image/webp") for panel in spec["panels"])
    assert len(spec["tokens"]) == 37  # three heads: no pooling needed


def test_max_tokens_shrinks_with_heads():
    assert [max_tokens(heads) for heads in (12, 16, 6, 3)] == [35, 30, 50, 70]


@pytest.mark.long
def test_a_run_without_saes_says_so(tmp_path):
    run = write_fake_run(tmp_path / "run", saes=False, images=20)
    out = render_report(run, tmp_path / "elsewhere" / "page.html")
    assert out == tmp_path / "elsewhere" / "page.html"
    page = Outline(out.read_text(encoding="utf-8"))
    assert page.sections.index("saes") == 4
    for spec in SECTIONS[3].figures:
        assert f"Left out: {spec.source}. This run has no rows in tables/ {spec.table}.parquet" in re.sub(
            r"tables/", "tables/ ", page.text
        )
    assert page.text.count("Left out: ") == 3
    assert "Explained variance" not in page.text
    assert not (run / "report.html").exists()


@pytest.mark.long
def test_a_run_without_views_says_so(run_folder, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(run_folder, run, ignore=shutil.ignore_patterns("views", "report.html"))
    html = render_report(run).read_text(encoding="utf-8")
    page = Outline(html)
    assert page.text.count("Left out: this run has no") == 4
    assert str(circuitsvis_script()) not in html


@pytest.mark.long
def test_an_empty_table_is_left_out(run_folder, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(run_folder, run, ignore=shutil.ignore_patterns("views", "report.html"))
    path = run / "tables" / "first_correct.parquet"
    pd.read_parquet(path).iloc[:0].to_parquet(path)
    assert "Left out: Figures 5 and 6." in Outline(report_html(read_run(run))).text


@pytest.mark.parametrize(
    "name", ["claims.json", "config.json", "provenance.json", "tables/performance_summary.parquet"]
)
def test_an_unfinished_run_is_named(run_folder, tmp_path, name):
    run = tmp_path / "run"
    shutil.copytree(run_folder, run, ignore=shutil.ignore_patterns("views", "report.html"))
    (run / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"lacks {re.escape(name)}: finish the run first"):
        render_report(run)
    assert not (run / "report.html").exists()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("claims.json", '[{"id": "a"', "claims.json is damaged or no JSON"),
        ("claims.json", '[{"id": "a"}]', r"claims.json, entry 0, lacks claim, "),
        ("provenance.json", '{"versions": {}}', r"provenance.json lacks hardware, seeds, stages"),
    ],
)
def test_a_broken_file_is_named(run_folder, tmp_path, name, text, message):
    run = tmp_path / "run"
    shutil.copytree(run_folder, run, ignore=shutil.ignore_patterns("views", "report.html"))
    (run / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        render_report(run)


def test_no_part_is_left_beside_the_report(run_folder):
    assert sorted(path.name for path in run_folder.iterdir()) == [
        "claims.json",
        "config.json",
        "provenance.json",
        "report.html",
        "tables",
        "views",
    ]
