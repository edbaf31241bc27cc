from . import figures
from .attention_view import AttentionPanel, AttentionView, attention_view
from .feature_browser import FeatureBrowser, feature_browser
from .patterns import pool_patterns
from .report import render_report
from .run_files import Run, read_run

__all__ = [
    "AttentionPanel",
    "AttentionView",
    "FeatureBrowser",
    "Run",
    "attention_view",
    "feature_browser",
    "figures",
    "pool_patterns",
    "read_run",
    "render_report",
]
