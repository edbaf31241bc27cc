from .attention_explorer import attention_explorer
from .attention_view import attention_view
from .feature_browser import feature_browser
from .look import look
from .patch_lens import patch_lens_view

__all__ = ["attention_explorer", "attention_view", "feature_browser", "look", "patch_lens_view"]
