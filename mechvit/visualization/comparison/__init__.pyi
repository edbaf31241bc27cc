from .page import render_comparison

__all__ = ["render_comparison"]
