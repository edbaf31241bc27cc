"""A run's folder: its stages, their records, and what made them."""
