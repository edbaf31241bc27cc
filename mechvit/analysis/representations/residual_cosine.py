"""Cosine of two models' residual streams of the same image, layer by layer, in one basis."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from mechvit.analysis.common_batches import common_batches, common_residuals
from mechvit.analysis.finite import check_finite
from mechvit.analysis.inputs import Images, on_cpu, pixel_values
from mechvit.analysis.pair_checks import check_same_shape
from mechvit.analysis.pairs.kinship import require_kin
from mechvit.analysis.statistics.bootstrap import LEVEL, RESAMPLES, interval, resampled_means
from mechvit.analysis.statistics.tidy_tables import tidy
from mechvit.arguments import checked
from mechvit.data.corruption_spec import CLEAN, Condition

if TYPE_CHECKING:
    import pandas as pd

    from mechvit.models import HookedViT


@dataclass(frozen=True)
class ResidualCosine:
    """Cosines between two models' residual streams, for each image and layer; on the CPU."""

    image_id: Int[Tensor, " images"]
    cosine: Mapping[tuple[str, str], Float[Tensor, "images layers"]]
    """(condition, tokens) -> mean cosine over those tokens, -1 to 1, float64. Tokens are cls (with CLS), head (those
    that the head reads) and patches. Layer 0 is the embedding, l the output of block l - 1.
    """

    def __repr__(self) -> str:
        layers = next(iter(self.cosine.values())).shape[1]
        last = [float(values[:, -1].mean()) for (_, tokens), values in self.cosine.items() if tokens == "patches"]
        return (
            f"ResidualCosine({len(self.image_id)} images, layers 0 to {layers - 1}: mean cosine of patches in the last "
            f"{sum(last) / len(last):.3f})"
        )

    def to_frame(self, **labels: str) -> pd.DataFrame:
        """Return one row per condition, tokens, image and layer: the labels, condition, tokens, image_id, layer,
        cosine.
        """
        import pandas as pd

        frames = [
            tidy(self.image_id, {"cosine": values}, {**labels, "condition": condition, "tokens": tokens})
            for (condition, tokens), values in self.cosine.items()
        ]
        return pd.concat(frames, ignore_index=True)

    def summary(self, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0) -> pd.DataFrame:
        """Compute the mean over images: condition, tokens, layer, cosine, low, high."""
        import pandas as pd

        rows = []
        for (condition, tokens), values in self.cosine.items():
            drawn = resampled_means(values.numpy(), resamples=resamples, seed=seed)
            rows += [(condition, tokens, layer, *interval(draws, level)) for layer, draws in enumerate(drawn.T)]
        return pd.DataFrame(rows, columns=["condition", "tokens", "layer", "cosine", "low", "high"])


@checked
@torch.inference_mode()
def residual_cosine(
    base: HookedViT,
    tuned: HookedViT,
    images: Images,
    conditions: Collection[Condition | str] = (CLEAN,),
    *,
    batch_size: int | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> ResidualCosine:
    """Compute the cosine between the residual streams of two models on the same image, token by token.

    It means something only in one basis: for a model and one tuned from it. Two models that were trained apart have a
    cosine near 0 whatever they compute; CKA compares those.

    Args:
        base, tuned: two models of one width, depth and grid of patches; no head is needed.
        images: a `datasets.Dataset` (prepared or raw) or an `ImageBatch`; labels are not read.
        conditions: what is done to the images before they are shown.
        batch_size: images per forward pass; None takes 32 on a CPU, else 128.
        seed: seed of all random draws of the conditions.
        progress: the label of a progress bar; None shows none.

    Raises:
        ValueError: models of two shapes or crops, or that are not kin, no images, no conditions, another input size, or
            activations that are not finite.
    """
    shape = ("d_model", "n_layers", "grid", "n_prefix_tokens")
    check_same_shape(base, tuned, "the cosine between two models' residual streams", shape)
    if base is not tuned:
        require_kin(base, tuned, "the cosine between two models' residual streams")
    models = {"base": base, "tuned": tuned}
    places = {"cls": slice(0, 1)} if base.cfg.cls_token and tuned.cfg.cls_token else {}
    places |= {"head": base.head_tokens} if base.head_tokens == tuned.head_tokens else {}
    places |= {"patches": slice(base.cfg.n_prefix_tokens, None)}
    ids: list[Tensor] = []
    found: dict[tuple[str, str], list[Tensor]] = {}
    for condition, shown in common_batches(models, images, conditions, batch_size, seed=seed, progress=progress):
        image_ids = shown["base"].image_ids
        pixels = {name: pixel_values(models[name], batch) for name, batch in shown.items()}
        layers = []
        for layer, resids in enumerate(common_residuals(models, pixels)):
            for name, resid in resids.items():
                what = f"the residual stream under {condition.key}"
                check_finite(what, [resid], models[name], image_ids, numbers=[layer])
            own, other = (on_cpu(resid).double() for resid in resids.values())
            layers.append(F.cosine_similarity(own, other, dim=-1))
        cosine = torch.stack(layers, dim=1)
        for tokens, place in places.items():
            found.setdefault((condition.key, tokens), []).append(cosine[:, :, place].mean(-1))
        if len(found[condition.key, "patches"]) > len(ids):
            ids.append(on_cpu(image_ids))
    return ResidualCosine(torch.cat(ids), {key: torch.cat(parts) for key, parts in found.items()})
