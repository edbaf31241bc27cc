"""Radial power spectra against direct sums, and what is known of corruptions' frequency content."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from mechvit.analysis import corruption_spectrum, family_bands, spectrum_summary
from mechvit.analysis.robustness.corruption_spectrum import radial_power
from mechvit.analysis.robustness.fourier_sensitivity import fourier_wave
from mechvit.data import Corruption, corrupt


@pytest.mark.parametrize("shape", [(12, 12), (9, 14)])
def test_power_sums_to_the_squared_difference(shape):
    difference = torch.randn(3, 2, *shape, generator=torch.Generator().manual_seed(0))
    frequency, power = radial_power(difference)
    torch.testing.assert_close(power.sum(1), difference.double().square().mean((1, 2, 3)))
    bins = np.zeros((3, len(frequency)))
    transform = np.abs(np.fft.fft2(difference.double().numpy())) ** 2 / np.prod(shape) ** 2
    for y, x in np.ndindex(*shape):
        cycles = [min(y, shape[0] - y) / shape[0], min(x, shape[1] - x) / shape[1]]
        bins[:, round(np.hypot(*cycles) * max(shape))] += transform[:, :, y, x].mean(1)
    np.testing.assert_allclose(power.numpy(), bins, atol=1e-12)


def test_a_wave_lies_in_its_own_annulus():
    wave = fourier_wave(16, 3, 4).expand(1, 3, 16, 16)
    frequency, power = radial_power(wave)
    assert int(power[0].argmax()) == 5
    assert frequency[5] == pytest.approx(5 / 16)
    assert power[0, 5] == pytest.approx(1 / 256)
    assert power.sum() == pytest.approx(1 / 256)


def test_white_noise_is_flat_per_frequency(batch):
    """Impulses on grey are white: each annulus holds power in proportion to its number of frequencies."""
    grey = type(batch)(torch.full((24, 3, 32, 32), 0.5), batch.labels, batch.image_ids)
    spectrum = corruption_spectrum(grey, "impulse_noise_3")
    _, white = radial_power(torch.fft.ifft2(torch.ones(1, 1, 32, 32)).real * 32)
    share = spectrum.power.mean(0) / spectrum.power.mean(0).sum()
    torch.testing.assert_close(share, white[0] / white.sum(), atol=4e-3, rtol=0.15)


def test_stream_matches_whole_and_frame(tiny_images, batch):
    spectrum = corruption_spectrum(tiny_images, "motion_blur_2", batch_size=7)
    whole = type(batch)(batch.images, batch.labels, spectrum.image_id)
    changed = corrupt(whole.images, "motion_blur_2", whole.image_ids) - whole.images
    torch.testing.assert_close(spectrum.power.sum(1), changed.double().square().mean((1, 2, 3)))
    frame = spectrum.to_frame(corruption="motion_blur_2", group="blur")
    assert list(frame.columns) == ["corruption", "group", "image_id", "frequency", "power"]
    assert frame.groupby("image_id")["power"].sum().to_numpy() == pytest.approx(spectrum.power.sum(1).numpy())


def test_summary_groups_by_measured_frequency(batch):
    keys = ("brightness_3", "fog_3", "gaussian_noise_3", "impulse_noise_5", "gaussian_blur_c_1")
    spectra = [(Corruption.parse(key), corruption_spectrum(batch, key)) for key in keys]
    summary = spectrum_summary(spectra, resamples=200).set_index("corruption")
    assert summary.loc["brightness_3", "band"] == "low"
    assert summary.loc["fog_3", "band"] == "low"
    assert summary.loc["gaussian_noise_3", "band"] == "high"
    assert summary.loc["impulse_noise_5", "band"] == "high"
    assert summary["group"].tolist() == ["weather", "weather", "noise", "noise", "blur"]
    for (_, spectrum), row in zip(spectra, summary.itertuples(), strict=True):
        power = spectrum.power.double().mean(0)
        assert row.centroid == pytest.approx(float((power * spectrum.frequency).sum() / power.sum()))
        assert row.low < row.centroid < row.high
        assert row.mean_squared_difference == pytest.approx(float(power.sum()))
    assert summary.loc["fog_3", "high"] < summary.loc["gaussian_blur_c_1", "low"]
    assert summary.loc["gaussian_blur_c_1", "high"] < summary.loc["gaussian_noise_3", "low"]


def test_a_family_s_band_is_its_levels_mean():
    rows = [("fog", 0.1), ("fog", 0.2), ("snow", 0.3), ("snow", 0.4), ("speckle_noise", 0.5), ("sharpen", np.nan)]
    bands = family_bands(pd.DataFrame(rows, columns=["family", "centroid"]))
    assert bands == {"fog": "low", "snow": "high", "speckle_noise": "high", "sharpen": "none"}


def test_no_image_is_refused(batch):
    with pytest.raises(ValueError, match="at least one"):
        corruption_spectrum(type(batch)(batch.images[:0], batch.labels[:0], batch.image_ids[:0]), "fog_1")
