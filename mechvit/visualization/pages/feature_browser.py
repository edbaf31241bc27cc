"""The feature browser, one offline page: a table of all latents, a page per chosen latent, and latents by image."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import UInt8

from mechvit.visualization.html_page.page import Page, picture_uri, render
from mechvit.visualization.style import colour, title_of

if TYPE_CHECKING:
    from mechvit.saes.dashboard.results import BrowsedFeatures, BrowsedSAE

LABELS_SHOWN = 8
"""Classes listed in a latent's distribution; the others are summed."""
DENSE_ABOVE = 0.1
"""Share of tokens above which a latent that fires on them is called dense, as in `evaluate_saes`."""


@dataclass(frozen=True, kw_only=True)
class FeatureBrowser(Page):
    """A browser of SAE latents; displayed by a notebook, or saved as one file by `save(path)`."""

    found: BrowsedFeatures
    title: str = "SAE features"
    frame_height: ClassVar[int] = 860

    def spec(self) -> dict[str, Any]:
        """Return the data for the page's script, ready for JSON: arrays as base64 of little-endian numbers."""
        found = self.found
        rows = sorted({row for row, _ in found.pictures})
        place = {row: i for i, row in enumerate(rows)}
        return {
            "title": self.title,
            "classes": list(found.class_names),
            "corruptions": [_condition(key) for key in found.corruptions],
            "conditions": [_condition(key) for key in found.conditions],
            "kinds": list(found.example_kinds),
            "choice": found.choice,
            "nImages": len(found.labels),
            "side": max(picture.shape[-1] for picture in found.pictures.values()),
            "denseAbove": DENSE_ABOVE,
            "images": [
                {
                    "id": int(found.image_ids[row]),
                    "label": int(found.labels[row]),
                    "file": found.files[row],
                    "picture": _picture(found.pictures[row, "clean"].numpy()),
                }
                for row in rows
            ],
            "shown": [
                {
                    "image": place[row],
                    "corrupted": [_picture(found.pictures[row, key].numpy()) for key in found.conditions[1:]],
                }
                for row in found.shown
            ],
            "saes": [_sae(name, found, place) for name in found.saes],
        }

    def html(self) -> str:
        """Return the whole page: self-contained, offline."""
        return render("features.html.j2", title=self.title, spec=self.spec(), provenance=self.provenance)


def _condition(key: str) -> dict[str, str]:
    names = {"title": title_of(key), "short": title_of(key, short=True)}
    return {"key": key, **names, "colour": colour(key), "dark": colour(key, dark=True)}


def _sae(name: str, found: BrowsedFeatures, place: Mapping[int, int]) -> dict[str, Any]:
    sae = found.saes[name]
    features = sae.features
    special = ["CLS", *(f"special {i}" for i in range(1, sae.special))][: sae.special]
    there = sae.maps.nan_to_num(0)  # NaN where there is no example, which is not drawn
    top = there.amax((0, 2, 3)).clamp(min=1e-30)  # one scale for all maps of a latent, clean and corrupted
    maps = (there / top[:, None, None] * 255).round().maximum((there > 0).float())  # a token where it fires is never 0
    return {
        "name": name,
        "kind": sae.architecture,
        "hook": sae.site.hook,
        "tokens": sae.site.tokens,
        "grid": sae.grid,
        "special": special,
        "table": {
            "rate": _packed(features.firing_rate),
            "mean": _packed(features.mean_activation),
            "max": _packed(features.max_activation),
            "label": _packed(features.mass_label, "<i4"),
            "purity": _packed(features.mass_label_purity),
            "selectivity": _packed(features.selectivity),
            "sensitivity": [_packed(part) for part in sae.sensitivity],
        },
        "maps": _packed(maps.transpose(0, 1), "u1"),
        "pages": [_page(i, name, found, float(top[i]), place) for i in range(len(sae.chosen))],
        "strongest": {
            "top": sae.strongest.feature.shape[-1],
            "feature": _packed(sae.strongest.feature, "<i4"),
            "activation": _packed(sae.strongest.activation),
        },
        "predicted": _predicted(sae),
    }


def _page(i: int, name: str, found: BrowsedFeatures, top: float, place: Mapping[int, int]) -> dict[str, Any]:
    """Return the data of the `i`-th chosen latent."""
    sae = found.saes[name]
    j, features, effects = int(sae.chosen[i]), sae.features, sae.ablation
    share, label = sae.label_share[i].nan_to_num(0).sort(descending=True, stable=True)
    logits = features.logits
    partners = {other: found.matches.get((name, other)) for other in found.saes}
    return {
        "id": j,
        "top": _number(top),
        "examples": [
            [place[int(row)], _number(score)] if row >= 0 else None
            for row, score in zip(sae.example_row[i], sae.example_score[i], strict=True)
        ],
        "histogram": sae.histogram[i].tolist(),
        "labels": _pairs(label[:LABELS_SHOWN], share[:LABELS_SHOWN]),
        "otherLabels": _number(share[LABELS_SHOWN:].sum()),
        "topLabel": [int(features.top_label[j]), _number(features.top_label_purity[j])],
        "selective": int(features.selective_label[j]),
        "raised": _pairs(logits.raised[j], logits.raised_by[j]) if logits else None,
        "lowered": _pairs(logits.lowered[j], logits.lowered_by[j]) if logits else None,
        "nearest": _pairs(sae.nearest[i], sae.nearest_cosine[i]),
        "corrupted": [
            {"mean": _number(moved.clean_mean[j] + moved.mean_difference[j]), "kept": _number(moved.kept[j])}
            for moved in features.sensitivity.values()
        ],
        "clean": next((_number(moved.clean_mean[j]) for moved in features.sensitivity.values()), None),
        "matches": [
            [int(known.match[j]), _number(known.cosine[j])] if known and known.match[j] >= 0 else None
            for known in partners.values()
        ],
        "ablation": effects
        and {
            "images": int(effects.images[i]),
            "logit": _number(effects.label_logit[i]),
            "probability": _number(effects.label_probability[i]),
            "changed": _number(effects.changed[i]),
            "lowered": _pairs(effects.lowered[i], effects.lowered_by[i]),
            "raised": _pairs(effects.raised[i], effects.raised_by[i]),
        },
    }


def _predicted(sae: BrowsedSAE) -> list[list[list[list[float | None]]]] | None:
    """Return the most probable classes with their probabilities, by condition and image."""
    if sae.predicted is None:
        return None
    return [
        [_pairs(*guess) for guess in zip(labels, shares, strict=True)]
        for labels, shares in zip(sae.predicted.label, sae.predicted.probability, strict=True)
    ]


def _pairs(index: Any, value: Any) -> list[list[float | None]]:
    return [[int(i), _number(v)] for i, v in zip(index, value, strict=True)]


def _number(value: Any) -> float | None:
    """Round to six digits, since the page rounds again; None for NaN."""
    return float(f"{float(value):.6g}") if np.isfinite(float(value)) else None


def _packed(values: Any, dtype: str = "<f4") -> str:
    return base64.b64encode(np.ascontiguousarray(values.numpy(), dtype=dtype).tobytes()).decode("ascii")


def _picture(pixels: UInt8[np.ndarray, "3 height width"]) -> str:
    """Return a picture as a lossy data URI even if it is small, since there may be a thousand."""
    return picture_uri(pixels, lossless=False, quality=86, method=4)
