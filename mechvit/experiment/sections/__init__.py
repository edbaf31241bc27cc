"""Sections of the runs: each function takes models, images and conditions, and returns tidy tables."""
