"""Mixtures: names, which image gets which member, and that a member does what it does alone."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mechvit.data import CLEAN, IMAGENET_C, Corruption, Mixture, corrupt, corrupt_by_mixture, drawn_members
from mechvit.data.mixture_spec import parse_training

BLUR, NOISE, FOG = Corruption("box_blur", 2), Corruption("gaussian_noise", 4), Corruption("fog", 3)
THREE = Mixture((CLEAN, BLUR, NOISE))


# names


def test_order_does_not_matter():
    one, other = Mixture.parse("gaussian_noise_4+clean+box_blur_2"), Mixture.parse("clean+box_blur_2+gaussian_noise_4")
    assert one == other == THREE
    assert one.key == "clean+gaussian_noise_4+box_blur_2"
    assert one.title == "Clean + Gaussian noise 4 + Box blur 2"


def test_a_name_stands_for_the_members():
    mixture = Mixture.parse("two_kinds=fog_3+box_blur_2")
    assert (mixture.key, mixture.title, mixture.members) == ("two_kinds", "Two kinds", (FOG, BLUR))


@given(st.lists(st.sampled_from([CLEAN, BLUR, NOISE, FOG, Corruption("fog", 4)]), min_size=2, unique=True))
def test_keys_read_back(members):
    mixture = Mixture(tuple(members))
    assert parse_training(mixture.key) == mixture
    assert {parse_training(member.key) for member in mixture.members} == set(members)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fog_3+fog_3", r"each once.*got fog_3\+fog_3"),
        ("mine=fog_3", "at least two corruptions.*got fog_3"),
        ("fog_3+frosty_3", "must be one of clean"),
        ("fog_3=fog_3+clean", "is no corruption's; got 'fog_3'"),
        ("base=fog_3+clean", "got 'base'"),
        ("a/b=fog_3+clean", "letters, digits, _ and - only.*got 'a/b'"),
        ("+".join(f"{family}_3" for family in IMAGENET_C), r"at most 120 characters; this one of 15 .* give it a name"),
    ],
)
def test_bad_mixtures_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_training(text)


# which image gets which member


def test_members_are_drawn_equally_often():
    ids = torch.arange(6000)
    for epoch in range(3):
        counts = np.bincount(drawn_members(THREE, ids, epoch=epoch, seed=1).numpy(), minlength=3)
        assert counts.sum() == 6000
        assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_epochs_and_seeds_draw_independently():
    ids = torch.arange(6000)
    first = drawn_members(THREE, ids, epoch=0, seed=1)
    for other in (drawn_members(THREE, ids, epoch=1, seed=1), drawn_members(THREE, ids, epoch=0, seed=2)):
        table = np.zeros((3, 3))
        np.add.at(table, (first.numpy(), other.numpy()), 1)
        assert scipy.stats.chi2_contingency(table).pvalue > 1e-3


@given(order=st.permutations(range(12)), parts=st.integers(1, 11), epoch=st.integers(0, 50))
@settings(max_examples=20, deadline=None)
def test_order_and_batches_change_no_draw(order, parts, epoch):
    ids = torch.tensor([5, 2**40, 7, 8, 1, 0, 1_000_007, 12, 13, 14, 15, 16])
    whole = drawn_members(THREE, ids, epoch=epoch)
    pieces = [drawn_members(THREE, ids[part], epoch=epoch) for part in torch.tensor(list(order)).split(parts)]
    assert torch.equal(torch.cat(pieces), whole[list(order)])


# what they get


def test_each_image_gets_what_its_member_gives(photos):
    images, ids = photos.repeat(4, 1, 1, 1), torch.arange(24)
    before = images.clone()
    for epoch in (0, 3):
        mixed = corrupt_by_mixture(images, THREE, ids, epoch=epoch, seed=5)
        places = drawn_members(THREE, ids, epoch=epoch, seed=5)
        assert set(places.tolist()) == {0, 1, 2}
        for place, member in enumerate(THREE.members):
            own = places == place
            assert torch.equal(mixed[own], corrupt(images, member, ids, seed=5)[own])
    assert torch.equal(images, before)


def test_images_out_of_range_are_refused(photos):
    with pytest.raises(ValueError, match=r"act on RGB in \[0, 1\]"):
        corrupt_by_mixture(photos * 2, Mixture((BLUR, NOISE)), torch.arange(6))
