from . import figures
from .attention_view import AttentionPanel, AttentionView
from .explorer import AttentionExplorer, ExplorerPicture
from .export import export_figures
from .feature_browser import FeatureBrowser
from .figure_page import write_figure_page, write_figure_pages
from .patch_lens import LensPicture, PatchLensView
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
    "export_figures",
    "figures",
    "pool_patterns",
    "read_run",
    "render_report",
    "render_transfer",
    "write_figure_page",
    "write_figure_pages",
]
