from .circuitsvis_view import AttentionPanel, AttentionView
from .explorer import AttentionExplorer, ExplorerPicture
from .pattern_pooling import pool_patterns

__all__ = [
    "AttentionExplorer",
    "AttentionPanel",
    "AttentionView",
    "ExplorerPicture",
    "pool_patterns",
]
