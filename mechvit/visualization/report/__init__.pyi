from .report import render_report
from .run_folder import Run, read_run
from .transfer_page import render_transfer

__all__ = [
    "Run",
    "read_run",
    "render_report",
    "render_transfer",
]
