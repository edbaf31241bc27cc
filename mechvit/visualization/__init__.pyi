from . import figures
from .attention_view import AttentionPanel, AttentionView, attention_view
from .explorer import AttentionExplorer, ExplorerPicture, attention_explorer
from .export import export_figures
from .feature_browser import FeatureBrowser, feature_browser
from .figure_page import write_figure_page, write_figure_pages
from .patch_lens import LensPicture, PatchLensView, patch_lens_view
from .patterns import pool_patterns
from .report import render_report
from .run_files import Run, read_run
from .transfer_page import render_transfer

__all__ = [
    "AttentionExplorer",
    "AttentionPanel",
    "AttentionView",
    "ExplorerPicture",
    "FeatureBrowser",
    "LensPicture",
    "PatchLensView",
    "Run",
    "attention_explorer",
    "attention_view",
    "export_figures",
    "feature_browser",
    "figures",
    "patch_lens_view",
    "pool_patterns",
    "read_run",
    "render_report",
    "render_transfer",
    "write_figure_page",
    "write_figure_pages",
]
