"""Fingerprint of the images that an SAE was trained on."""

from __future__ import annotations

from mechvit.data.content import images_fingerprint

__all__ = ["images_fingerprint"]
