"""Fourier sensitivity: a model's error when one Fourier wave is added to the images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechvit.analysis.behaviour.performance import check_logits, label_rank, require_classifier
from mechvit.analysis.finite import first_not_finite, model_name
from mechvit.analysis.inputs import Images, image_batches, on_cpu
from mechvit.analysis.statistics.bootstrap import LEVEL, RESAMPLES, intervals, resampled_means
from mechvit.analysis.statistics.results import Result
from mechvit.arguments import checked
from mechvit.data.batches import ImageBatch
from mechvit.data.counter_rng import named_seed, uniform
from mechvit.data.pixels import normalize
from mechvit.settings_checks import COUNT, POSITIVE, check_number

if TYPE_CHECKING:
    import pandas as pd

    from mechvit.models import HookedViT


@dataclass(frozen=True, repr=False)
class FourierSensitivity(Result):
    """Errors of each image under each wave; on the CPU."""

    image_id: Int[Tensor, " images"]
    frequency: Int[Tensor, " n"]
    """Frequencies of the map's rows (downwards) and columns (to the right), cycles per image, ascending."""
    wrong: Bool[Tensor, "images n n"]
    """Whether each image is misclassified, by vertical and horizontal frequency; opposite ones are one wave."""
    clean_wrong: Bool[Tensor, " images"]
    """Whether each unchanged image is misclassified."""
    norm: float
    """L2 norm of the wave in each channel, for pixels in [0, 1]."""

    @property
    def error(self) -> Float[Tensor, "n n"]:
        """Heat map: fraction of images that are misclassified."""
        return self.wrong.double().mean(0)

    @property
    def clean_error(self) -> float:
        """Fraction of unchanged images that are misclassified."""
        return float(self.clean_wrong.double().mean())

    def to_frame(
        self, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0, **labels: str
    ) -> pd.DataFrame:
        """Return one row per wave, with bootstrap intervals over images.

        Columns: the labels, vertical, horizontal (cycles per image), error, low, high, increase (over the clean error,
        on the same images), increase_low, increase_high.
        """
        import pandas as pd

        images, n = self.wrong.shape[:2]
        values = torch.cat([self.wrong.view(images, n * n), self.clean_wrong[:, None]], 1).numpy()
        draws = resampled_means(values, resamples=resamples, seed=seed)
        error, increase = draws[:, :-1], draws[:, :-1] - draws[:, -1:]
        vertical, horizontal = np.meshgrid(self.frequency.numpy(), self.frequency.numpy(), indexing="ij")
        columns: dict[str, object] = {"vertical": vertical.ravel(), "horizontal": horizontal.ravel()}
        columns |= dict(zip(("error", "low", "high"), intervals(error, level), strict=True))
        columns |= dict(zip(("increase", "increase_low", "increase_high"), intervals(increase, level), strict=True))
        return pd.DataFrame({**labels, **columns})


def fourier_wave(size: int, vertical: int, horizontal: int) -> Float[Tensor, "size size"]:
    """Return the cosine wave of L2 norm 1 with one frequency (and its negative), in cycles per image."""
    line = torch.arange(size, dtype=torch.float64)
    wave = torch.cos(2 * torch.pi * (vertical * line[:, None] + horizontal * line) / size)
    return wave / wave.norm()


@checked
@torch.inference_mode()
def fourier_sensitivity(
    model: HookedViT,
    images: Images,
    *,
    resolution: int = 15,
    highest: int | None = None,
    norm: float | None = None,
    clip: bool = True,
    batch_size: int | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> FourierSensitivity:
    """Measure the error under each Fourier wave: x + r norm U(i, j), with a sign r drawn for each image, channel and
    wave.

    U is a cosine of L2 norm 1 with i cycles down and j across the image (`fourier_wave`). A frequency and its negative
    are the same wave, so that every image takes (n^2 + 1) / 2 + 1 forward passes for n frequencies: 114 at resolution
    15, and size^2 / 2 for the whole map.

    Args:
        model: any HookedViT with a head.
        resolution: frequencies along each side of the map, evenly from -highest to highest (rounded; fewer where they
            coincide).
        highest: cycles per image; None takes the highest possible, half the input size.
        norm: L2 norm of the wave in each channel, for pixels in [0, 1]; None takes 15.7 at 224 pixels, the source's,
            and at other sizes the same per pixel (0.07).
        clip: clip perturbed images to [0, 1].
        seed: seed of the signs.
        images, batch_size, progress: as in `evaluate`.

    Raises:
        ValueError: a resolution below 1, a highest frequency beyond half the size, a norm that is not positive; no
            images, another input size, labels that are not classes, logits that are not finite.

    Source: Yin et al., arXiv:1906.08988, section 3 (its map is the whole one, or the 63 x 63 lowest frequencies).
    """
    require_classifier(model, images)
    size = model.cfg.image_size
    highest = size // 2 if highest is None else highest
    norm = 15.7 * size / 224 if norm is None else norm
    check_number("resolution", resolution, COUNT)
    check_number("norm", norm, POSITIVE)
    if not 0 <= highest <= size // 2:
        raise ValueError(f"highest must be 0 to {size // 2}, half the input size; got {highest}")
    frequency = np.unique(np.rint(np.linspace(-highest, highest, resolution))).astype(int)
    ids, wrong, clean = [], [], []
    for batch in image_batches(model, images, batch_size, progress=progress):

        def misses(pixels: Tensor, batch: ImageBatch = batch) -> Tensor:
            shown = normalize(pixels, model.image_processor).to(model.cfg.dtype)
            logits, begins = model(shown), partial(first_not_finite, model, shown)
            check_logits(logits, batch.labels, batch.image_ids, f"the model {model_name(model)!r}", begins)
            return on_cpu(label_rank(logits, batch.labels) > 0)

        found = torch.empty(len(batch), len(frequency), len(frequency), dtype=torch.bool)
        for i, j in _half_plane(frequency):
            key = named_seed(seed, f"fourier {frequency[i]} {frequency[j]}")
            signs = torch.where(uniform(batch.image_ids, batch.images.shape[1], key) < 0.5, -1.0, 1.0)
            wave = (norm * fourier_wave(size, int(frequency[i]), int(frequency[j]))).to(batch.images)
            pixels = batch.images + signs[:, :, None, None].to(wave) * wave
            found[:, i, j] = found[:, -1 - i, -1 - j] = misses(pixels.clamp_(0, 1) if clip else pixels)
        ids.append(on_cpu(batch.image_ids))
        wrong.append(found)
        clean.append(misses(batch.images))
    return FourierSensitivity(
        torch.cat(ids), torch.from_numpy(frequency), torch.cat(wrong), torch.cat(clean), float(norm)
    )


def _half_plane(frequency: np.ndarray) -> list[tuple[int, int]]:
    """Return one of each pair of opposite entries of the map."""
    n = len(frequency)
    return [(i, j) for i in range(n) for j in range(n) if (i, j) >= (n - 1 - i, n - 1 - j)]
