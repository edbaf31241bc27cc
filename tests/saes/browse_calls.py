"""The settings of a small feature browser, for its tests."""

from __future__ import annotations

from mechvit.saes.dashboard.results import Browsing

SMALL = Browsing(n_features=20, n_images=4, top_images=3, random_images=2, nearest=3, strongest=4, batch_size=7, seed=3)
