"""Frequency content of a corruption: the radial power spectrum of the change that it makes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvit.analysis.condition_images import shown_to, victim_of
from mechvit.analysis.inputs import Images, on_cpu
from mechvit.analysis.statistics.bootstrap import LEVEL, RESAMPLES, interval, resampled_means
from mechvit.analysis.statistics.results import AveragedResult, Columns
from mechvit.analysis.statistics.tidy_tables import check_columns, tidy
from mechvit.arguments import checked
from mechvit.data.batches import ImageBatch, iter_batches
from mechvit.data.conditions import Attack, as_condition
from mechvit.data.corruption_spec import Condition
from mechvit.data.partners import shown_without_model

if TYPE_CHECKING:
    import pandas as pd

BANDS: tuple[tuple[str, float], ...] = (("low", 1 / 6), ("middle", 1 / 3), ("high", float("inf")))
"""Each band and its upper limit, cycles per pixel: thirds of 1/2, the highest frequency along a side."""


@dataclass(frozen=True, repr=False)
class CorruptionSpectrum(AveragedResult):
    """Power spectra of a corruption's change, one row per image; on the CPU."""

    SUMMARISED: ClassVar[Columns] = (("frequency",), ("power",))

    image_id: Int[Tensor, " images"]
    frequency: Float[Tensor, " bins"]
    """Centre of each annulus, cycles per pixel, 0 to 0.71."""
    power: Float[Tensor, "images bins"]
    """Mean squared difference in each annulus; the sum over annuli is the whole mean squared difference."""

    def to_frame(self, **labels: str) -> pd.DataFrame:
        """Return one row per image and annulus: the labels, image_id, frequency, power."""
        frequency = self.frequency.expand_as(self.power)
        frame = tidy(self.image_id, {"frequency": frequency, "power": self.power}, labels)
        return frame.drop(columns="layer")


def radial_power(
    difference: Float[Tensor, "batch channel height width"],
) -> tuple[Float[Tensor, " bins"], Float[Tensor, "batch bins"]]:
    """Compute the power spectrum summed over annuli one cycle per image wide (of the longer side), averaged over
    channels.

        power(b) = mean_c sum_{k : round(|k| size) = b} |F(difference_c)(k)|^2 / (height width)^2

    with k in cycles per pixel, so that power sums to the mean squared difference (Parseval).
    """
    height, width = difference.shape[-2:]
    size = max(height, width)
    power = torch.fft.fft2(difference.double()).abs().square().mean(1) / (height * width) ** 2
    down, across = (torch.fft.fftfreq(side, device=difference.device).double() for side in (height, width))
    annulus = (torch.hypot(down[:, None], across) * size).round().long()
    sums = power.new_zeros(len(power), int(annulus.max()) + 1)
    sums.index_add_(1, annulus.flatten(), power.flatten(1))
    return torch.arange(sums.shape[1], device=sums.device).double() / size, sums


@checked
@torch.inference_mode()
def corruption_spectrum(
    images: Images,
    corruption: Condition | str,
    *,
    image_processor: Any = None,
    batch_size: int = 64,
    seed: int = 0,
) -> CorruptionSpectrum:
    """Compute the radial power spectrum of corrupted minus clean images.

    Args:
        corruption: any condition; an attack needs its model (`Attack.against`).
        image_processor: the checkpoint's own; needed for raw images and for paired ones.
        batch_size: images at a time.
        images, seed: as in `evaluate`; labels are not read.

    Raises:
        ValueError: no images.

    Source: the Fourier view of corruptions, Yin et al., arXiv:1906.08988, section 4.
    """
    if len(images) == 0:
        raise ValueError("there is no image to look at; give at least one (an empty data set, or limit=0?)")
    batches = [images] if isinstance(images, ImageBatch) else iter_batches(images, image_processor, batch_size)
    ids, powers = [], []
    for batch in batches:
        frequency, power = radial_power(_changed(batch, corruption, image_processor, seed) - batch.images)
        ids.append(on_cpu(batch.image_ids))
        powers.append(on_cpu(power))
    return CorruptionSpectrum(torch.cat(ids), on_cpu(frequency), torch.cat(powers))


def _changed(
    batch: ImageBatch, condition: Condition | str, image_processor: Any, seed: int
) -> Float[Tensor, "batch 3 height width"]:
    condition = as_condition(condition)
    if isinstance(condition, Attack) and condition.model is not None:
        return shown_to(victim_of(condition, batch.images.device, torch.float32), batch, condition, seed=seed).images
    return shown_without_model(batch, condition, image_processor, seed=seed)


@checked
def spectrum_summary(
    spectra: Collection[tuple[Condition, CorruptionSpectrum]],
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> pd.DataFrame:
    """Group corruptions by their measured frequency content.

    Args:
        spectra: corruptions and their spectra over images.
        resamples, level, seed: settings of the percentile bootstrap over images.

    Returns:
        corruption, family (its `series`), level, group, mean_squared_difference, centroid (the power's mean frequency,
        cycles per pixel), low, high, band (`BANDS`, by the centroid).
    """
    import pandas as pd

    rows = []
    for corruption, spectrum in spectra:
        power = spectrum.power.numpy()
        moments = np.stack([(power * spectrum.frequency.numpy()).sum(1), power.sum(1)], 1)
        draws = resampled_means(moments, resamples=resamples, seed=seed)
        with np.errstate(invalid="ignore"):
            centroid = interval(draws[:, 0] / draws[:, 1], level)
        about = (corruption.key, corruption.series, corruption.level, corruption.group)
        rows.append((*about, draws[0, 1], *centroid, band_of(centroid.value)))
    names = "corruption family level group mean_squared_difference centroid low high band"
    return pd.DataFrame(rows, columns=names.split())


@checked
def family_bands(summary: pd.DataFrame) -> dict[str, str]:
    """Return the band of each family of a `spectrum_summary`, by its levels' mean centroid."""
    check_columns(summary, "family", "centroid")
    return {str(family): band_of(float(rows["centroid"].mean())) for family, rows in summary.groupby("family")}


def band_of(centroid: float) -> str:
    """Return the band (`BANDS`) of a centroid in cycles per pixel; `none` for NaN, where nothing changed."""
    return next((name for name, end in BANDS if centroid < end), "none")
