"""Error of attribution patching against exact patching, by component and overall."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mechvit.analysis.statistics.bootstrap import LEVEL, RESAMPLES
from mechvit.analysis.statistics.correlation import PairedEffects
from mechvit.analysis.statistics.results import Result
from mechvit.analysis.statistics.tidy_tables import labelled
from mechvit.arguments import checked

from .activation_patching import Patching
from .attribution_patching import Attribution
from .components import component_frame

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class AttributionError(Result):
    """Exact and approximate effects, in logits (on the divergence in nats); all intervals are from a paired bootstrap
    over images."""

    components: pd.DataFrame
    """One row per component: kind, layer, head, tokens, and exact, approximate and error (approximate minus exact),
    each with _low and _high.
    """
    overall: pd.DataFrame
    """kind ("all", and each of several), components (how many), quantity, value, low, high. The quantities are over
    the components' mean effects: pearson, spearman, and relative_error, |approximate - exact| / |exact| (L2)."""

    def to_frame(self, **labels: str) -> pd.DataFrame:
        """Return `components`; `labels` are constant columns put first."""
        return labelled(self.components, labels)

    def summary(self) -> pd.DataFrame:
        """Return `overall`."""
        return self.overall


@checked
def attribution_error(
    attribution: Attribution,
    patching: Patching,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> AttributionError:
    """Compare the effects of the components in both results.

    The intervals cover the sampling of images; the components and the models are fixed. Correlations need three
    components, and are NaN where all effects are equal.

    Args:
        attribution, patching: results for the same models, images, corruptions and seed.
        resamples, level, seed: settings of the percentile bootstrap.

    Raises:
        ValueError: other images, or no component in common.

    Source: attribution patching against activation patching, Syed et al., arXiv:2310.10348 (section 4).
    """
    import pandas as pd

    shared = [component for component in patching.components if component in set(attribution.components)]
    if not shared or not torch.equal(attribution.image_id, patching.image_id):
        raise ValueError(
            "attribution and patching must be of the same images, in the same order, and share components; they have "
            f"{len(attribution.image_id)} and {len(patching.image_id)} images and share {len(shared)} components: "
            "compute both with the same images, kinds and tokens"
        )
    exact = patching.effect_on(attribution.quantity)[[patching.components.index(c) for c in shared]]
    approximate = attribution.effect[[attribution.components.index(c) for c in shared]]
    effects = PairedEffects.of(exact, approximate, resamples=resamples, seed=seed)
    overall = effects.agreements([component.kind for component in shared], level)
    names = ["kind", "components", "quantity", "value", "low", "high"]
    components = component_frame(shared).assign(**effects.columns(level))
    return AttributionError(components, pd.DataFrame(overall, columns=names))
