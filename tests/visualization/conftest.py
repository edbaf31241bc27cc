"""One synthetic run and its report, shared by the tests of figures and of the page."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_run import write_fake_run

from mechvit.visualization import Run, read_run, render_report


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory) -> Path:
    """A whole run with its `report.html`; tests must leave it as it is."""
    folder = write_fake_run(tmp_path_factory.mktemp("run") / "photos")
    render_report(folder)
    return folder


@pytest.fixture(scope="session")
def run(run_folder) -> Run:
    return read_run(run_folder)


@pytest.fixture(scope="session")
def html(run_folder) -> str:
    """The report's text."""
    return (run_folder / "report.html").read_text(encoding="utf-8")
