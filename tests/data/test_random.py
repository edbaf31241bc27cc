"""Random numbers on two devices: integers and uniforms to the bit, normals to a stated tolerance."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mechvit.data.corruptions.noise import _count_photons
from mechvit.data.counter_rng import NORMAL_TOLERANCE, _integers, standard_normal, uniform

IDS, COUNT = torch.tensor([0, 1, 7, 2**40 + 3]), 200_001


def uniforms(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The two integers of each hash, by Python's own whole numbers for the first few and numpy's for all."""
    mask = 2**64 - 1

    def mix(x):
        x = (x + 0x9E3779B97F4A7C15) & mask
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return x ^ (x >> 31)

    first, second = (part.numpy() for part in _integers(IDS, COUNT, seed))
    for row, image in enumerate(IDS.tolist()):
        stream = mix(image ^ mix(seed))
        for place in (0, 1, 2, 77):
            bits = mix((stream + place * 0x9E3779B97F4A7C15) & mask)
            assert (first[row, place], second[row, place]) == (bits >> 40, (bits >> 16) & 0xFFFFFF)
    return first, second


@pytest.mark.parametrize("seed", [0, 5])
def test_integers_and_uniforms_are_whole_number_arithmetic(seed):
    first, second = uniforms(seed)
    exact = np.concatenate([first, second], axis=1)[:, :COUNT].astype(np.float64) / 2**24
    assert np.array_equal(uniform(IDS, COUNT, seed).double().numpy(), exact), "float32 holds them without rounding"


@pytest.mark.parametrize("seed", [0, 5])
def test_normals_keep_to_half_of_their_tolerance(seed):
    """Any two devices that do differ by the tolerance at most; numpy's float32 functions stand for another one."""
    first, second = uniforms(seed)
    found = standard_normal(IDS, COUNT, seed).numpy()
    angle = np.float32(2 * math.pi) * (second.astype(np.float32) * np.float32(2.0**-24))
    for wide in (np.float64, np.float32):
        radius = np.sqrt(wide(-2) * np.log((first.astype(wide) + 1) / wide(2**24)))
        other = np.concatenate([radius * np.cos(angle.astype(wide)), radius * np.sin(angle.astype(wide))], axis=1)
        apart = np.abs(found - other[:, :COUNT]).max()
        assert 0 < apart <= NORMAL_TOLERANCE / 2
    assert np.abs(found).max() > 4


def test_few_photons_depend_on_rounding():
    images = torch.rand(2, 3, 100, 100, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([3, 4])
    found = _count_photons(images, 60, ids, 1)
    draw = uniform(ids, images[0].numel(), 1).view_as(images).clamp(max=1 - 2**-18).double()
    rate = images.double() * 60
    probability = torch.exp(-rate)
    total, counts = probability.clone(), torch.zeros_like(rate)
    for k in range(1, 130):
        counts += draw >= total
        probability = probability * rate / k
        total += probability
    apart = (found.double() * 60 - counts.clamp(max=60)).abs()
    assert apart.max() < 1.001
    assert (apart > 0.5).double().mean() < 1e-4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("seed", [0, 5])
def test_a_gpu_draws_what_a_cpu_draws(seed):
    there = IDS.cuda()
    for ours, theirs in zip(_integers(IDS, COUNT, seed), _integers(there, COUNT, seed), strict=True):
        assert torch.equal(ours, theirs.cpu())
    assert torch.equal(uniform(IDS, COUNT, seed), uniform(there, COUNT, seed).cpu())
    apart = standard_normal(IDS, COUNT, seed) - standard_normal(there, COUNT, seed).cpu()
    assert apart.abs().max() <= NORMAL_TOLERANCE
