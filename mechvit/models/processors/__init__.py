"""Image processors: their settings, and pixels made as they make them."""
