"""Hooked forward passes: caches of activations, SAEs spliced in, compiled passes."""
