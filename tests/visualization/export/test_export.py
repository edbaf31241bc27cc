"""Figures as files: what is refused before anything is drawn, and what kaleido and chromium write."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import plotly.graph_objects as go
import pytest
from browsing import CHROMIUM, needs_chromium
from PIL import Image

from mechvit import files
from mechvit.experiment import reproduce
from mechvit.experiment.config import PHOTOS
from mechvit.visualization.export import figure_files as export
from mechvit.visualization.export.figure_files import export_figures, formats_named, require_exporter, write_figures
from mechvit.visualization.export.print_layout import for_paper
from mechvit.visualization.report.sections import SECTIONS

needs_kaleido = pytest.mark.skipif(
    importlib.util.find_spec("kaleido") is None, reason="needs kaleido (the export extra)"
)
HOSTILE = "</script><script>alert(1)</script>"


def test_formats_with_commas_or_spaces():
    assert formats_named(["png,svg, pdf"]) == formats_named(["png", "svg", "pdf", "svg"]) == ("png", "svg", "pdf")
    assert formats_named([]) == ()
    with pytest.raises(ValueError, match="written as png, svg, pdf; got gif, exe"):
        formats_named(["svg,gif", "exe"])


def test_missing_parts_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs kaleido: pip install 'mechvit\[export\]'"):
        require_exporter()
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("BROWSER_PATH", raising=False)
    with pytest.raises(ValueError, match="needs chromium or Chrome, and there is none on the PATH"):
        require_exporter()
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match="nothing, which is no program"):
        require_exporter()
    browser = tmp_path / "chromium"
    browser.write_text("#!/bin/sh\n")
    browser.chmod(0o755)
    monkeypatch.delenv("BROWSER_PATH")
    assert require_exporter() == str(browser)


@pytest.mark.parametrize(("formats", "path"), [(("gif",), None), (("svg",), "")])
def test_an_experiment_refuses_before_it_starts(monkeypatch, tmp_path, formats, path):
    if path is not None:
        monkeypatch.setenv("PATH", path)
        monkeypatch.delenv("BROWSER_PATH", raising=False)
    with pytest.raises(ValueError, match=r"written as|needs"):
        reproduce(replace(PHOTOS, out=str(tmp_path / "run"), export=formats))
    assert not (tmp_path / "run").exists()


def test_no_format_is_no_export(run_folder, monkeypatch):
    monkeypatch.setattr(export, "require_exporter", lambda: "chromium")
    with pytest.raises(ValueError, match="at least one format and one column"):
        export_figures(run_folder, formats=[])


@pytest.fixture(scope="module")
def small() -> go.Figure:
    layout = {"height": 300, "margin": {"t": 40, "b": 40}, "xaxis": {"title": {"text": "layer"}}}
    return go.Figure(go.Scatter(x=[0, 1, 2], y=[1, 3, 2], name=HOSTILE, showlegend=True), layout)


@needs_kaleido
@needs_chromium
def test_files_have_the_columns_width_and_text_as_text(small, tmp_path):
    figures = {"a_single": for_paper(small, "single")}
    paths = write_figures(figures, tmp_path / "figures", ["png", "svg", "pdf"], CHROMIUM)
    assert [path.name for path in paths] == ["a_single.png", "a_single.svg", "a_single.pdf"]
    png, svg, pdf = paths
    with Image.open(png) as picture:
        assert picture.width == pytest.approx(3.375 * 300, abs=2)
        assert len(picture.convert("L").getcolors(300)) > 20  # something is drawn
    text = svg.read_text(encoding="utf-8")
    assert float(re.search(r'<svg[^>]* width="([\d.]+)"', text)[1]) == 324
    assert re.search(r"<text[^>]*>layer</text>", text)
    assert "<script" not in text
    data = pdf.read_bytes()
    assert data.startswith(b"%PDF")
    width, height = (float(x) for x in re.search(rb"/MediaBox\s*\[0 0 ([\d.]+) ([\d.]+)\]", data).groups())
    assert width == pytest.approx(3.375 * 72, abs=1)
    assert height == pytest.approx(figures["a_single"].layout.height * 0.75, abs=1.5)
    assert b"/Font" in data
    assert b"/Subtype /Image" not in data  # vectors
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == [
        files.MARKER,
        "a_single.pdf",
        "a_single.png",
        "a_single.svg",
    ]


@needs_kaleido
@needs_chromium
def test_a_failure_leaves_earlier_files(small, tmp_path, monkeypatch):
    files.begin(tmp_path, "figures")
    files.write_text(tmp_path / "a_single.svg", "before")

    def killed(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_figures({"a_single": for_paper(small, "single")}, tmp_path, ["svg"], CHROMIUM)
    assert {path.name for path in tmp_path.iterdir()} == {files.MARKER, "a_single.svg"}
    assert (tmp_path / "a_single.svg").read_text() == "before"


@needs_kaleido
@needs_chromium
def test_a_folder_with_other_files_is_refused_before_anything_is_drawn(small, tmp_path):
    (tmp_path / "mine.svg").write_text("mine")
    with pytest.raises(ValueError, match="holds other files: give a new folder"):
        write_figures({"a_single": small}, tmp_path, ["svg"], "no browser is started")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.svg"]


@needs_kaleido
@needs_chromium
@pytest.mark.slow
def test_a_whole_run_is_written(run_folder, tmp_path):
    paths = export_figures(run_folder, tmp_path / "figures", ["svg"])
    ids = ["claims-figure", *(spec.id for section in SECTIONS for spec in section.figures)]
    assert [path.name for path in paths] == [f"{id}_{column}.svg" for id in ids for column in ("single", "double")]
    for path in paths:
        text = Path(path).read_text(encoding="utf-8")
        assert float(re.search(r'<svg[^>]* width="([\d.]+)"', text)[1]) == (324 if "single" in path.name else 672)
        assert "<script" not in text
        assert "<img" not in text


def test_a_run_that_is_not_finished_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "require_exporter", lambda: shutil.which("true") or "true")
    with pytest.raises(FileNotFoundError, match="finish the run first"):
        export_figures(tmp_path)
