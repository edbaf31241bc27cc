from .figure_page import write_figure_page, write_figure_pages

__all__ = [
    "write_figure_page",
    "write_figure_pages",
]
