"""Hooked forward passes: activation caches, spliced SAEs, compiled passes."""
