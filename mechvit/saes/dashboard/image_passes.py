"""Passes over the images for a feature browser, each shared by the SAEs of one model and hook point."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.functional import interpolate

from mechvit.analysis.behaviour.performance import strongest
from mechvit.analysis.finite import check_finite
from mechvit.analysis.inputs import Images, corrupted_batches, default_batch_size, image_batches
from mechvit.data.batches import ImageBatch
from mechvit.data.corruption_spec import CLEAN, Condition
from mechvit.saes.latents.directions import latent_directions
from mechvit.saes.latents.results import SAEFeatures
from mechvit.saes.splicing import SiteActivation, read_site

from .examples import ChosenTally, ExamplePass, SAEsAtSite, chosen_codes, pick_examples, subset
from .results import BrowsedSAE, Browsing, Predicted, Strongest, sensitivity_index
from .selection import nearest_directions


class ShownReadings(NamedTuple):
    """Data of one SAE on the displayed images."""

    strongest: Strongest
    predicted: Predicted | None
    written: Tensor
    """activation x length of the direction of each latent, summed over all tokens of the clean displayed images."""


class ImageStream:
    """Images of a browser, those among them that it displays, and the pictures that the page needs."""

    def __init__(self, images: Images, measured: tuple[Condition, ...], settings: Browsing) -> None:
        self.images, self.settings = images, settings
        self.labels = column(images, "label")
        severest = {c.series: c for c in sorted(measured)}
        drawn = [c for c in measured if c in severest.values()][: settings.drawn_corruptions]
        self.conditions = (CLEAN, *drawn)
        order, count = self.labels.argsort(stable=True), min(settings.n_images, len(self.labels))
        self.shown = order[torch.linspace(0, len(order) - 1, count).round().long()]  # spread over the classes
        self.pictures: dict[tuple[int, str], Tensor] = {}

    def batch_size(self, group: SAEsAtSite) -> int:
        """Return the batch size in the settings; when None, the default with at most 256 MiB for one SAE's codes."""
        codes = 4 * group.model.cfg.n_tokens * max(sae.cfg.d_sae for sae in group.saes.values())
        return self.settings.batch_size or default_batch_size(group.model, held=codes)

    def _read(
        self, group: SAEsAtSite, rows: Tensor, side: int | None = None
    ) -> Iterator[tuple[int, Condition, ImageBatch, SiteActivation]]:
        """Run the images in some rows under every condition, batch by batch, and store the pictures that are missing.

        Args:
            group: the SAEs, of one model and site.
            rows: rows of the images.
            side: reduce the pictures to this many pixels where they are larger, and store the clean ones alone.

        Yields:
            the place in `rows` of a batch's first image, the condition, the batch under it, and its activation.
        """
        model, size = group.model, self.batch_size(group)
        images = subset(self.images, rows)
        for batch in corrupted_batches({"shown": model}, images, self.conditions, size, seed=self.settings.seed):
            for condition, shown in batch.conditions:
                if side is None or condition == CLEAN:
                    self._keep(rows[batch.start :], shown, condition, side)
                yield batch.start, condition, shown, read_site(model, group.site, shown, condition)

    def _keep(self, rows: Tensor, batch: ImageBatch, condition: Condition, side: int | None) -> None:
        """Store the pictures of a batch that are missing, reduced to `side` pixels where they are larger."""
        missing = [i for i, row in enumerate(rows[: len(batch)].tolist()) if (row, condition.key) not in self.pictures]
        if not missing:
            return
        some = batch.images[missing]
        if side is not None and side < some.shape[-1]:
            some = interpolate(some, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
        for i, picture in zip(missing, (some * 255).round().to(torch.uint8).cpu(), strict=True):
            self.pictures[int(rows[i]), condition.key] = picture

    def look(self, group: SAEsAtSite) -> dict[str, ShownReadings]:
        """Run the displayed images under every condition and return each SAE's data on them."""
        model = group.model
        found: dict[tuple[str, str], dict[Condition, list[Tensor]]] = defaultdict(lambda: defaultdict(list))
        lengths = {name: latent_directions(sae).float().norm(dim=1) for name, sae in group.saes.items()}
        for _, condition, batch, seen in self._read(group, self.shown):
            if model.cfg.no_softmax is None:
                logits = seen.untouched()
                check_finite("logits", [logits], model, batch.image_ids, numbers=[model.cfg.n_layers])
                share, label = strongest(logits, 3)
                found["", "label"][condition].append(label)
                found["", "share"][condition].append(share)
            for name, sae in group.saes.items():
                codes = sae.encode(seen.x.to(sae.W_enc.device)).float()
                size = codes * lengths[name]
                latent = size.topk(min(self.settings.strongest, sae.cfg.d_sae)).indices
                activation = codes.gather(-1, latent)
                found[name, "latent"][condition].append(torch.where(activation > 0, latent, -1))
                found[name, "activation"][condition].append(torch.where(activation > 0, activation, torch.nan))
                if condition == CLEAN:
                    found[name, "written"][condition].append(size.sum(1))
        whole = {key: torch.stack([torch.cat(parts) for parts in by.values()]).cpu() for key, by in found.items()}
        predicted = Predicted(whole["", "label"], whole["", "share"]) if ("", "label") in whole else None
        return {
            name: ShownReadings(
                Strongest(whole[name, "latent"], whole[name, "activation"]), predicted, whole[name, "written"][0].sum(0)
            )
            for name in group.saes
        }

    def pages(
        self,
        group: SAEsAtSite,
        known: Mapping[str, SAEFeatures],
        chosen: Mapping[str, Int[Tensor, " chosen"]],
        shown: Mapping[str, ShownReadings],
        progress: str | None,
    ) -> dict[str, BrowsedSAE]:
        """Return the data of a group's SAEs, with details of the chosen latents."""
        cfg, site = group.model.cfg, group.site
        tallies = self._tally(group, known, chosen, progress)
        peaks = {name: torch.cat(tally.peaks) for name, tally in tallies.items()}
        settings = self.settings
        rows = {
            name: pick_examples(peak, settings.top_images, settings.random_images, settings.seed)
            for name, peak in peaks.items()
        }
        examples = self._examples(group, chosen, rows)
        pages = {}
        for name, sae in group.saes.items():
            nearest, cosine = nearest_directions(latent_directions(sae), chosen[name], settings.nearest)
            pages[name] = BrowsedSAE(
                site=site,
                architecture=str(sae.cfg.metadata.architecture_in_training or sae.cfg.architecture()),
                grid=(0, 0) if site.tokens == "cls" else (int(cfg.grid[0]), int(cfg.grid[1])),
                special={"all": cfg.n_prefix_tokens, "patches": 0, "cls": 1}[site.tokens],
                features=known[name],
                sensitivity=sensitivity_index(known[name]),
                chosen=chosen[name],
                histogram=tallies[name].counts,
                label_share=tallies[name].label_share(),
                example_row=rows[name],
                example_score=torch.where(rows[name] >= 0, peaks[name].T.gather(1, rows[name].clamp(min=0)), torch.nan),
                maps=examples.maps[name],
                nearest=nearest,
                nearest_cosine=cosine,
                ablation=examples.effects[name].result() if group.model.cfg.no_softmax is None else None,
                strongest=shown[name].strongest,
                predicted=shown[name].predicted,
            )
        return pages

    def _tally(
        self,
        group: SAEsAtSite,
        known: Mapping[str, SAEFeatures],
        chosen: Mapping[str, Int[Tensor, " chosen"]],
        progress: str | None,
    ) -> dict[str, ChosenTally]:
        """Run all clean images and return the sums of each SAE's chosen latents."""
        n_labels = int(self.labels.max()) + 1
        tallies = {name: ChosenTally(known[name].max_activation[chosen[name]], n_labels) for name in group.saes}
        for batch in image_batches(group.model, self.images, self.batch_size(group), progress=progress):
            x = read_site(group.model, group.site, batch).x
            for name, sae in group.saes.items():
                tallies[name].add(chosen_codes(sae, x, chosen[name]), batch.labels)
        return tallies

    def _examples(
        self, group: SAEsAtSite, chosen: Mapping[str, Int[Tensor, " chosen"]], rows: Mapping[str, Tensor]
    ) -> ExamplePass:
        """Run the examples under every condition and store their clean pictures."""
        examples = ExamplePass(group, chosen, rows, self.conditions, self.settings.top_images)
        if len(examples.needed):  # some latent fires
            for start, condition, batch, seen in self._read(group, examples.needed, self.settings.picture_side):
                examples.add(start, condition, batch, seen, self.batch_size(group))
        return examples


def column(images: Images, name: str) -> Int[Tensor, " image"]:
    """Return the labels or the ids of all images."""
    if isinstance(images, ImageBatch):
        return {"label": images.labels, "image_id": images.image_ids}[name].cpu()
    return torch.as_tensor(images.with_format(None)[name][:])
