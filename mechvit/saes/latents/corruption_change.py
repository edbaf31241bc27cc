"""Change of every latent under a corruption, in one or several models, with intervals over images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvit.analysis.condition_images import check_same_image
from mechvit.analysis.inputs import Images, corrupted_batches
from mechvit.analysis.statistics.bootstrap import LEVEL
from mechvit.analysis.statistics.results import OneLine, Result
from mechvit.arguments import checked
from mechvit.data.conditions import as_condition
from mechvit.data.corruption_spec import CLEAN, Condition
from mechvit.saes.hook_site import Site, shared_site
from mechvit.saes.splicing import read_site

if TYPE_CHECKING:
    import pandas as pd
    from sae_lens import SAE

    from mechvit.models import HookedViT


@dataclass(frozen=True, kw_only=True, repr=False)
class LatentChange(OneLine):
    """One model's latents clean and corrupted: means over images of the mean over tokens; on the CPU, in float64.

    Errors are standard errors over images (sample standard deviation / square root of their number).
    """

    clean: Float[Tensor, " d_sae"]
    corrupted: Float[Tensor, " d_sae"]
    error: Float[Tensor, " d_sae"]
    """Standard error of corrupted - clean."""
    clean_rate: Float[Tensor, " d_sae"]
    """Share of tokens on which the latent fires."""
    corrupted_rate: Float[Tensor, " d_sae"]
    beyond: Float[Tensor, " d_sae"]
    """This model's corrupted - clean minus the first model's, on the same images; 0 for the first model."""
    beyond_error: Float[Tensor, " d_sae"]

    @property
    def difference(self) -> Float[Tensor, " d_sae"]:
        """Corrupted - clean; positive if the corruption raises the latent."""
        return self.corrupted - self.clean

    @property
    def rate(self) -> Float[Tensor, " d_sae"]:
        """Share of tokens on which the latent fires, clean and corrupted together."""
        return (self.clean_rate + self.corrupted_rate) / 2


@dataclass(frozen=True, repr=False)
class FeatureChange(Result):
    """Effect of a corruption on the latents of several models, by model name, in the order given.

    Latents are those of the first model's SAE; those of another model's own SAE are matched to them, and latents
    without a match are NaN.
    """

    models: Mapping[str, LatentChange]
    images: int

    def to_frame(self, *, level: float = LEVEL, **labels: str) -> pd.DataFrame:
        """Return one row per model and latent: columns of `labels`, model, feature, clean, corrupted, difference, low,
        high, q, clean_rate, corrupted_rate, beyond (the difference minus the first model's), beyond_low, beyond_high,
        beyond_q.

        Intervals are the mean ± Student's t times the standard error over images, for one latent at a time. Among many
        latents some intervals exclude 0 by chance: q is the p-value adjusted over all of a model's latents, that is,
        the expected share of false discoveries among latents with at most this q.

        Source: Benjamini and Hochberg, Journal of the Royal Statistical Society B 57 (1995).
        """
        import pandas as pd
        from scipy.stats import t

        reach = float(t.ppf((1 + level) / 2, self.images - 1))
        parts = []
        for name, found in self.models.items():
            columns = {
                "clean": found.clean,
                "corrupted": found.corrupted,
                "difference": found.difference,
                "low": found.difference - reach * found.error,
                "high": found.difference + reach * found.error,
                "q": _adjusted_p(found.difference, found.error, self.images),
                "clean_rate": found.clean_rate,
                "corrupted_rate": found.corrupted_rate,
                "beyond": found.beyond,
                "beyond_low": found.beyond - reach * found.beyond_error,
                "beyond_high": found.beyond + reach * found.beyond_error,
                "beyond_q": _adjusted_p(found.beyond, found.beyond_error, self.images),
            }
            about = {**labels, "model": name, "feature": np.arange(len(found.clean))}
            parts.append(pd.DataFrame({**about, **{key: values.numpy() for key, values in columns.items()}}))
        return pd.concat(parts, ignore_index=True)


def _adjusted_p(mean: Float[Tensor, " n"], error: Float[Tensor, " n"], images: int) -> Float[Tensor, " n"]:
    """Compute two-sided p-values for a mean of 0, adjusted over the finite ones; 1 where the mean is exactly 0."""
    from scipy.stats import false_discovery_control, t

    found = mean.clone()
    known = mean.isfinite()
    size, spread = mean[known].abs().numpy(), error[known].numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.where(size == 0, 1.0, 2 * t.sf(size / spread, images - 1))
    found[known] = torch.from_numpy(false_discovery_control(p) if len(p) else p)
    return found


@checked
@torch.inference_mode()
def feature_change(
    models: Mapping[str, HookedViT],
    saes: SAE | Mapping[str, SAE],
    images: Images,
    corruption: Condition | str,
    *,
    matches: Mapping[str, Int[Tensor, " d_sae"]] | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    allow_other_model: bool = False,
    progress: str | None = None,
) -> FeatureChange:
    """Compute the mean activation of every latent on clean and corrupted images, in each model, in one pass.

    Args:
        models: models by name, the base first; each receives the images as its own processor resizes them.
        saes: one SAE for all models (trained on the activations of all, see `MixedStreams`), or one per model.
        images: a `datasets.Dataset` (prepared or raw) or an `ImageBatch`.
        corruption: applied in [0, 1] at the models' input size.
        matches: for each other model with its own SAE, its latent for each latent of the first model's SAE, -1 if there
            is none: `match_features(first, other).match`.
        batch_size, seed, allow_other_model, progress: as in `evaluate_saes`.

    Raises:
        ValueError: there are fewer than two images, an SAE is missing, does not fit its model, reads another site or
            has no match, or activations are not finite.

    Source: the paper's section 4.4 compares codes clean and corrupted; Student's t interval of a mean.
    """
    if len(models) > 1:
        (corruption,) = check_same_image([corruption], "a comparison of latents", models)
    corruption = as_condition(corruption)
    if not models or len(images) < 2:
        raise ValueError(f"give at least one model and two images; got {len(models)} and {len(images)}")
    by_model = dict(saes) if isinstance(saes, Mapping) else dict.fromkeys(models, saes)
    site = _shared_site(models, by_model, matches or {}, allow_other_model)
    tallies = {name: ChangeTally() for name in models}
    batches = corrupted_batches(models, images, (CLEAN, corruption), batch_size, seed=seed, progress=progress)
    for _, same_images in groupby(batches, key=lambda batch: batch.start):
        reference: Tensor | None = None
        for batch in same_images:  # the first model's batch comes first
            conditions = list(batch.conditions)
            for name in batch.models:
                codes = []
                for condition, shown in conditions:
                    x = read_site(models[name], site, shown, condition).x
                    found = by_model[name].encode(x.to(by_model[name].W_enc.device))
                    codes.append(_matched(found, (matches or {}).get(name)))
                moved = tallies[name].add(codes[0], codes[1], reference)
                reference = moved if reference is None else reference
    return FeatureChange({name: tally.result() for name, tally in tallies.items()}, len(images))


class ChangeTally:
    """Sums over images, per latent."""

    def __init__(self) -> None:
        self.images = self.tokens = 0
        self.sums: dict[str, Tensor] = {}

    def add(
        self,
        clean: Float[Tensor, "batch token d_sae"],
        corrupted: Float[Tensor, "batch token d_sae"],
        reference: Float[Tensor, "batch d_sae"] | None,
    ) -> Float[Tensor, "batch d_sae"]:
        """Add a batch and return each image's corrupted - clean."""
        self.images += len(clean)
        before, after = clean.double().mean(1), corrupted.double().mean(1)
        moved = after - before
        beyond = torch.zeros_like(moved) if reference is None else moved - reference
        parts = {
            "clean": before.sum(0),
            "corrupted": after.sum(0),
            "squares": moved.square().sum(0),
            "beyond": beyond.sum(0),
            "beyond_squares": beyond.square().sum(0),
            "clean_fired": _fired(clean),
            "corrupted_fired": _fired(corrupted),
        }
        for name, part in parts.items():
            self.sums[name] = self.sums[name] + part if name in self.sums else part
        return moved

    def result(self) -> LatentChange:
        """Return the means and errors, on the CPU."""
        means = {name: total.cpu() / self.images for name, total in self.sums.items()}
        difference = means["corrupted"] - means["clean"]
        return LatentChange(
            clean=means["clean"],
            corrupted=means["corrupted"],
            error=self._error(means["squares"], difference),
            clean_rate=means["clean_fired"],
            corrupted_rate=means["corrupted_fired"],
            beyond=means["beyond"],
            beyond_error=self._error(means["beyond_squares"], means["beyond"]),
        )

    def _error(self, squares: Tensor, mean: Tensor) -> Tensor:
        return ((squares - mean.square()).clamp(min=0) / (self.images - 1)).sqrt()


def _fired(codes: Float[Tensor, "batch token d_sae"]) -> Float[Tensor, " d_sae"]:
    """Return the sum over images of the share of tokens on which each latent fires; NaN for latents without a match."""
    share = (codes != 0).double().mean(1)
    return torch.where(codes.isnan().any(1), torch.nan, share).sum(0)


def _matched(codes: Float[Tensor, "batch token d"], match: Tensor | None) -> Float[Tensor, "batch token d_sae"]:
    """Reorder codes to the first model's latents, NaN where there is no match."""
    if match is None:
        return codes
    match = match.to(codes.device)
    return torch.where(match >= 0, codes[..., match.clamp(min=0)], torch.nan)


def _shared_site(
    models: Mapping[str, HookedViT], saes: Mapping[str, SAE], matches: Mapping[str, Tensor], allow_other_model: bool
) -> Site:
    if lacking := set(models) - set(saes):
        raise ValueError(f"every model needs an SAE; {', '.join(sorted(lacking))} have none")
    sites = {name: shared_site(model, {name: saes[name]}, allow_other_model) for name, model in models.items()}
    first, *others = models
    for name in others:
        if sites[name] != sites[first]:
            raise ValueError(
                f"SAEs that are compared must read the same hook and tokens; got {sites[first]} of {first} and "
                f"{sites[name]} of {name}"
            )
        if saes[name] is not saes[first] and name not in matches:
            raise ValueError(
                f"{name} has another SAE than {first}, whose latents are different ones: give matches={{{name!r}: "
                "match_features(first, other).match}}"
            )
        if name in matches and len(matches[name]) != saes[first].cfg.d_sae:
            raise ValueError(
                f"a match names a latent for each of the {saes[first].cfg.d_sae} of {first}'s SAE; that of {name} has "
                f"{len(matches[name])}"
            )
    return sites[first]
