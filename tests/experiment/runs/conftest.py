"""A run's folder for tests of its stages."""

from __future__ import annotations

import pytest

from mechvit import files


@pytest.fixture
def run_folder(tmp_path):
    """Mark the folder as ours, as a run does."""
    files.begin(tmp_path, "views")
