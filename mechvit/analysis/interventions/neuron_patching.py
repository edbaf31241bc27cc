"""Patching of single MLP neurons: exact effects, beside their first-order approximations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvit.analysis.finite import model_name
from mechvit.analysis.inputs import Images, on_cpu
from mechvit.analysis.statistics.bootstrap import LEVEL, RESAMPLES
from mechvit.analysis.statistics.correlation import PairedEffects
from mechvit.analysis.statistics.results import Result
from mechvit.analysis.statistics.tidy_tables import labelled
from mechvit.arguments import checked
from mechvit.data.corruption_spec import Condition
from mechvit.settings_checks import COUNT_OR_ZERO, check_number

from .attribution_patching import Attribution, activations_and_gradients
from .model_pair import check_copies, copies_at_once, pair_batches
from .recovery import Effect, divergence_from, foils, logit_difference

if TYPE_CHECKING:
    import pandas as pd

    from mechvit.models import HookedViT


class Neuron(NamedTuple):
    """One MLP neuron, read at `mlp.hook_post`."""

    layer: int
    neuron: int
    chosen: str = "given"
    """Reason why it was chosen: given, top (largest approximate effect) or random."""


@dataclass(frozen=True, repr=False)
class NeuronPatching(Result):
    """Effects of taking each neuron, at all tokens, from the giver, as those of an `Attribution`; on the CPU."""

    neurons: tuple[Neuron, ...]
    image_id: Int[Tensor, " images"]
    exact: Float[Tensor, "neurons images"]
    """The quantity of the patched receiver minus the receiver's own."""
    approximate: Float[Tensor, "neurons images"]
    """First-order approximation, as in `attribution_patching`."""
    quantity: Effect = "logit_difference"
    """Quantity that is changed."""

    def to_frame(
        self, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0, **labels: str
    ) -> pd.DataFrame:
        """Return one row per neuron, with means over images and bootstrap intervals.

        Columns: the labels, layer, neuron, chosen, and exact, approximate and error (approximate minus exact), each
        with _low and _high.
        """
        import pandas as pd

        effects = PairedEffects.of(self.exact, self.approximate, resamples=resamples, seed=seed)
        frame = pd.DataFrame(self.neurons, columns=list(Neuron._fields)).assign(**effects.columns(level))
        return labelled(frame, labels)

    def summary(self, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0) -> pd.DataFrame:
        """Return `agreement`."""
        return self.agreement(resamples=resamples, level=level, seed=seed)

    def agreement(self, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0) -> pd.DataFrame:
        """Compare exact and approximate mean effects, with intervals over images.

        Returns:
            chosen ("all", and each reason if there are several), neurons (their number), quantity, value, low, high.
            The quantities are pearson, spearman (for three or more neurons) and relative_error, |approximate - exact| /
            |exact| (L2).
        """
        import pandas as pd

        effects = PairedEffects.of(self.exact, self.approximate, resamples=resamples, seed=seed)
        rows = effects.agreements([neuron.chosen for neuron in self.neurons], level)
        return pd.DataFrame(rows, columns=["chosen", "neurons", "quantity", "value", "low", "high"])


@checked
def choose_neurons(attribution: Attribution, *, top: int = 16, random: int = 48, seed: int = 0) -> tuple[Neuron, ...]:
    """Choose the neurons with the largest approximate effects, of either sign, and others at random.

    Args:
        attribution: the result of `attribution_patching`.
        top: number of largest ones.
        random: number of others (at most all that remain).
        seed: seed of the draw.

    Source: largest by attribution, then verified by patching, as in Nanda, "Attribution patching" (2023).
    """
    check_number("top", top, COUNT_OR_ZERO)
    check_number("random", random, COUNT_OR_ZERO)
    effect = attribution.neuron_effect
    order = effect.abs().flatten().argsort(descending=True, stable=True).tolist()
    others = np.random.default_rng(seed).permutation(order[top:])[:random].tolist()
    chosen = [(place, "top") for place in order[:top]] + [(place, "random") for place in others]
    return tuple(Neuron(*divmod(int(place), effect.shape[1]), why) for place, why in chosen)


@checked
@torch.inference_mode(False)
@torch.no_grad()
def patch_neurons(
    receiver: HookedViT,
    giver: HookedViT,
    images: Images,
    corruption: Condition | str,
    neurons: Sequence[Neuron | tuple[int, int]],
    *,
    giver_corruption: Condition | str | None = None,
    quantity: Effect = "logit_difference",
    batch_size: int | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> NeuronPatching:
    """Run the receiver with one neuron's activation taken from the giver at all tokens, for each of some neurons.

    A neuron's output is its activation times its row of W_out; the difference is added to the residual stream after its
    block, and the later blocks run again. The first-order effects of the same neurons come from one gradient.

    Args:
        receiver, giver, images, corruption, giver_corruption, seed, progress: as in `patch_models`.
        neurons: (layer, neuron) pairs, or the result of `choose_neurons`.
        quantity: as in `attribution_patching`.
        batch_size: images in a forward pass, patched copies counted; None takes 32 on a CPU, else 128.

    Raises:
        ValueError: as `patch_models`; no neuron, a repeated one, or one that the models do not have.
    """
    cfg = receiver.cfg
    asked = tuple(Neuron(*neuron) for neuron in neurons)
    _check(asked, cfg.n_layers, cfg.d_mlp)
    layers = sorted({neuron.layer for neuron in asked})
    posts = {layer: f"blocks.{layer}.mlp.hook_post" for layer in layers}
    resids = {layer: f"blocks.{layer}.hook_resid_post" for layer in layers}
    kept = 3 * cfg.n_layers * cfg.n_tokens * (4 * cfg.d_model + cfg.d_mlp)
    ids, exact, approximate = [], [], []
    for batch, pixels, theirs in pair_batches(
        receiver, giver, images, corruption, giver_corruption, kept, batch_size, seed=seed, progress=progress
    ):
        giver_logits, given = giver.run_with_cache(theirs, names_filter=list(posts.values()), return_cache_object=False)
        own, gradients = activations_and_gradients(
            receiver, pixels, giver_logits, batch, [*posts.values(), *resids.values(), "hook_logits"], quantity
        )
        logits = own["hook_logits"]
        foil = foils(batch.labels, logits, giver_logits)
        measured = partial(_measured, quantity=quantity, labels=batch.labels, foil=foil, giver=giver_logits)
        start = measured(logits.float())
        found = torch.empty(len(asked), len(batch))
        first_order = torch.empty(len(asked), len(batch))
        for layer in layers:
            moved = given[posts[layer]] - own[posts[layer]]
            slope = (moved.float() * gradients[posts[layer]].float()).sum(1)
            here = [i for i, neuron in enumerate(asked) if neuron.layer == layer]
            first_order[here] = on_cpu(slope[:, [asked[i].neuron for i in here]].T)
            rows = receiver.blocks[layer].mlp.W_out
            copies = copies_at_once(receiver, batch, batch_size)
            for chosen in (here[i : i + copies] for i in range(0, len(here), copies)):
                written = [moved[..., asked[i].neuron, None] * rows[asked[i].neuron] for i in chosen]
                entered = torch.cat([own[resids[layer]] + change for change in written])
                patched = receiver(entered, start_at_layer=layer + 1).float().unflatten(0, (len(chosen), len(batch)))
                check_copies(patched, batch, f"the receiver {model_name(receiver)!r}, patched in block {layer},")
                found[chosen] = on_cpu(measured(patched) - start).float()
        ids.append(on_cpu(batch.image_ids))
        exact.append(found)
        approximate.append(first_order)
    return NeuronPatching(asked, torch.cat(ids), torch.cat(exact, dim=1), torch.cat(approximate, dim=1), quantity)


def _measured(
    logits: Float[Tensor, "*copy batch class"], *, quantity: Effect, labels: Tensor, foil: Tensor, giver: Tensor
) -> Float[Tensor, "*copy batch"]:
    """Compute the quantity whose change is an effect; the divergence in float64 on the CPU."""
    if quantity == "divergence":
        return divergence_from(giver, logits)
    return logit_difference(logits, labels, foil)


def _check(neurons: Sequence[Neuron], n_layers: int, d_mlp: int) -> None:
    places = [neuron[:2] for neuron in neurons]
    wrong = [place for place in places if not (0 <= place[0] < n_layers and 0 <= place[1] < d_mlp)]
    if not neurons or len(set(places)) < len(places) or wrong:
        raise ValueError(
            f"neurons must be at least one (layer below {n_layers}, neuron below {d_mlp}), none twice; got "
            f"{wrong[:3] or places[:3]}"
        )
