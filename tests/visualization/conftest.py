"""One synthetic run and its report, shared by the tests of figures and of the page, and a browser without a network."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # how fast pages are is measured there

from browsing import CHROMIUM, Visits
from fake_run import write_fake_run
from feature_pages import make_browser

from mechvit import HookedViT
from mechvit.views import attention_explorer
from mechvit.visualization import RunResults, read_run, render_report


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory) -> Path:
    """A whole run with its `report.html`; tests must leave it as it is."""
    folder = write_fake_run(tmp_path_factory.mktemp("run") / "photos")
    render_report(folder)
    return folder


@pytest.fixture(scope="session")
def run(run_folder) -> RunResults:
    return read_run(run_folder)


@pytest.fixture(scope="session")
def html(run_folder) -> str:
    """The report's text."""
    return (run_folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def browser() -> Iterator:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser) -> Iterator[Callable]:
    """Open a file offline; what `Visits` hears of its pages fails the test at its end."""
    visits = Visits(browser)
    yield visits.open
    visits.close()
    assert visits.faults == []


@pytest.fixture(scope="module")
def visits_of_module(browser) -> Iterator[Visits]:
    visits = Visits(browser)
    yield visits
    visits.close()
    assert visits.faults == []


@pytest.fixture
def visit_once(visits_of_module) -> Iterator[Callable]:
    """Open a file as `visit` does, or return to the page as an earlier test of the module left it: a report takes
    seconds to draw."""
    yield visits_of_module.open_once
    heard = visits_of_module.faults.copy()
    visits_of_module.faults.clear()
    assert heard == []


@pytest.fixture(scope="module")
def browser_of_features(tiny_hf, tiny_processor, tiny_images):
    return make_browser(tiny_hf, tiny_processor, tiny_images)


@pytest.fixture(scope="module")
def found(browser_of_features):
    return browser_of_features.found


@pytest.fixture(scope="module")
def path(browser_of_features, tmp_path_factory):
    return browser_of_features.save(tmp_path_factory.mktemp("features") / "features.html")


@pytest.fixture
def open_at(visit, path):
    def go(address="", **options):
        page = visit(path, **options)
        if address:
            page.evaluate("hash => { location.hash = hash; }", address)
            page.wait_for_timeout(50)
        return page

    return go


@pytest.fixture(scope="module")
def explorer(tiny_hf, tiny_processor, tiny_images):
    """Base and tuned, three pictures, blur and noise."""
    tuned = copy.deepcopy(tiny_hf)
    with torch.no_grad():
        for layer in tuned.vit.layers:
            layer.attention.q_proj.weight.mul_(1.5)
    models = {"Base": HookedViT.from_hf(tiny_hf, tiny_processor), "Tuned": HookedViT.from_hf(tuned, tiny_processor)}
    return attention_explorer(models, tiny_images, ["gaussian_blur_4", "gaussian_noise_4"], limit=3)
