"""Example images of a latent (the strongest, some at quantiles, some random) and its activation map on each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvit.analysis.inputs import Images, on_cpu, wide
from mechvit.data.batches import ImageBatch
from mechvit.data.corruption_spec import CLEAN, Condition
from mechvit.models.runs.image_tokens import token_slice
from mechvit.saes.hook_site import Site
from mechvit.saes.latents.directions import latent_directions
from mechvit.saes.splicing import SiteActivation

from .results import Ablation

if TYPE_CHECKING:
    from sae_lens import SAE

    from mechvit.models import HookedViT

BINS = 24
QUANTILES = (0.8, 0.6, 0.4, 0.2)


class ChosenTally:
    """Sums over clean images for the chosen latents of one SAE; one number per image and latent is kept."""

    def __init__(self, max_activation: Float[Tensor, " chosen"], n_labels: int) -> None:
        self.top = max_activation.clamp(min=torch.finfo(torch.float32).tiny)
        self.peaks: list[Tensor] = []
        self.counts = torch.zeros(len(self.top), BINS, dtype=torch.int64)
        self.mass = torch.zeros(n_labels, len(self.top), dtype=torch.float64)

    def add(self, codes: Float[Tensor, "batch token chosen"], labels: Int[Tensor, " batch"]) -> None:
        """Add a batch of images."""
        self.peaks.append(on_cpu(codes.amax(1)))
        _, _, latent = fired = (codes > 0).nonzero(as_tuple=True)
        place = (codes[fired] / self.top.to(codes)[latent] * BINS).ceil().long().clamp_(1, BINS) - 1
        self.counts += torch.bincount(latent * BINS + place, minlength=self.counts.numel()).view_as(self.counts).cpu()
        known = labels.cpu() >= 0
        self.mass.index_add_(0, labels.cpu()[known], codes.sum(1).double().cpu()[known])

    def label_share(self) -> Float[Tensor, "chosen label"]:
        """Return `BrowsedSAE.label_share`; NaN for a dead latent, no column without labels."""
        return (self.mass / self.mass.sum(0)).T


def pick_examples(
    peaks: Float[Tensor, "image chosen"], n_top: int, n_random: int, seed: int
) -> Int[Tensor, "chosen example"]:
    """Return the rows of each latent's examples: top, `QUANTILES`, random; each image once, -1 where none is left.

    Quantiles and random draws are taken from the images in which the latent fires.
    """
    generator = torch.Generator().manual_seed(seed)
    found = torch.full((peaks.shape[1], n_top + len(QUANTILES) + n_random), -1)
    for own, peak in zip(found, peaks.T, strict=True):
        order = peak.argsort(descending=True, stable=True)[: int((peak > 0).sum())]
        top, n = order[:n_top], len(order)
        own[: len(top)] = top
        taken = set(top.tolist())
        for place, quantile in enumerate(QUANTILES, n_top):
            row = int(order[round((1 - quantile) * (n - 1))]) if n else -1
            if row not in taken:
                own[place] = row
                taken.add(row)
        left = [row for row in order.tolist() if row not in taken]
        drawn = torch.randperm(len(left), generator=generator)[:n_random]
        own[n_top + len(QUANTILES) :][: len(drawn)] = torch.tensor(left)[drawn] if left else -1
    return found


def chosen_codes(
    sae: SAE, x: Float[Tensor, "batch token d"], chosen: Int[Tensor, " chosen"]
) -> Float[Tensor, "batch token chosen"]:
    """Return the activations of some latents in at least float32; all are encoded, as some SAEs select among all."""
    return wide(sae.encode(x.to(sae.W_enc.device))[..., chosen.to(sae.W_enc.device)])


def subset(images: Images, rows: Int[Tensor, " row"]) -> Images:
    """Return the given rows of a data set or batch."""
    if isinstance(images, ImageBatch):
        return images.take(rows.to(images.labels.device))
    return images.select(rows.tolist())


class SAEsAtSite(NamedTuple):
    """SAEs of one model that read the same site."""

    model: HookedViT
    site: Site
    saes: dict[str, SAE]


class ExamplePass:
    """Activation maps of the examples of all SAEs at one site, and each latent's ablation on its top images."""

    def __init__(
        self,
        group: SAEsAtSite,
        chosen: Mapping[str, Int[Tensor, " _chosen"]],
        rows: Mapping[str, Int[Tensor, "_chosen example"]],
        conditions: tuple[Condition, ...],
        n_top: int,
    ) -> None:
        self.group, self.chosen, self.conditions, self.n_top = group, chosen, conditions, n_top
        self.needed = torch.cat([part.flatten() for part in rows.values()]).unique()
        self.needed = self.needed[self.needed >= 0]
        # Index of each example among the needed images; their number where there is no example.
        self.place = {
            name: torch.where(part >= 0, torch.searchsorted(self.needed, part), len(self.needed))
            for name, part in rows.items()
        }
        cfg = group.model.cfg
        n_tokens = len(range(cfg.n_tokens)[token_slice(cfg, group.site.tokens)])
        self.maps = {
            name: torch.full((len(conditions), *part.shape, n_tokens), torch.nan) for name, part in rows.items()
        }
        self.written = {name: latent_directions(sae, chosen[name]) for name, sae in group.saes.items()}
        self.effects = {name: AblationTally(len(part), cfg.n_classes) for name, part in chosen.items()}

    def add(self, start: int, condition: Condition, batch: ImageBatch, seen: SiteActivation, batch_size: int) -> None:
        """Add a batch of the `needed` images under one condition; its first image is the `start`-th."""
        for name, sae in self.group.saes.items():
            codes = chosen_codes(sae, seen.x, self.chosen[name])
            place = self.place[name]
            latent, example = ((place >= start) & (place < start + len(codes))).nonzero(as_tuple=True)
            image = place[latent, example] - start
            self.maps[name][self.conditions.index(condition), latent, example] = codes[image, :, latent].float().cpu()
            if condition == CLEAN and self.group.model.cfg.no_softmax is None:
                top = example < self.n_top
                pairs = zip(image[top].split(batch_size), latent[top].split(batch_size), strict=True)
                self._ablate(name, codes, seen, batch.labels, pairs)

    def _ablate(
        self, name: str, codes: Tensor, seen: SiteActivation, labels: Tensor, pairs: Iterable[tuple[Tensor, Tensor]]
    ) -> None:
        """Ablate each latent on its image, for (image, latent) pairs, as many at once as each part holds."""
        before = seen.untouched()
        for i, j in pairs:
            written = (codes[i, :, j][..., None] * self.written[name][j.to(codes.device), None]).to(seen.x)
            some = replace(seen, entered=seen.entered[i], whole=seen.whole[i], logits=None)
            self.effects[name].add(j, before[i], some.spliced(some.x - written), labels[i])


class AblationTally:
    """Sums over the top images of each latent."""

    def __init__(self, n_chosen: int, n_classes: int) -> None:
        self.images, self.logit, self.probability, self.changed = torch.zeros(4, n_chosen, dtype=torch.float64)
        self.classes = torch.zeros(n_chosen, n_classes, dtype=torch.float64)

    def add(
        self,
        latent: Int[Tensor, " pair"],
        before: Float[Tensor, "pair class"],
        after: Float[Tensor, "pair class"],
        labels: Int[Tensor, " pair"],
    ) -> None:
        """Add pairs of a latent and one of its images, with the logits before and after the ablation."""
        label, unknown = labels[:, None].clamp_min(0).to(before.device), labels.cpu() < 0
        logit = (after - before).double()
        logit = (logit - logit.mean(1, keepdim=True)).gather(1, label)[:, 0].cpu()
        probability = (after.double().softmax(1) - before.double().softmax(1)).cpu()
        changed = (after.argmax(1) != before.argmax(1)).double().cpu()
        self.images.index_add_(0, latent, torch.ones_like(changed))
        own = probability.gather(1, label.cpu())[:, 0]
        self.logit.index_add_(0, latent, logit.masked_fill(unknown, torch.nan))
        self.probability.index_add_(0, latent, own.masked_fill(unknown, torch.nan))
        self.changed.index_add_(0, latent, changed)
        self.classes.index_add_(0, latent, probability)

    def result(self, top: int = 3) -> Ablation:
        """Return the means; 0 / 0 is NaN."""
        top = min(top, self.classes.shape[1])
        classes = self.classes / self.images[:, None]
        low, high = classes.topk(top, largest=False), classes.topk(top)
        return Ablation(
            images=self.images.long(),
            label_logit=self.logit / self.images,
            label_probability=self.probability / self.images,
            changed=self.changed / self.images,
            lowered=low.indices,
            lowered_by=low.values,
            raised=high.indices,
            raised_by=high.values,
        )
