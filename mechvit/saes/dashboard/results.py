"""What a feature browser shows: every latent's numbers, and for the chosen ones images, maps and effects."""

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
    """How much a browser shows."""

    n_features: int = 200
    """Latents of each SAE that are shown in detail; all that fire where they are fewer."""
    n_images: int = 12
    """Images, spread over the classes, whose every token can be asked for its strongest latents."""
    top_images: int = 6
    """Images where a latent is strongest; it is ablated on these."""
    random_images: int = 2
    """Images drawn from those in which it fires."""
    nearest: int = 6
    """Nearest decoder directions of each latent."""
    strongest: int = 8
    """Strongest latents of each token of the shown images."""
    drawn_corruptions: int = 2
    """Corruptions whose maps and pictures are kept: the most severe of each family, of the first so many families. All
    are measured."""
    picture_side: int = 112
    """Pixels that the pictures of the examples are reduced to; the shown images keep the model's size."""
    batch_size: int | None = None
    """Images a forward pass; None takes 32 on a CPU, else 128, and at most 256 MiB of one SAE's codes."""
    seed: int = 0
    """Of the noise and the random images."""

    def __post_init__(self) -> None:
        check(self, COUNT, "n_features", "n_images", "top_images", "nearest", "strongest", "picture_side")
        check(self, COUNT_OR_ZERO, "random_images", "drawn_corruptions")
        check(self, COUNT, "batch_size", or_none=True)
        check(self, SEED, "seed")


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """What the prediction becomes without a latent, on its top images (those where it is strongest).

    The latent is set to zero at every token that the SAE reads, in the SAE spliced into the model with its error term;
    everything else that the SAE writes stays. Differences are ablated minus untouched, means over the top images: a
    negative number means that the latent spoke for the class. NaN where it fires in no image.
    """

    images: Int[Tensor, " chosen"]
    """How many images the means are over."""
    label_logit: Float[Tensor, " chosen"]
    """Change of the label's logit, less the mean change of all classes, which a softmax does not see."""
    label_probability: Float[Tensor, " chosen"]
    """Change of the label's probability, -1 to 1."""
    changed: Float[Tensor, " chosen"]
    """Share of the images whose predicted class changes."""
    lowered: Int[Tensor, "chosen top"]
    """The classes whose probability falls most, on average."""
    lowered_by: Float[Tensor, "chosen top"]
    raised: Int[Tensor, "chosen top"]
    raised_by: Float[Tensor, "chosen top"]


class Strongest(NamedTuple):
    """The latents that write most into each token of the shown images: activation x length of the decoder direction."""

    feature: Int[Tensor, "condition image token top"]
    """Strongest first; -1 where fewer fire."""
    activation: Float[Tensor, "condition image token top"]
    """NaN where fewer fire."""


class Predicted(NamedTuple):
    """The classes that the untouched model holds likeliest, of each shown image."""

    label: Int[Tensor, "condition image top"]
    probability: Float[Tensor, "condition image top"]


class Partners(NamedTuple):
    """For each latent of one SAE the same feature in another: one to one (`match_features`), or in large SAEs for the
    chosen latents alone those that are each other's nearest."""

    match: Int[Tensor, " d_sae"]
    """-1 where it has none."""
    cosine: Float[Tensor, " d_sae"]


@dataclass(frozen=True, kw_only=True)
class BrowsedSAE:
    """One SAE: all of its latents in numbers, the `chosen` ones in detail; everything on the CPU.

    Tokens are those that the SAE reads: `special` ones (CLS, distillation, registers) before the patches of `grid`.
    """

    site: Site
    architecture: str
    grid: tuple[int, int]
    """Rows and columns of patches; (0, 0) where the SAE reads CLS alone."""
    special: int
    features: SAEFeatures
    sensitivity: Float[Tensor, "corruption d_sae"]
    """mean |corrupted - clean| / (mean clean + mean corrupted) of the same tokens: 0 where the corruption changes
    nothing, 1 where no token keeps any activation; NaN where the latent fires neither way."""
    chosen: Int[Tensor, " chosen"]
    histogram: Int[Tensor, "chosen bin"]
    """Clean tokens by activation, in equal bins from 0 (left out) to the maximum."""
    label_share: Float[Tensor, "chosen label"]
    """The share of all its activation that falls on the images of each label."""
    example_row: Int[Tensor, "chosen example"]
    """Rows of the data set, in the order of `BrowsedFeatures.example_kinds`; -1 where there is none."""
    example_score: Float[Tensor, "chosen example"]
    """The strongest activation in that image, clean; NaN where there is none."""
    maps: Float[Tensor, "condition chosen example token"]
    """Its activation at every token of the example, clean and corrupted; NaN where there is no example."""
    nearest: Int[Tensor, "chosen near"]
    """The latents of the same SAE whose decoder directions are nearest."""
    nearest_cosine: Float[Tensor, "chosen near"]
    ablation: Ablation | None
    """None without a head."""
    strongest: Strongest
    predicted: Predicted | None


@dataclass(frozen=True, kw_only=True)
class BrowsedFeatures:
    """Several SAEs on the same images."""

    saes: Mapping[str, BrowsedSAE]
    matches: Mapping[tuple[str, str], Partners]
    """Both ways, for every two SAEs that read the same hook point and tokens."""
    corruptions: tuple[str, ...]
    conditions: tuple[str, ...]
    """What is drawn: clean, and the most severe corruption of some families."""
    class_names: tuple[str, ...]
    image_ids: Int[Tensor, " image"]
    labels: Int[Tensor, " image"]
    shown: tuple[int, ...]
    """Rows of the images whose every token can be asked for its latents."""
    pictures: Mapping[tuple[int, str], UInt8[Tensor, "3 height width"]]
    """By row and condition: the shown ones at the model's size under every condition, the examples' clean and small."""
    example_kinds: tuple[str, ...]
    """`top`, a quantile such as `80%` (of the images in which it fires, by its strongest activation there), `random`
    (one of these images)."""
    choice: str
    """How the chosen latents were chosen, in words."""


def sensitivity_index(features: SAEFeatures) -> Float[Tensor, "corruption d_sae"]:
    """See `BrowsedSAE.sensitivity`."""
    found = [
        moved.mean_absolute_difference / (2 * moved.clean_mean + moved.mean_difference)  # 0 / 0 is NaN
        for moved in features.sensitivity.values()
    ]
    return torch.stack(found) if found else torch.zeros(0, len(features.firing_rate), dtype=torch.float64)
