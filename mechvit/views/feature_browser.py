"""Latents of SAEs and their changes under corruptions, collected for one page."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mechvit.arguments import checked
from mechvit.saes.dashboard.collect import browse_features
from mechvit.visualization.pages.feature_browser import FeatureBrowser

from .page_provenance import page_provenance

if TYPE_CHECKING:
    from sae_lens import SAE

    from mechvit.models import HookedViT
    from mechvit.saes.dashboard.results import Browsing
    from mechvit.saes.latents.results import SAEFeatures


@checked
def feature_browser(
    saes: Mapping[str, tuple[HookedViT, SAE]],
    images: Any,
    corruptions: Collection[Any] = (),
    *,
    features: Mapping[str, Sequence[int]] | None = None,
    described: Mapping[str, SAEFeatures] | None = None,
    settings: Browsing | None = None,
    title: str = "SAE features",
    allow_other_model: bool = False,
    progress: str | None = None,
) -> FeatureBrowser:
    """Show the latents of SAEs, with example images, statistics and effects of corruptions.

        saes = {"base": (base, sae), "tuned": (tuned, tuned_sae)}
        feature_browser(saes, images, ["gaussian_blur_4"]).save("features.html")

    Args:
        saes: the SAEs by name, each with the model that it reads, such as two architectures, or a base's and a tuned
            model's. Latents of SAEs at one hook point are matched and linked.
        images: a `datasets.Dataset` or an `ImageBatch`, with the models' own class ids, or without labels.
        corruptions: keys such as `gaussian_blur_4`.
        features, described, settings, allow_other_model, progress: as in
            `mechvit.saes.dashboard.collect.browse_features`.
        title: the page's title.

    Raises:
        ValueError: as in `mechvit.saes.dashboard.collect.browse_features`.
    """
    found = browse_features(
        saes,
        images,
        corruptions,
        features=features,
        described=described,
        settings=settings,
        allow_other_model=allow_other_model,
        progress=progress,
    )
    models = {name: model for name, (model, _) in saes.items()}
    return FeatureBrowser(found=found, title=title, provenance=page_provenance(models, images))
