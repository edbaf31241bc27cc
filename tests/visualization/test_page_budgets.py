"""How large the pages are and how soon they can be used, against the budgets, with slack for a busy machine."""

from __future__ import annotations

import numpy as np
import pytest
from browsing import FRAME, SLACK, needs_chromium
from fake_run import write_large_run
from feature_pages import large_browser
from pages import open_page

from mechvit.visualization import render_report

pytestmark = [needs_chromium, pytest.mark.slow]


@pytest.mark.parametrize("name", ["report", "features"])
def test_pages_of_the_stated_size_are_small_and_quick(browser, tmp_path, name):
    """8 pictures of 224 px, 12 layers of 12 heads, two models; 200 latents."""
    if name == "report":
        path = render_report(write_large_run(tmp_path / "run"))
    else:
        path = large_browser().save(tmp_path / "features.html")
    found = open_page(browser, path)
    redraws = {view: 1e3 * float(np.median(costs)) for view, costs in found.redraws.items()}
    size = path.stat().st_size / 1e6
    print(
        f"{name}: {size:.1f} MB, first figure within {found.first:.2f} s, everything within {found.all:.2f} s, "
        + ", ".join(f"{view} {cost:.1f} ms" for view, cost in redraws.items())
    )
    assert size <= 25
    assert found.first < 2 * SLACK
    assert found.all < 5 * SLACK
    assert set(redraws) == ({"explorer redraw", "patch lens redraw"} if name == "report" else set())
    assert all(cost < FRAME * SLACK for cost in redraws.values())
