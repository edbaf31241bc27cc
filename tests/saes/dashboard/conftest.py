"""A small feature browser of one SAE, for the tests of what it holds and of what it shows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from browse_calls import SMALL
from evaluation_saes import CORRUPTIONS

from mechvit.saes.dashboard.collect import browse_features


@pytest.fixture
def make(tiny_model, batch) -> Callable:
    def browse(sae, images=batch, model=tiny_model, corruptions=CORRUPTIONS, settings=SMALL, **options):
        return browse_features({"one": (model, sae)}, images, corruptions, settings=settings, **options)

    return browse
