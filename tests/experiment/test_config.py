"""Presets and settings, and that reading them needs no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace

import pytest

from mechvit.experiment import PRESETS, ExperimentConfig, ImageCounts
from mechvit.experiment.runs.stages import digest, plain

PAPER = (
    "gaussian_blur_1",
    "gaussian_blur_2",
    "gaussian_blur_4",
    "gaussian_noise_1",
    "gaussian_noise_2",
    "gaussian_noise_4",
)


def test_imagenet_holds_the_paper_s_settings():
    config = PRESETS["imagenet"]
    assert config.model == "google/vit-base-patch16-224"
    assert config.images == "ILSVRC/imagenet-1k"
    assert config.corruptions == PAPER
    assert config.count("finetune") == 10_000
    assert config.count("test") == 1000
    tuning = config.finetuning
    assert (tuning.learning_rate, tuning.epochs, tuning.weight_decay) == (5e-5, 10, 0)
    assert tuning.patience < tuning.epochs, "early stopping"
    saes = config.saes
    assert (saes.expansion_factor, saes.k, saes.lr, saes.epochs) == (32, 32, 1e-3, 15)
    assert saes.architectures == ("standard", "batchtopk")
    assert saes.hook_layer is None
    assert saes.tokens == "all"
    assert saes.lr_end < saes.lr
    assert saes.patience < saes.epochs
    assert 0 < saes.clean_fraction < 1
    assert config.limit is None


def test_photos_trains_its_own_base_on_the_same_corruptions():
    config = PRESETS["photos"]
    assert config.model is None
    assert config.images == "photos"
    assert config.corruptions == PAPER
    assert config.base.learning_rate != config.finetuning.learning_rate
    assert (config.saes.k, config.saes.lr) == (32, 1e-3)
    assert config.count("test") <= 1900
    assert config.count("train") == config.counts.train


def test_presets_are_named_as_their_keys_and_have_folders_of_their_own():
    assert {key: config.preset for key, config in PRESETS.items()} == {"photos": "photos", "imagenet": "imagenet"}
    assert len({config.out for config in PRESETS.values()}) == len(PRESETS)
    assert len({digest(config) for config in PRESETS.values()}) == len(PRESETS)
    for config in PRESETS.values():
        json.dumps(plain(config), allow_nan=False)
        with pytest.raises(FrozenInstanceError):
            config.seed = 1


def test_strongest_is_the_highest_level_of_each_family_whatever_the_order():
    config = ExperimentConfig(
        corruptions=("gaussian_noise_4", "gaussian_blur_10", "gaussian_noise_1", "gaussian_blur_2")
    )
    assert [c.key for c in config.strongest] == ["gaussian_noise_4", "gaussian_blur_10"]
    assert [c.key for c in config.tuned] == list(config.corruptions)
    assert [c.key for c in ExperimentConfig(corruptions=("gaussian_blur_1",)).strongest] == ["gaussian_blur_1"]


def test_limit_caps_every_part_and_raises_none():
    config = replace(PRESETS["imagenet"], limit=600)
    expected = {part: min(count, 600) for part, count in vars(config.counts).items()}
    assert {part: config.count(part) for part in vars(config.counts)} == expected
    assert config.count("sae_validation") == 500
    with pytest.raises(AttributeError):
        config.count("training")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"corruptions": ()}, "must name at least one"),
        ({"corruptions": ("gaussian_blur_1", "clean")}, "must not name clean"),
        ({"corruptions": ("gaussian_blur_1", "gaussian_blur_1")}, "each once"),
        ({"corruptions": ("gaussian_blur",)}, "gaussian_blur needs its level"),
        ({"corruptions": ("smog_3",)}, "'smog'"),
        ({"corruptions": ("gaussian_noise_6",)}, "1 to 5; got 6"),
        ({"limit": 0}, "limit must be at least 1; got 0"),
        ({"images": "folder:here"}, r"model must be given with images of your own \(folder:here\)"),
        ({"example_images": 0}, "example_images must be at least 1; got 0"),
        ({"seed": -1}, "seed must be in"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        ExperimentConfig(**changes)


@pytest.mark.parametrize("part", ["train", "sae", "attention"])
def test_every_part_needs_an_image(part):
    with pytest.raises(ValueError, match=f"{part} must be at least 1; got 0"):
        ImageCounts(**{part: 0})


@pytest.mark.processes
def test_reading_presets_imports_nothing_heavy():
    code = (
        "import sys, mechvit.experiment.config as c; assert c.PRESETS['photos']; "
        "heavy = {'torch', 'transformers', 'transformer_lens', 'sae_lens', 'datasets', 'pandas'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
