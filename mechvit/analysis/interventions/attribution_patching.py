"""Attribution patching: the first-order effect of patching every component and neuron at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvit.analysis.behaviour.performance import check_logits
from mechvit.analysis.finite import first_not_finite, model_name
from mechvit.analysis.inputs import Images, on_cpu, wide
from mechvit.analysis.statistics.results import AveragedResult, Columns
from mechvit.analysis.statistics.tidy_tables import labelled
from mechvit.arguments import checked
from mechvit.data.batches import ImageBatch
from mechvit.data.corruption_spec import Condition
from mechvit.models.runs.image_tokens import token_slice

from .components import COMPONENT_KINDS, Component, component_frame, components_of
from .model_pair import pair_batches
from .recovery import Effect, check_labelled, effect_metric, foils

if TYPE_CHECKING:
    import pandas as pd

    from mechvit.models import HookedViT


@dataclass(frozen=True, repr=False)
class Attribution(AveragedResult):
    """The first-order effect of taking each component from the giver; on the CPU.

    An effect is the change of the label's logit minus the foil's (see `foils`), in logits: positive favours the label.
    Of the divergence it is the change of KL(giver | receiver), in nats: negative is nearer to the giver.
    """

    SUMMARISED: ClassVar[Columns] = (("kind", "layer", "head", "tokens"), ("effect",))

    components: tuple[Component, ...]
    image_id: Int[Tensor, " images"]
    effect: Float[Tensor, "components images"]
    neuron_effect: Float[Tensor, "layers neurons"]
    """Mean over images of each MLP neuron's (`mlp.hook_post`) effect, at all tokens; float64."""
    neuron_square: Float[Tensor, "layers neurons"]
    """Mean over images of the effect's square; float64."""
    quantity: Effect = "logit_difference"
    """Quantity that is changed."""

    @property
    def neuron_error(self) -> Float[Tensor, "layers neurons"]:
        """Standard error of `neuron_effect`; NaN for a single image."""
        images = len(self.image_id)
        variance = (self.neuron_square - self.neuron_effect.square()).clamp_min(0) / (images - 1 or torch.nan)
        return variance.sqrt()

    def to_frame(self, **labels: str) -> pd.DataFrame:
        """Return one row per component and image: the labels, kind, layer, head, tokens, image_id, effect."""
        return component_frame(self.components, len(self.image_id), **labels).assign(
            image_id=self.image_id.repeat(len(self.components)).numpy(), effect=self.effect.flatten().numpy()
        )

    def neurons(self, **labels: str) -> pd.DataFrame:
        """Return one row per MLP neuron: the labels, layer, neuron, effect (mean over images), standard_error."""
        import pandas as pd

        layers, neurons = self.neuron_effect.shape
        frame = pd.DataFrame(
            {
                "layer": torch.arange(layers).repeat_interleave(neurons).numpy(),
                "neuron": torch.arange(neurons).repeat(layers).numpy(),
                "effect": self.neuron_effect.flatten().numpy(),
                "standard_error": self.neuron_error.flatten().numpy(),
            }
        )
        return labelled(frame, labels)


@checked
@torch.inference_mode(False)
@torch.no_grad()
def attribution_patching(
    receiver: HookedViT,
    giver: HookedViT,
    images: Images,
    corruption: Condition | str,
    *,
    giver_corruption: Condition | str | None = None,
    kinds: Sequence[str] = COMPONENT_KINDS,
    tokens: Sequence[str] = ("all",),
    quantity: Effect = "logit_difference",
    batch_size: int | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> Attribution:
    """Approximate the effects of `patch_models` by the gradient, for all components and all MLP neurons at once.

        effect = (a_giver - a_receiver) . dM/da at the receiver

    with M = logit(label) - logit(foil), or KL(giver | receiver), which needs no labels,
    summed over the patched tokens. It takes one pass of the giver and one forward and backward of the receiver, however
    many components there are. It is exact where M is linear in the component, and misses what the difference does
    through curvature (a saturated softmax, LayerNorm's scale): `attribution_error` compares it with the exact effect.

    Args:
        receiver, giver, images, corruption, giver_corruption, kinds, tokens, seed, progress: as in `patch_models`.
        quantity: M: "logit_difference" or "divergence".
        batch_size: images per pass; None takes 32 on a CPU, else 128, and holds at most 1 GiB of activations.

    Raises:
        ValueError: as `patch_models`; an image without a label, for the logit difference.

    Source: Nanda, "Attribution patching: activation patching at industrial scale" (2023); Syed et al., arXiv:2310.10348
    (section 2).
    """
    cfg = receiver.cfg
    components = components_of(cfg, kinds, tokens, COMPONENT_KINDS)
    neurons = [f"blocks.{layer}.mlp.hook_post" for layer in range(cfg.n_layers)]
    names = list(dict.fromkeys([*(c.point(cfg.n_layers) for c in components), *neurons]))
    kept = 3 * cfg.n_layers * cfg.n_tokens * (4 * cfg.d_model + cfg.d_mlp)  # two models and the backward pass
    ids, effects = [], []
    sums = torch.zeros(2, cfg.n_layers, cfg.d_mlp, dtype=torch.float64)
    for batch, pixels, giver_pixels in pair_batches(
        receiver, giver, images, corruption, giver_corruption, kept, batch_size, seed=seed, progress=progress
    ):
        logits, given = giver.run_with_cache(giver_pixels, names_filter=names, return_cache_object=False)
        own, gradients = activations_and_gradients(receiver, pixels, logits, batch, names, quantity)
        products = {name: (wide(given[name]) - wide(own[name])).float() * gradients[name].float() for name in names}
        ids.append(on_cpu(batch.image_ids))
        effects.append(on_cpu(torch.stack([_sum(receiver, component, products) for component in components])))
        for layer, name in enumerate(neurons):
            per_image = on_cpu(products[name].sum(1)).double()
            sums[:, layer] += torch.stack([per_image.sum(0), per_image.square().sum(0)])
    found = torch.cat(ids)
    mean, square = sums / len(found)
    return Attribution(components, found, torch.cat(effects, dim=1), mean, square, quantity)


def activations_and_gradients(
    receiver: HookedViT,
    pixels: Float[Tensor, "batch 3 height width"],
    giver_logits: Float[Tensor, "batch class"],
    batch: ImageBatch,
    names: Sequence[str],
    quantity: Effect = "logit_difference",
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the receiver's activations by hook point, and the gradients of each image's metric at them."""
    check_labelled(batch.labels, quantity)
    own: dict[str, Tensor] = {}

    def keep(activation: Tensor, hook: Any) -> None:
        own[hook.name] = activation

    entered = receiver(pixels, stop_at_layer=0)
    with torch.enable_grad():
        entered = entered.requires_grad_()  # so that weights need no gradients
        logits = receiver.run_with_hooks(entered, start_at_layer=0, fwd_hooks=[(name, keep) for name in names])
        who, begins = f"the receiver {model_name(receiver)!r}", partial(first_not_finite, receiver, pixels)
        check_logits(logits, batch.labels, batch.image_ids, who, begins, labelled=False)
        check_logits(giver_logits, batch.labels, batch.image_ids, "the giver", labelled=False)
        foil = foils(batch.labels, logits.detach(), giver_logits)
        total = effect_metric(quantity, logits, batch.labels, foil, giver_logits).sum()
        found = torch.autograd.grad(total, [own[name] for name in names])
    return {name: tensor.detach() for name, tensor in own.items()}, dict(zip(names, found, strict=True))


def _sum(model: HookedViT, component: Component, products: Mapping[str, Tensor]) -> Float[Tensor, " batch"]:
    """Sum over a component's tokens and dimensions."""
    chosen = products[component.point(model.cfg.n_layers)][:, token_slice(model.cfg, component.tokens)]
    return (chosen if component.head < 0 else chosen[:, :, component.head]).flatten(1).sum(1)
