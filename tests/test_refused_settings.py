"""The functions refuse the settings that command lines refuse, with a ValueError before anything is computed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mechvit import analysis
from mechvit.analysis.held_out_split import chosen_rows
from mechvit.analysis.statistics.bootstrap import interval, resampled_means
from mechvit.data import corrupt, iter_batches, load_images
from mechvit.experiment import Rules
from mechvit.experiment.config import ImageCounts
from mechvit.finetuning import FinetuneConfig, ViTShape
from mechvit.saes import CacheConfig, SAEConfig, TrainConfig, train_on
from mechvit.saes.config import Sweep
from mechvit.saes.dashboard.results import Browsing
from mechvit.saes.evaluation.single_pass import Wanted
from mechvit.settings_checks import SettingError

BLUR = "gaussian_blur_2"


@pytest.fixture
def blind(tiny_model, monkeypatch):
    """A model that must not run."""

    def forward(self, *args, **kwargs):
        raise AssertionError("a forward pass")

    monkeypatch.setattr(type(tiny_model), "forward", forward)
    return tiny_model


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, math.nan, "8", True])
def test_batch_sizes(blind, tiny_images, batch_size):
    for work in (
        lambda: analysis.evaluate(blind, tiny_images, batch_size=batch_size),
        lambda: analysis.logit_lens(blind, tiny_images, batch_size=batch_size),
        lambda: analysis.study({"a": blind}, tiny_images, [], batch_size=batch_size),
        lambda: next(iter_batches(tiny_images, batch_size=batch_size)),
        lambda: CacheConfig(hooks=["blocks.0.hook_mlp_out"], batch_size=batch_size),
    ):
        with pytest.raises(SettingError, match="batch_size must be"):
            work()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"limit": 0}, "limit must be at least 1; got 0"),
        ({"limit": 1.5}, "limit must be a whole number or None; got 1.5"),
        ({"seed": -1}, "seed must be in"),
        ({"seed": 2**32}, "seed must be in"),
        ({"seed": 0.5}, "seed must be a whole number"),
        ({"image_size": 0}, "image_size must be at least 1"),
    ],
)
def test_load_images(settings, message):
    with pytest.raises(SettingError, match=message):
        load_images("photos", "test", **settings)


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5])
def test_seeds_of_corruptions(seed):
    with pytest.raises(ValueError, match="seed must be"):
        corrupt(torch.full((1, 3, 32, 32), 0.5), "gaussian_noise_2", torch.tensor([0]), seed=seed)


@pytest.mark.parametrize("settings", [{"checkpoint_every": 0}, {"log_every": -1}, {"log_every": 0.5}])
def test_train_on(settings, tmp_path):
    with pytest.raises(SettingError, match="must be"):
        train_on(None, tmp_path / "saes", config=TrainConfig(), **settings)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "settings",
    [
        {"shard_bytes": 0},
        {"seed": -1},
        {"clean_fraction": math.nan},
        {"dtype": "int8"},
        {"tokens": "some"},
        {"hooks": ()},
        {"hooks": "blocks.0.hook_mlp_out"},
        {"corruptions": "gaussian_blur_4"},
    ],
)
def test_caches_of_activations(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        CacheConfig(**{"hooks": ["blocks.0.hook_mlp_out"], **settings})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite(value):
    """NaN passes every comparison that is written the wrong way round."""
    makers = {
        FinetuneConfig: ("learning_rate", "weight_decay", "warmup_fraction"),
        TrainConfig: (
            "lr",
            "lr_end",
            "l1_coefficient",
            "aux_loss_coefficient",
            "dead_after_epochs",
            "warm_up_fraction",
            "l1_warm_up_fraction",
        ),
        SAEConfig: ("clean_fraction", "lr"),
        Rules: ("smallest_gain", "unchanged", "ahead", "smallest_shift", "smallest_entropy", "identical", "level"),
        analysis.LensTraining: ("lr", "weight_decay"),
        Wanted: ("dense_above",),
    }
    for maker, names in makers.items():
        for name in names:
            with pytest.raises(SettingError, match=f"{name} must be"):
                maker(**{name: value})
    for name in ("lr", "l1_coefficient"):
        with pytest.raises(SettingError, match=f"{name} must be"):
            Sweep(**{name: (1e-3, value)})


@pytest.mark.parametrize("value", [0, -1, 1.5, None, "2"])
def test_counts(value):
    makers = {
        FinetuneConfig: ("epochs", "patience", "batch_size"),
        ViTShape: ("image_size", "patch_size", "d_model", "n_layers", "n_heads", "d_mlp"),
        ImageCounts: tuple(vars(ImageCounts())),
        TrainConfig: ("expansion_factor", "k", "epochs", "patience", "train_batch_size_tokens", "matryoshka_levels"),
        SAEConfig: ("images_per_batch", "buffer_images", "segment_images", "calibration_images"),
        analysis.LensTraining: ("epochs", "patience", "batch_size"),
        Browsing: ("n_features", "n_images", "top_images", "nearest", "strongest", "picture_side"),
        Rules: ("resamples",),
    }
    for maker, names in makers.items():
        for name in names:
            with pytest.raises(SettingError, match=f"{name} must be"):
                maker(**{name: value})


def test_statistics():
    values = np.ones((4, 1))
    for resamples in (0, -1, 1.5, 10**9):
        with pytest.raises(SettingError, match="resamples must be"):
            resampled_means(values, resamples=resamples)
    for level in (0, 1, math.nan, 95):
        with pytest.raises(SettingError, match="level must be"):
            interval(np.ones(4), level)
    for fraction in (math.nan, -0.5, 1.5):
        with pytest.raises(SettingError, match="fraction must be"):
            chosen_rows(10, fraction)


def test_analyses(blind, tiny_images):
    pair = blind, blind, tiny_images
    cases = {
        "norm must be": lambda: analysis.fourier_sensitivity(blind, tiny_images, norm=math.inf),
        "resolution must be": lambda: analysis.fourier_sensitivity(blind, tiny_images, resolution=0),
        "share must be": lambda: analysis.SmallestSetConfig(share=math.nan),
        "alphas must be": lambda: analysis.interpolate_weights(*pair, [BLUR], alphas=(0.0, math.nan)),
    }
    for message, work in cases.items():
        with pytest.raises(SettingError, match=message):
            work()
