"""The SAEs' configuration: the paper's defaults, and what it refuses."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mechvit.saes.config import SAEConfig


def test_defaults_are_the_papers():
    config = SAEConfig()
    assert (config.expansion_factor, config.k, config.lr, config.epochs) == (32, 32, 1e-3, 15)
    assert config.architectures == ("standard", "batchtopk")
    assert config.hook_layer is None  # the penultimate residual
    assert config.l1_coefficient is None  # steered


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ()}, "at least one"),
        ({"architectures": ("standard", "standard")}, "each once"),
        ({"architectures": ("relu",)}, "standard, batchtopk, topk.*; got.*relu"),
        ({"tokens": "patch"}, "tokens must be among all, patches, cls; got 'patch'"),
        ({"clean_fraction": 1.01}, r"clean_fraction must be in \[0, 1\]; got 1.01"),
        ({"clean_fraction": float("nan")}, "clean_fraction"),
        ({"warm_up_fraction": 1.0}, r"warm_up_fraction must be in \[0, 1\); got 1.0"),
        ({"warm_up_fraction": -0.1}, "warm_up_fraction"),
        ({"lr": 0.0, "lr_end": 0.0}, "lr must be finite and above 0; got 0.0"),
        ({"lr_end": 2e-3}, "lr_end must be at most lr, 0.001; got 0.002"),
        ({"l1_coefficient": -1.0}, "l1_coefficient must be finite and at least 0; got -1.0"),
        ({"aux_loss_coefficient": -0.5}, "aux_loss_coefficient"),
        ({"dead_after_epochs": 0.0}, "dead_after_epochs must be finite and above 0; got 0.0"),
        ({"seed": -1}, r"seed must be in \[0, 4294967295\]; got -1"),
        ({"hook_layer": -1}, "hook_layer must be at least 0; got -1"),
        ({"hook_layer": 1, "hook_names": ("blocks.0.hook_mlp_out",)}, "hook_names or hook_layer, not both"),
        ({"hook_names": ("a", "a")}, "hook_names must name each once"),
        ({"lr_schedule": "step"}, "lr_schedule must be among cosine, linear, constant; got 'step'"),
        ({"b_dec_init": "zero"}, "b_dec_init must be among mean, geometric_median; got 'zero'"),
        ({"decoder_init": "pca"}, "decoder_init must be among random, data; got 'pca'"),
        ({"l1_warm_up_fraction": 1.0}, "l1_warm_up_fraction"),
        *[
            ({name: 0}, f"{name} must be at least 1; got 0")
            for name in (
                "expansion_factor",
                "k",
                "epochs",
                "patience",
                "train_batch_size_tokens",
                "images_per_batch",
                "buffer_images",
                "calibration_images",
                "segment_images",
            )
        ],
    ],
)
def test_refuses_settings_that_cannot_work(changes, message):
    with pytest.raises(ValueError, match=message):
        SAEConfig(**changes)


@pytest.mark.processes
def test_the_configuration_is_light_to_import():
    code = "import sys, mechvit.saes.config as c; c.SAEConfig(); print({'torch', 'sae_lens'} & sys.modules.keys())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
