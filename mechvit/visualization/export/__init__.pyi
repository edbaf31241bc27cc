from .figure_files import export_figures

__all__ = [
    "export_figures",
]
