"""Error of attribution patching against exact patching, by component and overall."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from mechvit.analysis.statistics.bootstrap import LEVEL, RESAMPLES, interval, resampled_means
from mechvit.analysis.statistics.correlation import Rows, agreement
from mechvit.arguments import checked

from .activation_patching import Patching
from .attribution_patching import Attribution
from .components import Component, component_frame

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class AttributionError:
    """Exact and approximate effects, in logits; all intervals are from a paired bootstrap over images."""

    components: pd.DataFrame
    """One row per component: kind, layer, head, tokens, and exact, approximate and error (approximate minus exact),
    each with _low and _high.
    """
    overall: pd.DataFrame
    """kind ("all", and each of several), components (how many), quantity, value, low, high. The quantities are over
    the components' mean effects: pearson, spearman, and relative_error, |approximate - exact| / |exact| (L2)."""


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
    shared = [component for component in patching.components if component in set(attribution.components)]
    if not shared or not torch.equal(attribution.image_id, patching.image_id):
        raise ValueError(
            "attribution and patching must be of the same images, in the same order, and share components; they have "
            f"{len(attribution.image_id)} and {len(patching.image_id)} images and share {len(shared)} components: "
            "compute both with the same images, kinds and tokens"
        )
    exact = patching.effect[[patching.components.index(c) for c in shared]]
    approximate = attribution.effect[[attribution.components.index(c) for c in shared]]
    means = resampled_means(torch.cat([exact, approximate]).T.numpy(), resamples=resamples, seed=seed)
    draws = means[:, : len(shared)], means[:, len(shared) :]
    return AttributionError(_by_component(shared, *draws, level), _overall(shared, *draws, level))


def _by_component(shared: list[Component], exact: Rows, approximate: Rows, level: float) -> pd.DataFrame:
    columns: dict[str, np.ndarray] = {}
    for name, drawn in (("exact", exact), ("approximate", approximate), ("error", approximate - exact)):
        found = np.array([interval(column, level) for column in drawn.T])
        columns |= dict(zip((name, f"{name}_low", f"{name}_high"), found.T, strict=True))
    return component_frame(shared).assign(**columns)


def _overall(shared: list[Component], exact: Rows, approximate: Rows, level: float) -> pd.DataFrame:
    import pandas as pd

    kinds = list(dict.fromkeys(component.kind for component in shared))
    rows = []
    for kind in ["all", *(kinds if len(kinds) > 1 else [])]:
        chosen = [place for place, component in enumerate(shared) if kind in ("all", component.kind)]
        quantities = agreement(exact[:, chosen], approximate[:, chosen])
        rows += [(kind, len(chosen), name, *interval(drawn, level)) for name, drawn in quantities.items()]
    return pd.DataFrame(rows, columns=["kind", "components", "quantity", "value", "low", "high"])
