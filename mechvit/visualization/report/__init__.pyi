from .report_page import render_report
from .run_results import RunResults, read_run
from .transfer_page import render_transfer

__all__ = [
    "RunResults",
    "read_run",
    "render_report",
    "render_transfer",
]
