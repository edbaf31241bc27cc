"""Steering directions of the residual stream: from corrupted towards clean images or from one model towards another,
and random controls."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mechvit.analysis.finite import check_finite
from mechvit.analysis.inputs import Images, corrupted_batches, pixel_values
from mechvit.analysis.statistics.results import OneLine
from mechvit.arguments import checked
from mechvit.data.conditions import as_condition
from mechvit.data.corruption_spec import CLEAN, Condition
from mechvit.models.runs.image_tokens import token_slice

from .model_pair import check_weights_fit

if TYPE_CHECKING:
    from mechvit.data import ImageBatch
    from mechvit.models import HookedViT

Tokens = Literal["all", "cls", "patches"]
STEERED_POINTS = ("hook_resid_pre", "hook_attn_out", "hook_resid_mid", "hook_mlp_out", "hook_resid_post")
"""Hook points of a block that lie in the residual stream or write into it."""


@dataclass(frozen=True, repr=False)
class Direction(OneLine):
    """A vector that is added at one hook point to steer a model."""

    hook_name: str
    """One of a block's `STEERED_POINTS`, as in `blocks.3.hook_resid_post`."""
    tokens: Tokens
    """Tokens at which it is added: all tokens, CLS, or the patches."""
    vector: Float[Tensor, "#token d_model"]
    """One row for all of these tokens, or one for each, on the CPU, as added at scale 1."""
    source: str
    """Origin of the direction, such as `mean_difference` or `between_models`."""

    @property
    def layer(self) -> int:
        """Block of the hook point."""
        return int(self.hook_name.split(".")[1])

    @property
    def norm(self) -> float:
        """Mean norm of its rows."""
        return float(self.vector.double().norm(dim=-1).mean())

    def random(self, seed: int) -> Direction:
        """Return a random direction with rows of the same norms: the control."""
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(self.vector.shape, generator=generator, dtype=torch.float64)
        lengths = self.vector.double().norm(dim=-1, keepdim=True) / drawn.norm(dim=-1, keepdim=True)
        return replace(self, vector=(drawn * lengths).to(self.vector.dtype))


def check_point(model: HookedViT, hook_name: str) -> None:
    """Raise a ValueError unless a direction can be added at this hook point."""
    found = re.fullmatch(r"blocks\.(\d+)\.(\w+)", hook_name)
    if found is None or int(found[1]) >= model.cfg.n_layers or found[2] not in STEERED_POINTS:
        raise ValueError(
            f"hook_name must be one of a block's {', '.join(STEERED_POINTS)}, as in "
            f"blocks.{model.cfg.n_layers - 1}.hook_resid_post in the last block; got {hook_name!r}"
        )


@checked
@torch.inference_mode()
def steering_directions(
    model: HookedViT,
    images: Images,
    corruption: Condition | str,
    *,
    towards: HookedViT | None = None,
    hook_names: Sequence[str] | None = None,
    tokens: Tokens = "all",
    per_position: bool = False,
    batch_size: int | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> list[Direction]:
    """Compute the mean clean minus the mean corrupted activation of the same images, at several hook points in one
    pass; or, towards another model, its mean activation minus the model's own under one condition.

    Args:
        model: the model to be steered; no head is needed.
        images: a `datasets.Dataset` (prepared or raw) or an `ImageBatch`, disjoint from those steered later.
        corruption: the corruption that the direction leads away from; towards another model, any condition.
        towards: a model tuned from it; None for the way to the model's own activations on clean images.
        hook_names: hook points among a block's `STEERED_POINTS`; None takes the residual stream after every block.
        tokens: tokens over which the mean is taken, and at which the direction will be added.
        per_position: compute one direction for each of these tokens, by the mean over images only.
        batch_size, seed, progress: as in `evaluate`.

    Raises:
        ValueError: no hook point or one that cannot be steered, tokens that the model lacks, no images, another input
            size, activations that are not finite, or models of different configs.

    Source: contrastive activation addition, arXiv:2312.06681, section 3 (means over a data set of pairs); one pair of
    prompts in arXiv:2308.10248.
    """
    names = [f"blocks.{layer}.hook_resid_post" for layer in range(model.cfg.n_layers)]
    names = names if hook_names is None else list(dict.fromkeys(hook_names))
    if not names:
        raise ValueError("name at least one hook point, as in blocks.0.hook_resid_post; got none")
    for name in names:
        check_point(model, name)
    places = token_slice(model.cfg, tokens)
    total = {name: torch.zeros((), dtype=torch.float64, device=model.cfg.device) for name in names}
    models, conditions = {"steered": model}, [CLEAN, as_condition(corruption)]
    signs: dict[str, tuple[int, ...]] = {"steered": (1, -1)}
    if towards is not None:
        check_weights_fit(model, towards, "steering one model along its difference from the other")
        models, conditions = {"base": model, "tuned": towards}, conditions[1:]
        signs = {"base": (-1,), "tuned": (1,)}
    for batch in corrupted_batches(models, images, conditions, batch_size, seed=seed, progress=progress):
        for place, (condition, shown) in zip(range(len(conditions)), batch.conditions, strict=True):
            for who in batch.models:
                for name, values in _sums(models[who], shown, names, places, condition).items():
                    total[name] = total[name] + signs[who][place] * values
    vectors = {name: difference / len(images) for name, difference in total.items()}
    if not per_position:
        vectors = {name: vector.mean(0, keepdim=True) for name, vector in vectors.items()}
    source = "mean_difference" if towards is None else "between_models"
    return [Direction(n, tokens, v.to("cpu", torch.float32), source) for n, v in vectors.items()]


def _sums(
    model: HookedViT, shown: ImageBatch, names: Sequence[str], places: slice, condition: Condition
) -> dict[str, Float[Tensor, "token d_model"]]:
    """Return the sums of activations over a batch's images, float64."""
    stop = 1 + max(int(name.split(".")[1]) for name in names)
    _, cache = model.run_with_cache(
        pixel_values(model, shown), names_filter=names, stop_at_layer=stop, return_cache_object=False
    )
    check_finite(
        f"activations under {condition.key}",
        [cache[name] for name in names],
        model,
        shown.image_ids,
        numbers=[int(name.split(".")[1]) for name in names],
    )
    return {name: cache[name][:, places].double().sum(0) for name in names}


@checked
def steering_direction(
    model: HookedViT, images: Images, corruption: Condition | str, *, hook_name: str, **settings: object
) -> Direction:
    """Compute `steering_directions` at one hook point."""
    return steering_directions(model, images, corruption, hook_names=[hook_name], **settings)[0]  # type: ignore[arg-type]
