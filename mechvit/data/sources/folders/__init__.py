"""Image folders as rows: their parts, and groups of their images."""
