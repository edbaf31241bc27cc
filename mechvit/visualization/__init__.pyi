from . import figures
from .attention.circuitsvis_view import AttentionPanel, AttentionView
from .attention.explorer import AttentionExplorer, ExplorerPicture
from .attention.pattern_pooling import pool_patterns
from .comparison.page import render_comparison
from .export.figure_files import export_figures
from .html_page.figure_page import write_figure_page, write_figure_pages
from .pages.feature_browser import FeatureBrowser
from .pages.patch_lens import LensPicture, PatchLensView
from .pages.picture_page import PicturePage, ShownLatent
from .report.report_page import render_report
from .report.run_results import RunResults, read_run
from .report.transfer_page import render_transfer

__all__ = [
    "AttentionExplorer",
    "AttentionPanel",
    "AttentionView",
    "ExplorerPicture",
    "FeatureBrowser",
    "LensPicture",
    "PatchLensView",
    "PicturePage",
    "RunResults",
    "ShownLatent",
    "export_figures",
    "figures",
    "pool_patterns",
    "read_run",
    "render_comparison",
    "render_report",
    "render_transfer",
    "write_figure_page",
    "write_figure_pages",
]
