"""A figure's own page: everything is drawn offline under the policy, and nothing in the figure becomes markup."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from browsing import needs_chromium, until

from mechvit.visualization import write_figure_page, write_figure_pages
from mechvit.visualization.html_page.page import CSP
from mechvit.visualization.report.run_figures import figures_of_run

ROOT = Path(__file__).parents[3]
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u2028<!--"


def spec_of(page: str) -> dict:
    return json.loads(page.split('id="figure">')[1].split("</script>")[0])


def test_a_page_holds_the_figures_numbers_and_the_policy(tmp_path):
    numbers = np.linspace(-1, 1, 7)
    figure = go.Figure(go.Scatter(x=list(range(7)), y=list(numbers), name="ours"), layout={"title": "Ours & theirs"})
    page = write_figure_page(figure, tmp_path / "new" / "one.html").read_text(encoding="utf-8")
    assert f'http-equiv="Content-Security-Policy" content="{CSP}"'.replace("'", "&#39;") in page
    assert "<title>Ours &amp; theirs</title>" in page
    assert spec_of(page)["data"][0]["y"] == list(numbers)
    assert "MIT" in page.split('class="notices"')[1]


def test_names_in_a_figure_stay_text(tmp_path):
    figure = go.Figure(go.Scatter(x=[1], y=[2], name=HOSTILE), layout={"title": HOSTILE})
    page = write_figure_page(figure, tmp_path / "hostile.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "\u2028" not in page.split('id="figure">')[1].split("</script>")[0]
    assert spec_of(page)["data"][0]["name"] == HOSTILE


@needs_chromium
def test_figures_of_a_run_draw_offline_in_both_themes_and_say_nothing(visit, run, tmp_path):
    figures = {found.spec.id: found.figure for found in figures_of_run(run)}
    chosen = dict(list(figures.items())[::4][:4])
    assert write_figure_pages(chosen, tmp_path) == len(chosen) > 1
    themes = {"light": "rgb(255, 255, 255)", "dark": "rgb(23, 25, 29)"}
    for i, name in enumerate(chosen):
        first, second = themes if i % 2 else reversed(themes)
        page = visit(tmp_path / f"{name}.html", theme=first)
        until(page, "() => document.querySelectorAll('.plot.js-plotly-plot').length === 1")
        assert page.evaluate("document.querySelector('.plot').querySelectorAll('path, rect.bg').length > 3")
        assert page.evaluate("document.querySelector('.main-svg').style.background") == themes[first]
        page.emulate_media(color_scheme=second)
        until(page, "(ink) => document.querySelector('.main-svg').style.background === ink", themes[second])


@needs_chromium
def test_the_policy_lets_no_form_and_no_base_through(browser, tmp_path):
    """The browser stops anything that a page's own text could smuggle in."""
    path = write_figure_page(go.Figure(go.Scatter(x=[1], y=[2])), tmp_path / "one.html")
    context = browser.new_context(offline=True)
    page, said = context.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.goto(path.as_uri())
    page.evaluate("""() => {
        const base = document.createElement('base');
        base.href = 'https://example.org/';
        document.head.append(base);
        const form = document.createElement('form');
        form.action = 'https://example.org/';
        document.body.append(form);
        form.submit();
    }""")
    page.wait_for_timeout(200)
    assert page.url == path.as_uri()
    assert page.evaluate("document.baseURI") == path.as_uri()
    context.close()
    for rule in ("base-uri 'none'", "form-action 'none'"):
        assert any(rule in message for message in said), said


def test_figures_are_written_by_this_function_alone():
    calls = [
        path.relative_to(ROOT).as_posix()
        for folder in ("mechvit", "scripts", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in ("write_html", "to_html")
    ]
    assert calls == []
