"""Cross-model patching: the effect on one model of taking one component's activation from another model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechvit.analysis.behaviour.performance import check_logits, unrounded
from mechvit.analysis.finite import first_not_finite, model_name
from mechvit.analysis.inputs import Images, on_cpu
from mechvit.analysis.statistics.bootstrap import LEVEL, RESAMPLES
from mechvit.analysis.statistics.results import Result
from mechvit.arguments import checked
from mechvit.data.batches import ImageBatch
from mechvit.data.corruption_spec import Condition
from mechvit.models.runs.image_tokens import token_slice

from .components import BY, COMPONENT_KINDS, ENDS, Component, component_frame, components_of, passes_needed
from .model_pair import check_copies, copies_at_once, pair_batches
from .recovery import (
    GIVER,
    RECEIVER,
    Effect,
    Outcomes,
    correct_or_nan,
    divergence_from,
    foils,
    is_correct,
    logit_difference,
    recovery,
    score_outcomes,
)

if TYPE_CHECKING:
    import pandas as pd

    from mechvit.models import HookedViT

Activations = Mapping[str, Tensor]


@dataclass(frozen=True, repr=False)
class Patching(Result):
    """Outcomes of the receiver with each component in turn taken from the giver, per image; on the CPU."""

    components: tuple[Component, ...]
    correct: Bool[Tensor, "components images"]
    """Whether the label is the prediction."""
    logit_difference: Float[Tensor, "components images"]
    """Logit of the label minus that of the image's foil (see `foils`); NaN for an image without a label."""
    divergence: Float[Tensor, "components images"]
    """KL(giver | patched receiver), nats, float64."""
    receiver: Outcomes
    """Outcomes of the receiver, unpatched, on its own images."""
    giver: Outcomes
    """Outcomes of the giver, unpatched, on its own images, with the same foils."""
    passes: float
    """Forward passes needed per image, see `passes_needed`."""

    @property
    def image_id(self) -> Int[Tensor, " images"]:
        """Ids of the images (columns)."""
        return self.receiver.image_id

    @property
    def effect(self) -> Float[Tensor, "components images"]:
        """Logit difference with the component patched minus the receiver's own; positive favours the label."""
        return self.logit_difference - self.receiver.logit_difference

    def effect_on(self, quantity: Effect) -> Float[Tensor, "components images"]:
        """Return the change that patching a component makes in a quantity; of the logit difference it is `effect`."""
        return self.effect if quantity == "logit_difference" else self.divergence - self.receiver.divergence

    def to_frame(self, **labels: str) -> pd.DataFrame:
        """Tabulate components and images: the labels, kind, layer, head, tokens, image_id, correct (NaN without a
        label), logit_difference, divergence.
        """
        return component_frame(self.components, len(self.image_id), **labels).assign(
            image_id=self.image_id.repeat(len(self.components)).numpy(),
            correct=correct_or_nan(self.correct, self.logit_difference).flatten().numpy(),
            logit_difference=self.logit_difference.flatten().numpy(),
            divergence=self.divergence.flatten().numpy(),
        )

    def references(self, **labels: str) -> pd.DataFrame:
        """Return the unpatched outcomes: the labels, condition (receiver, giver), and the columns of `Outcomes`."""
        import pandas as pd

        two = ((RECEIVER, self.receiver), (GIVER, self.giver))
        return pd.concat([own.to_frame(**labels, condition=name) for name, own in two], ignore_index=True)

    def summary(self, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0) -> pd.DataFrame:
        """Compute the outcomes with every component patched, and the share of the gap that each recovers: of accuracy,
        of the logit difference, and without labels of KL(giver | receiver).

        Returns:
            the rows of `recovery`, by kind, layer, head and tokens.
        """
        return recovery(self.to_frame(), self.references(), by=BY, resamples=resamples, level=level, seed=seed)


@checked
@torch.inference_mode()
def patch_models(
    receiver: HookedViT,
    giver: HookedViT,
    images: Images,
    corruption: Condition | str,
    *,
    giver_corruption: Condition | str | None = None,
    kinds: Sequence[str] = COMPONENT_KINDS,
    tokens: Sequence[str] = ("all",),
    batch_size: int | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> Patching:
    """Run the receiver on corrupted images with one component's activation taken from the giver, for every component.

    The giver sees the same images. A component is the residual stream that enters a block or the head, the output of a
    block's attention or MLP, or one head's z (its mixed values, before the output projection), at some tokens; all
    later computation is the receiver's. With a base receiver and a tuned giver this locates the tuned model's gain;
    exchanged, what the base lacks; with one model twice and `giver_corruption="clean"`, the components through which
    the corruption harms it. Nothing before the patched component is computed again, and copies of a batch for several
    components share a forward pass.

    Args:
        receiver, giver: classifiers of one shape and one list of classes; they may be the same model.
        images: a `datasets.Dataset` (prepared or raw) or an `ImageBatch`; labels are the models' own class ids,
            negative for images without one.
        corruption: that of the receiver's images, in [0, 1] at the model's input size.
        giver_corruption: that of the giver's images; the same when None.
        kinds: some of "resid", "attn", "mlp", "head", and of "head_input", "logits" (see `ENDS`).
        tokens: where to patch: some of "all", "cls", "patches".
        batch_size: images in a forward pass, patched copies counted; None takes 32 on a CPU, else 128, and holds at
            most 1 GiB of activations.
        seed: seed of the noise; the same image has the same noise in both models.
        progress: the label of a progress bar; None shows none.

    Raises:
        ValueError: models of two shapes or without heads, unknown kinds or tokens; no images, another input size,
            labels that are not classes, logits that are not finite.

    Source: activation patching (Vig et al., arXiv:2004.12265; Zhang and Nanda, arXiv:2309.16042), across models as in
    Prakash et al., arXiv:2402.14811.
    """
    components = components_of(receiver.cfg, kinds, tokens)
    cfg = receiver.cfg
    kept = cfg.n_layers * cfg.n_tokens * cfg.d_model * 8  # for both models: residual streams, attention and MLP outputs
    parts = []
    for batch, *pixels in pair_batches(
        receiver, giver, images, corruption, giver_corruption, kept, batch_size, seed=seed, progress=progress
    ):
        copies = copies_at_once(receiver, batch, batch_size)
        parts.append(_patch_batch(receiver, giver, batch, pixels, components, copies))
    correct, difference, apart, own, given = zip(*parts, strict=True)
    return Patching(
        components,
        torch.cat(correct, dim=1),
        torch.cat(difference, dim=1),
        torch.cat(apart, dim=1),
        Outcomes.concatenate(own),
        Outcomes.concatenate(given),
        passes_needed(cfg, components),
    )


def _patch_batch(
    receiver: HookedViT,
    giver: HookedViT,
    batch: ImageBatch,
    pixels: Sequence[Tensor],
    components: Sequence[Component],
    copies: int,
) -> tuple[Tensor, Tensor, Tensor, Outcomes, Outcomes]:
    """Return (correct, logit difference, divergence), each [components, batch], and the outcomes of the two unpatched
    models.
    """
    n_layers = receiver.cfg.n_layers
    points = {component.point(n_layers) for component in components}
    inner = [i for i, component in enumerate(components) if component.kind not in ENDS]
    beside = {
        f"blocks.{c.layer}.hook_resid_{'pre' if c.before_mlp else 'mid'}"
        for c in (components[i] for i in inner)
        if c.start > c.layer
    }
    logits, own = receiver.run_with_cache(pixels[0], names_filter=points | beside, return_cache_object=False)
    giver_logits, given = giver.run_with_cache(pixels[1], names_filter=points, return_cache_object=False)
    passes = (("receiver", receiver, pixels[0], logits), ("giver", giver, pixels[1], giver_logits))
    for name, model, shown, each in passes:
        begins = partial(first_not_finite, model, shown)
        check_logits(each, batch.labels, batch.image_ids, f"the {name} {model_name(model)!r}", begins, labelled=False)
    about = (batch.labels, foils(batch.labels, logits, giver_logits), batch.image_ids, giver_logits)
    references = score_outcomes(logits, *about), score_outcomes(giver_logits, *about)
    correct = torch.empty(len(components), len(batch), dtype=torch.bool)
    difference = torch.empty(len(components), len(batch), dtype=unrounded(logits).dtype)
    apart = torch.empty(len(components), len(batch), dtype=torch.float64)
    for start, chosen in _together(components, inner, copies):
        entered = _entering(receiver, start, [components[i] for i in chosen], own, given)
        patched = unrounded(receiver(entered, start_at_layer=start)).unflatten(0, (len(chosen), len(batch)))
        labels = batch.labels.expand(len(chosen), -1)
        who = f"the receiver {model_name(receiver)!r}, patched from block {start - 1} on,"
        check_copies(patched, batch, who)
        correct[chosen] = on_cpu(is_correct(patched, labels))
        difference[chosen] = on_cpu(logit_difference(patched, *about[:2]))
        apart[chosen] = divergence_from(giver_logits, patched)
    for i in set(range(len(components))) - set(inner):
        patched = given[components[i].point(n_layers)]
        if components[i].kind == "head_input":
            assert receiver.head is not None  # checked by check_activations_fit
            patched = receiver.hook_logits(receiver.head(patched))
        outcomes = score_outcomes(patched, *about)
        correct[i], difference[i], apart[i] = outcomes.correct, outcomes.logit_difference, outcomes.divergence
    return correct, difference, apart, *references


def _together(components: Sequence[Component], chosen: Sequence[int], copies: int) -> Iterator[tuple[int, list[int]]]:
    """Group the chosen components by the block at which they start, at most `copies` in a group; yield block and
    indices.

    Components before an MLP come first.
    """
    order = sorted(chosen, key=lambda i: (components[i].start, not components[i].before_mlp))
    for start in sorted({components[i].start for i in chosen}):
        here = [i for i in order if components[i].start == start]
        yield from ((start, here[i : i + copies]) for i in range(0, len(here), copies))


def _entering(
    model: HookedViT, start: int, group: Sequence[Component], own: Activations, given: Activations
) -> Float[Tensor, "copies_x_batch token d_model"]:
    """Return the input of block `start` with each component of the group, in turn, taken from the giver.

    The group begins with components that lie before the MLP of the preceding block, which is then run.
    """
    block, at = model.blocks[max(start - 1, 0)], f"blocks.{start - 1}."
    mids, entered = [], []
    for component in group:
        name = component.point(model.cfg.n_layers)
        replaced = _replace(own[name], given[name], token_slice(model.cfg, component.tokens), component.head)
        if component.kind == "head":
            replaced = block.hook_attn_out(block.attn.write(replaced))
        if component.before_mlp:
            mids.append(own[at + "hook_resid_pre"] + replaced)
        elif component.kind == "mlp":
            entered.append(block.hook_resid_post(own[at + "hook_resid_mid"] + replaced))
        else:
            entered.append(replaced)
    return torch.cat([block.after_attention(torch.cat(mids)), *entered] if mids else entered)


def _replace(own: Tensor, given: Tensor, tokens: slice, head: int) -> Tensor:
    """Return the giver's values at some tokens (and one head) and the receiver's own elsewhere."""
    if head < 0 and tokens == slice(None):
        return given
    out = own.clone()
    where = (slice(None), tokens) if head < 0 else (slice(None), tokens, head)
    out[where] = given[where]
    return out
