"""The files of tests that take longest, which begin first, so that no process ends long before the others."""

from __future__ import annotations

FILES = (
    "test_compare.py",
    "test_report_browser.py",
    "test_reproduce.py",
    "test_make_nulls.py",
    "test_bad_command_lines.py",
    "test_family_hooks.py",
    "test_families.py",
    "test_report_use.py",
    "test_gain_section.py",
    "test_capturing.py",
    "test_kill_points.py",
    "test_feature_browser_page.py",
    "test_themes.py",
    "test_interrupts.py",
    "test_reproduce_imagenet.py",
    "test_claims.py",
    "test_finetune.py",
    "test_cache_shuffle.py",
    "test_transfer_run.py",
    "test_figure_page.py",
    "test_feature_list_page.py",
    "test_splicing.py",
    "test_patch_lens_view.py",
    "test_explorer_browser.py",
    "test_downloads.py",
    "test_export.py",
    "test_resume.py",
    "test_processing.py",
    "test_transfer_figures.py",
    "test_attributions.py",
)
"""The longest first; whatever takes under 6 s of two busy cores is not worth a line."""
