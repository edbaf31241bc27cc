"""Fourier sensitivity: the waves, a planted model that sees one frequency only, and a real one against a loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mechvit.analysis import fourier_sensitivity
from mechvit.analysis.robustness.fourier_sensitivity import fourier_wave
from mechvit.data.batches import ImageBatch
from mechvit.data.counter_rng import named_seed, uniform
from mechvit.data.pixels import normalize


class Planted(torch.nn.Module):
    """Class 1 where the image's squared amplitude at one frequency passes a threshold, else class 0."""

    def __init__(self, size: int, vertical: int, horizontal: int, threshold: float) -> None:
        super().__init__()
        config = {"image_size": size, "device": torch.device("cpu"), "dtype": torch.float32}
        config |= {"no_softmax": None, "id2label": {0: "below", 1: "above"}}
        self.cfg, self.image_processor = type("Config", (), config)(), None
        self.head = torch.nn.Identity()
        self.hf_config = type("Config", (), {"name_or_path": "planted"})()
        self.wave, self.threshold = fourier_wave(size, vertical, horizontal).float(), threshold

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        amplitude = torch.einsum("bchw,hw->bc", pixels, self.wave).square().mean(1)
        return torch.stack([torch.full_like(amplitude, self.threshold), amplitude], 1)


@pytest.mark.parametrize(("vertical", "horizontal"), [(0, 0), (3, 0), (0, -5), (2, 7), (8, -8), (-4, 1)])
def test_wave_has_norm_one_and_one_frequency(vertical, horizontal):
    wave = fourier_wave(16, vertical, horizontal)
    assert wave.norm().item() == pytest.approx(1)
    spectrum = torch.fft.fft2(wave).abs()
    places = {(vertical % 16, horizontal % 16), (-vertical % 16, -horizontal % 16)}
    assert {tuple(place) for place in torch.nonzero(spectrum > 1e-9).tolist()} == places
    torch.testing.assert_close(wave, fourier_wave(16, -vertical, -horizontal))


@pytest.mark.parametrize("planted", [(3, -2), (0, 4), (-6, 0)])
def test_planted_frequency_is_the_only_one_found(planted):
    model = Planted(16, *planted, threshold=0.5)
    images = ImageBatch(torch.full((20, 3, 16, 16), 0.5), torch.zeros(20, dtype=torch.int64), torch.arange(20))
    found = fourier_sensitivity(model, images, resolution=17, norm=1.0, clip=False, batch_size=6)
    assert found.frequency.tolist() == list(range(-8, 9))
    expected = torch.zeros(17, 17, dtype=torch.float64)
    for sign in (1, -1):
        expected[8 + sign * planted[0], 8 + sign * planted[1]] = 1
    torch.testing.assert_close(found.error, expected)
    assert found.clean_error == 0
    frame = found.to_frame(model="planted", resamples=50)
    row = frame[(frame["vertical"] == planted[0]) & (frame["horizontal"] == planted[1])].iloc[0]
    assert row[["error", "low", "high", "increase"]].tolist() == [1, 1, 1, 1]
    assert frame["error"].sum() == 2


def test_norm_decides_whether_it_is_seen():
    model = Planted(16, 2, 2, threshold=0.5)
    images = ImageBatch(torch.full((4, 3, 16, 16), 0.5), torch.zeros(4, dtype=torch.int64), torch.arange(4))
    errors = {
        norm: float(
            fourier_sensitivity(model, images, resolution=17, norm=norm, clip=False, batch_size=4).error[10, 10]
        )
        for norm in (0.7, 0.72)
    }
    assert errors == {0.7: 0.0, 0.72: 1.0}, "amplitude norm^2 passes 0.5 between them"


def test_map_matches_a_loop(tiny_model, tiny_processor, batch):
    found = fourier_sensitivity(tiny_model, batch, resolution=3, highest=9, norm=6.0, batch_size=7, seed=4)
    assert found.frequency.tolist() == [-9, 0, 9]
    wrong = torch.zeros(24, 3, 3, dtype=torch.bool)
    axis = np.arange(32)
    for i, vertical in enumerate((-9, 0, 9)):
        for j, horizontal in enumerate((-9, 0, 9)):
            wave = np.cos(2 * np.pi * (vertical * axis[:, None] + horizontal * axis) / 32)
            wave = torch.from_numpy(6 * wave / np.sqrt((wave**2).sum())).float()
            # the sign belongs to the wave, whichever of its two frequencies is asked for
            named = max((vertical, horizontal), (-vertical, -horizontal))
            signs = uniform(batch.image_ids, 3, named_seed(4, f"fourier {named[0]} {named[1]}"))
            signs = torch.where(signs < 0.5, -1.0, 1.0)[:, :, None, None]
            pixels = (batch.images + signs * wave).clamp(0, 1)
            with torch.no_grad():
                logits = tiny_model(normalize(pixels, tiny_processor))
            wrong[:, i, j] = logits.argmax(-1) != batch.labels
    assert torch.equal(found.wrong, wrong)
    assert 0 < wrong.float().mean() < 1
    assert torch.equal(found.image_id, batch.image_ids)
    torch.testing.assert_close(found.error, found.error.flip(0, 1))


def test_signs_are_fair_and_batches_do_not_matter(tiny_model, batch):
    signs = uniform(torch.arange(4000), 3, named_seed(0, "fourier 1 2")) < 0.5
    assert signs.double().mean().item() == pytest.approx(0.5, abs=0.03)
    whole = fourier_sensitivity(tiny_model, batch, resolution=3, batch_size=24)
    parts = fourier_sensitivity(tiny_model, batch, resolution=3, batch_size=5)
    assert torch.equal(whole.wrong, parts.wrong)
    assert whole.norm == pytest.approx(15.7 * 32 / 224)


def test_intervals_hold_the_error(tiny_model, batch):
    frame = fourier_sensitivity(tiny_model, batch, resolution=3).to_frame(model="base", resamples=200)
    names = "model vertical horizontal error low high increase increase_low increase_high"
    assert list(frame.columns) == names.split()
    assert len(frame) == 9
    assert (frame["low"] <= frame["error"]).all()
    assert (frame["error"] <= frame["high"]).all()
    assert (frame["low"] < frame["high"]).any()


@pytest.mark.parametrize("wrong", [{"resolution": 0}, {"highest": 17}, {"norm": 0.0}])
def test_bad_settings_are_refused(tiny_model, batch, wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
        fourier_sensitivity(tiny_model, batch, **wrong)
