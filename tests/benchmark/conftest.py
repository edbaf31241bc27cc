"""Images in memory for the tests of planted changes."""

from __future__ import annotations

import pytest

from mechvit.data.batches import ImageBatch, iter_batches


@pytest.fixture(scope="session")
def batch(tiny_images) -> ImageBatch:
    """All 24 tiny images."""
    return next(iter_batches(tiny_images, batch_size=24))
