"""The fingerprint by which an SAE remembers the images that it was trained on."""

from __future__ import annotations

from mechvit.data.content import images_fingerprint

__all__ = ["images_fingerprint"]
