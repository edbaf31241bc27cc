"""Results shown by a feature browser: every latent's statistics; images, maps and effects of the chosen ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from mechvit.saes.hook_site import Site
from mechvit.saes.latents.results import SAEFeatures
from mechvit.settings_checks import COUNT, COUNT_OR_ZERO, SEED, check


@dataclass(frozen=True, kw_only=True)
class Browsing:
    """Amount of data that a browser shows."""

    n_features: int = 200
    """Latents per SAE shown in detail; all that fire if they are fewer."""
    n_images: int = 12
    """Displayed images, spread over the classes; for each of their tokens the strongest latents are kept."""
    top_images: int = 6
    """Images where a latent is strongest; its ablation is measured on them."""
    random_images: int = 2
    """Images drawn at random from those in which the latent fires."""
    nearest: int = 6
    """Number of nearest decoder directions listed for each latent."""
    strongest: int = 8
    """Strongest latents listed for each token of the displayed images."""
    drawn_corruptions: int = 2
    """Corruptions whose maps and pictures are kept: the most severe of each family, for this many families. All
    corruptions are measured."""
    picture_side: int = 112
    """Side, in pixels, to which the examples' pictures are reduced; the displayed images keep the model's size."""
    batch_size: int | None = None
    """Images per forward pass; None uses 32 on a CPU, else 128, and at most 256 MiB of one SAE's codes."""
    seed: int = 0
    """Seed of the noise and of the random images."""

    def __post_init__(self) -> None:
        check(self, COUNT, "n_features", "n_images", "top_images", "nearest", "strongest", "picture_side")
        check(self, COUNT_OR_ZERO, "random_images", "drawn_corruptions")
        check(self, COUNT, "batch_size", or_none=True)
        check(self, SEED, "seed")


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """Effect on the prediction of ablating a latent, on its top images (those where it is strongest).

    The latent is set to zero at every token that the SAE reads, with the SAE spliced into the model together with its
    error term; everything else that the SAE writes stays. Differences are ablated minus untouched, averaged over the
    top images: a negative number means that the latent supported the class. NaN where it fires in no image.
    """

    images: Int[Tensor, " chosen"]
    """Number of images that the means are over."""
    label_logit: Float[Tensor, " chosen"]
    """Change of the label's logit minus the mean change of all classes, which does not affect a softmax; NaN where an
    image has no label."""
    label_probability: Float[Tensor, " chosen"]
    """Change of the label's probability, -1 to 1; NaN where an image has no label."""
    changed: Float[Tensor, " chosen"]
    """Share of the images whose predicted class changes."""
    lowered: Int[Tensor, "chosen top"]
    """Classes whose mean probability falls most."""
    lowered_by: Float[Tensor, "chosen top"]
    raised: Int[Tensor, "chosen top"]
    raised_by: Float[Tensor, "chosen top"]


class Strongest(NamedTuple):
    """Latents that write most into each token of the displayed images: activation x length of the direction."""

    feature: Int[Tensor, "condition image token top"]
    """Indices, strongest first; -1 where fewer fire."""
    activation: Float[Tensor, "condition image token top"]
    """Activations; NaN where fewer fire."""


class Predicted(NamedTuple):
    """Most probable classes of the untouched model for each displayed image."""

    label: Int[Tensor, "condition image top"]
    probability: Float[Tensor, "condition image top"]


class Partners(NamedTuple):
    """The matching latent in another SAE for each latent of one: one to one (`match_features`), or in large SAEs for
    the chosen latents only, those that are mutually nearest."""

    match: Int[Tensor, " d_sae"]
    """Indices in the other SAE; -1 where there is none."""
    cosine: Float[Tensor, " d_sae"]


@dataclass(frozen=True, kw_only=True)
class BrowsedSAE:
    """One SAE: statistics of all its latents and details of the `chosen` ones; everything on the CPU.

    Tokens are those that the SAE reads: `special` tokens (CLS, distillation, registers), then the patches of `grid`.
    """

    site: Site
    architecture: str
    grid: tuple[int, int]
    """Rows and columns of patches; (0, 0) if the SAE reads CLS alone."""
    special: int
    features: SAEFeatures
    sensitivity: Float[Tensor, "corruption d_sae"]
    """mean |corrupted - clean| / (mean clean + mean corrupted) over the same tokens: 0 if the corruption changes
    nothing, 1 if no token keeps any activation; NaN if the latent fires in neither condition."""
    chosen: Int[Tensor, " chosen"]
    histogram: Int[Tensor, "chosen bin"]
    """Number of clean tokens per activation bin; bins are equal, from 0 (excluded) to the maximum."""
    label_share: Float[Tensor, "chosen label"]
    """Share of the latent's activation on labelled images that falls on those of each label; no column without any."""
    example_row: Int[Tensor, "chosen example"]
    """Rows of the data set, in the order of `BrowsedFeatures.example_kinds`; -1 where there is none."""
    example_score: Float[Tensor, "chosen example"]
    """Maximum activation in the clean image; NaN where there is none."""
    maps: Float[Tensor, "condition chosen example token"]
    """Activation at every token of the example, clean and corrupted; NaN where there is no example."""
    nearest: Int[Tensor, "chosen near"]
    """Latents of the same SAE whose decoder directions are nearest."""
    nearest_cosine: Float[Tensor, "chosen near"]
    ablation: Ablation | None
    """None if the model has no softmax classifier."""
    strongest: Strongest
    predicted: Predicted | None


@dataclass(frozen=True, kw_only=True)
class BrowsedFeatures:
    """Results of several SAEs on the same images."""

    saes: Mapping[str, BrowsedSAE]
    matches: Mapping[tuple[str, str], Partners]
    """Matches in both directions between every two SAEs that read the same hook point and tokens."""
    corruptions: tuple[str, ...]
    conditions: tuple[str, ...]
    """Displayed conditions: clean, and the most severe corruption of some families."""
    class_names: tuple[str, ...]
    image_ids: Int[Tensor, " image"]
    labels: Int[Tensor, " image"]
    """Class ids; negative for an image without a label."""
    files: tuple[str, ...]
    """Names of the images' files; empty where they are unknown."""
    shown: tuple[int, ...]
    """Rows of the displayed images, for every token of which the strongest latents are known."""
    pictures: Mapping[tuple[int, str], UInt8[Tensor, "3 height width"]]
    """Pictures by row and condition: displayed images at the model's size in all conditions, examples reduced."""
    example_kinds: tuple[str, ...]
    """`top`; a quantile, as `80%`, of the images in which the latent fires, by its maximum; or `random` of these."""
    choice: str
    """Description of the selection of the chosen latents."""


def sensitivity_index(features: SAEFeatures) -> Float[Tensor, "corruption d_sae"]:
    """Compute `BrowsedSAE.sensitivity`."""
    found = [
        moved.mean_absolute_difference / (2 * moved.clean_mean + moved.mean_difference)  # 0 / 0 is NaN
        for moved in features.sensitivity.values()
    ]
    return torch.stack(found) if found else torch.zeros(0, len(features.firing_rate), dtype=torch.float64)
