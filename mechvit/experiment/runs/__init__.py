"""A run's folder: its stages, their records and their provenance."""
