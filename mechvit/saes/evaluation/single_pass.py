"""A single pass over the images that measures several SAEs under several conditions and keeps no activation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from mechvit.analysis.behaviour.performance import present_classes
from mechvit.analysis.condition_images import shown_to
from mechvit.analysis.finite import model_name
from mechvit.analysis.inputs import Images, default_batch_size, image_batches, on_cpu
from mechvit.data.batches import ImageBatch
from mechvit.data.corruption_spec import CLEAN, Condition
from mechvit.models.runs.image_tokens import token_slice
from mechvit.saes.hook_site import shared_site
from mechvit.saes.latents.directions import fixed_scale, latent_directions
from mechvit.saes.latents.logit_effects import logit_effects
from mechvit.saes.latents.statistics import FeatureTally
from mechvit.saes.splicing import SiteActivation, clean_mean, read_site
from mechvit.settings_checks import COUNT, SHARE, check

from .reconstruction import Classified, Reconstruction, code_cosine, recovered
from .results import SAECosine, SAEEvaluation, SAEQuality

if TYPE_CHECKING:
    from sae_lens import SAE

    from mechvit.models import HookedViT

DENSE_ABOVE = 0.1
"""Share of tokens above which a latent that fires on them counts as dense."""
MEAN_IMAGES = 256
"""Number of images, from the first, over which the mean of mean ablation is taken."""


def signed(sae: SAE) -> bool:
    """Return whether an SAE's codes may be negative."""
    return bool(sae.cfg.architecture() == "abstopk")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Measurements that a pass makes."""

    measured: tuple[Condition, ...] = ()
    """Conditions whose quality is measured."""
    compared: tuple[Condition, ...] = ()
    """Corruptions whose codes are compared with the clean ones."""
    described: tuple[Condition, ...] = ()
    """Corruptions whose effect on each latent is measured."""
    top_images: int | None = None
    """Number of images kept for each latent; None describes none."""
    dense_above: float = DENSE_ABOVE
    seed: int = 0
    """Seed of the corruptions' noise."""
    allow_other_model: bool = False
    """Whether to accept SAEs that were trained on another checkpoint."""

    def __post_init__(self) -> None:
        check(self, COUNT, "top_images", or_none=True)
        check(self, SHARE, "dense_above")

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """All conditions, clean first if it is needed."""
        clean = (CLEAN,) if self.compared or self.top_images else ()
        return tuple(dict.fromkeys((*clean, *self.measured, *self.compared, *self.described)))


class SinglePass:
    """Sums over the images for each SAE and condition.

    Raises:
        ValueError: the SAEs do not fit the model or each other (`shared_site`), or codes to be described may be
            negative.
    """

    def __init__(self, model: HookedViT, saes: Mapping[str, SAE], wanted: Wanted) -> None:
        self.model, self.saes, self.wanted = model, saes, wanted
        self.site = shared_site(model, saes, wanted.allow_other_model)
        if wanted.top_images and (both := [name for name, sae in saes.items() if signed(sae)]):
            raise ValueError(
                f"latents are described by how strongly they fire; those of the SAE {both[0]!r} (abstopk) fire with "
                "both signs: describe none (top_images None; 0 on a command line)"
            )
        read = range(model.cfg.n_tokens)[token_slice(model.cfg, self.site.tokens)]
        self.n_tokens = len(read)
        self.first_patch = model.cfg.n_prefix_tokens - read.start  # its index among the tokens that are read
        self.compared = slice(self.first_patch if self.site.tokens == "all" else 0, None)
        self.mean: Tensor | None = None
        self.image_ids: list[Tensor] = []
        self.labels: list[Tensor] = []
        self.reconstructions: dict[tuple[str, str], Reconstruction] = defaultdict(Reconstruction)
        self.baselines: dict[tuple[str, str], Classified] = defaultdict(Classified)
        self.spliced: dict[tuple[str, str], Classified] = defaultdict(Classified)
        self.cosines: dict[tuple[str, str], list[Tensor]] = defaultdict(list)
        self.features: dict[str, FeatureTally] = {}
        if wanted.top_images:
            tally = (wanted.top_images, self.n_tokens, self.first_patch)
            self.features = {name: FeatureTally(*tally) for name in saes}

    @torch.inference_mode()
    def over(self, images: Images, batch_size: int | None, progress: str | None) -> SAEEvaluation:
        """Measure everything in one pass over the images."""
        if batch_size is None:
            codes = 4 * self.n_tokens * max(sae.cfg.d_sae for sae in self.saes.values())
            batch_size = default_batch_size(self.model, held=codes)
        labelled = len(present_classes(images)) > 0
        if labelled and self.wanted.measured and self.model.cfg.no_softmax is None:
            self.mean = clean_mean(self.model, self.site, images, MEAN_IMAGES, batch_size)
        first_image = 0
        for batch in image_batches(
            self.model, images, batch_size, conditions=self.wanted.conditions, progress=progress
        ):
            self.add(batch, first_image)
            first_image += len(batch)
            self.image_ids.append(on_cpu(batch.image_ids))
            self.labels.append(on_cpu(batch.labels))
        return self.result()

    def add(self, batch: ImageBatch, first_image: int) -> None:
        """Add a batch: the network runs once per condition, then the SAEs in turn, so that few codes are held."""
        shown = ((c, shown_to(self.model, batch, c, seed=self.wanted.seed)) for c in self.wanted.conditions)
        seen = {c: read_site(self.model, self.site, images, c) for c, images in shown}
        if self.mean is not None:
            for corruption in self.wanted.measured:
                here = seen[corruption]
                floors = {"untouched": here.untouched(), "mean": here.spliced(self.mean)}
                floors["zero"] = here.spliced(torch.zeros_like(self.mean))
                for name, logits in floors.items():
                    who = f"under {corruption.key} the model {model_name(self.model)!r} ({name})"
                    self.baselines[name, corruption.key].add(logits, batch, who)
        for name, sae in self.saes.items():
            clean: Tensor | None = None
            for corruption, here in seen.items():
                codes = sae.encode(here.x.to(sae.W_enc.device))
                if corruption in self.wanted.measured:
                    self.measure((name, corruption.key), codes, here, batch)
                if corruption == CLEAN:
                    clean = codes
                    if self.features:
                        self.features[name].add(codes, batch.labels, first_image)
                if clean is not None:
                    self.compare(name, corruption, clean[:, self.compared], codes[:, self.compared])

    def measure(self, key: tuple[str, str], codes: Tensor, here: SiteActivation, batch: ImageBatch) -> None:
        """Add the reconstruction and, if the model has a head, the logits of the model with it spliced in."""
        x_hat = self.saes[key[0]].decode(codes).to(here.x.device)
        if not bool(x_hat.isfinite().all()):
            raise ValueError(
                f"the reconstruction of the SAE {key[0]!r} is not finite under {key[1]}: its codes may be too large "
                f"for its {codes.dtype}; call sae.to(dtype=torch.float32) first"
            )
        self.reconstructions[key].add(here.x, codes.abs() if signed(self.saes[key[0]]) else codes, x_hat)
        if self.mean is not None:
            self.spliced[key].add(here.spliced(x_hat), batch, f"under {key[1]} the model with the SAE {key[0]!r} in it")

    def compare(
        self, name: str, corruption: Condition, clean: Float[Tensor, "batch token d_sae"], codes: Tensor
    ) -> None:
        """Add the codes of the same patches, clean and corrupted."""
        if corruption in self.wanted.compared:
            self.cosines[name, corruption.key].append(on_cpu(code_cosine(clean, codes)))
        if self.features and corruption in self.wanted.described:
            self.features[name].pairs[corruption.key].add(clean, codes)

    def result(self) -> SAEEvaluation:
        """Return the evaluation over all images added."""
        ids, labels = torch.cat(self.image_ids), torch.cat(self.labels)
        features = {}
        for name, tally in self.features.items():
            read_by_head = self.site.writes_residual and self.model.cfg.no_softmax is None
            sae = self.saes[name]
            effects = logit_effects(self.model, latent_directions(sae)) if read_by_head and fixed_scale(sae) else None
            features[name] = tally.result(ids, labels, effects)
        return SAEEvaluation(
            {key: self.quality(*key) for key in self.reconstructions},
            {key: SAECosine(ids, torch.cat(parts)) for key, parts in self.cosines.items()},
            {key: found.means() for key, found in self.baselines.items()},
            {key: found.firing for key, found in self.reconstructions.items()},
            features,
        )

    def quality(self, name: str, condition: str) -> SAEQuality:
        """Return the quality of one SAE under one condition."""
        patches = slice(self.first_patch, None)
        cls = slice(0, int(self.model.cfg.cls_token and self.site.tokens != "patches"))
        found = self.reconstructions[name, condition].metrics(cls, patches, self.wanted.dense_above)
        if self.mean is None:
            return SAEQuality(**found)
        own = self.spliced[name, condition].means()
        untouched, zero, mean = (self.baselines[which, condition].means() for which in ("untouched", "zero", "mean"))
        for metric in ("accuracy", "cross_entropy"):
            value, best = getattr(own, metric), getattr(untouched, metric)
            found[f"{metric}_recovered"] = recovered(getattr(zero, metric), value, best)
            found[f"{metric}_recovered_from_mean"] = recovered(getattr(mean, metric), value, best)
        return SAEQuality(**found, **vars(own))
