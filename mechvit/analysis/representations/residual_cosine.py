"""Cosine of two models' residual streams of the same image, layer by layer, in one basis."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from mechvit.analysis.finite import check_finite
from mechvit.analysis.inputs import Images, on_cpu
from mechvit.analysis.pair_checks import check_same_shape
from mechvit.analysis.pairs.kinship import require_kin
from mechvit.analysis.shared_pass import Hooks, PassBatch, PassMeasurement, run_together
from mechvit.analysis.statistics.bootstrap import LEVEL, RESAMPLES, interval, resampled_means
from mechvit.analysis.statistics.results import Result
from mechvit.analysis.statistics.tidy_tables import tidy
from mechvit.arguments import checked
from mechvit.data.corruption_spec import CLEAN, Condition

if TYPE_CHECKING:
    import pandas as pd

    from mechvit.models import HookedViT


@dataclass(frozen=True, repr=False)
class ResidualCosine(Result):
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
    found = CosineMeasurement(base, tuned)
    models = {"base": base, "tuned": tuned}
    run_together(models, images, conditions, [found], batch_size, seed=seed, progress=progress)
    return found.result()


class CosineMeasurement(PassMeasurement):
    """Cosines between the residual streams of the two models of a pass, `base` and `tuned`.

    Args:
        base, tuned: the models that run.

    Raises:
        ValueError: as `residual_cosine`.
    """

    def __init__(self, base: HookedViT, tuned: HookedViT) -> None:
        what, shape = "the cosine between two models' residual streams", ("d_model", "n_layers", "grid")
        check_same_shape(base, tuned, what, (*shape, "n_prefix_tokens"))
        if base is not tuned:
            require_kin(base, tuned, what)
        self._places = {"cls": slice(0, 1)} if base.cfg.cls_token and tuned.cfg.cls_token else {}
        self._places |= {"head": base.head_tokens} if base.head_tokens == tuned.head_tokens else {}
        self._places |= {"patches": slice(base.cfg.n_prefix_tokens, None)}
        self._of_base: list[Tensor] = []
        """The base's streams that wait for the tuned model's."""
        self._layers: list[Float[Tensor, "batch token"]] = []
        self._ids: list[Tensor] = []
        self._found: dict[tuple[str, str], list[Tensor]] = {}

    def hooks(self, batch: PassBatch, name: str, layer: int) -> Hooks:
        """Return hooks that compare the stream entering a block, and that leaving the last."""
        points = ["hook_resid_pre"] + ["hook_resid_post"] * (layer == batch.models[name].cfg.n_layers - 1)

        def see(resid: Tensor, hook: Any, number: int) -> None:
            what = f"the residual stream under {batch.condition.key}"
            check_finite(what, [resid], batch.models[name], batch.image_ids, numbers=[number])
            if name == "base":
                self._of_base.append(on_cpu(resid))
            else:
                self._layers.append(_cosine(self._of_base.pop(0), on_cpu(resid)))

        return [(f"blocks.{layer}.{point}", partial(see, number=layer + after)) for after, point in enumerate(points)]

    def read(self, batch: PassBatch) -> None:
        """Take the means over tokens of a batch."""
        cosine = torch.stack(self._layers, dim=1)
        self._layers.clear()
        for tokens, place in self._places.items():
            self._found.setdefault((batch.condition.key, tokens), []).append(cosine[:, :, place].mean(-1))
        if len(self._found[batch.condition.key, "patches"]) > len(self._ids):
            self._ids.append(on_cpu(batch.image_ids))

    def result(self) -> ResidualCosine:
        """Return all that was read."""
        return ResidualCosine(torch.cat(self._ids), {key: torch.cat(parts) for key, parts in self._found.items()})


def _cosine(
    own: Float[Tensor, "batch token d_model"], other: Float[Tensor, "batch token d_model"]
) -> Float[Tensor, "batch token"]:
    """Return the cosine of every token in float64; image by image, since large float64 copies are slow to make."""
    pairs = zip(own.split(1), other.split(1), strict=True)
    return torch.cat([F.cosine_similarity(first.double(), second.double(), dim=-1) for first, second in pairs])
