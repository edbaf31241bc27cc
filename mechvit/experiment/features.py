"""The page of a run's SAE features, beside the report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .config import ExperimentConfig

if TYPE_CHECKING:
    import datasets

    from mechvit.models import HookedViT

FEATURES = 100
"""Latents per SAE that are shown with images."""


def write_feature_page(
    folder: Path, models: Mapping[str, HookedViT], images: datasets.Dataset, config: ExperimentConfig
) -> Path:
    """Write `features.html`: every architecture's SAE of each of the models, under the strongest corruptions.

    Args:
        folder: folder of the run, with `saes/MODEL/ARCHITECTURE`.
        models: "base" and the models tuned on each family's strongest level.
        images: test images on which SAEs are evaluated.
        config: settings of the run.
    """
    from mechvit.saes import load_sae
    from mechvit.saes.dashboard.results import Browsing
    from mechvit.views import feature_browser
    from mechvit.visualization.style import title_of

    saes = {
        f"{title_of(key, short=True)} {path.parent.name}": (model, load_sae(path.parent, str(model.cfg.device)))
        for key, model in models.items()
        for path in sorted((folder / "saes" / key).glob("*/cfg.json"))
    }
    settings = Browsing(n_features=FEATURES, seed=config.seed)
    title = f"SAE features: {folder.resolve().name}"
    browser = feature_browser(saes, images, config.strongest, settings=settings, title=title, progress="SAE features")
    return browser.save(folder / "features.html")
