"""sae-lens's training SAEs by the name of their architecture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from mechvit.saes.config import PENALISED, SAESpec, TrainConfig

if TYPE_CHECKING:
    from sae_lens import TrainingSAE

THRESHOLDED = ("batchtopk", "matryoshka_batchtopk")
"""Architectures published as JumpReLU SAEs, whose threshold is set on training tokens."""

JUMPRELU_BANDWIDTH = 0.5
"""Bandwidth of the step function's pseudo-gradient, for activations of norm sqrt(d_in). With sae-lens's 0.05, the
thresholds hardly move in so few steps."""


def make_sae(spec: SAESpec, d_in: int, config: TrainConfig, penalty_warm_up: int, device: torch.device) -> TrainingSAE:
    """Make one SAE with random weights; `standard` and `batchtopk` in their sparse form if `config.fast`.

    The weights are drawn on the CPU, so that a seed gives the same weights on every device.

    Args:
        penalty_warm_up: steps over which a fixed sparsity coefficient rises.
    """
    import sae_lens

    from .sparse_step import FastBatchTopKTrainingSAE, FastStandardTrainingSAE

    d_sae = spec.expansion_factor * d_in
    common: dict[str, Any] = {
        "d_in": d_in,
        "d_sae": d_sae,
        "device": "cpu",
        "normalize_activations": "expected_average_only_in",
    }
    if spec.hook_name.endswith("hook_z"):  # the streams concatenate the heads; the published SAE does so itself
        common["reshape_activations"] = "hook_z"
    if spec.architecture in PENALISED:
        name = "l0" if spec.architecture == "jumprelu" else "l1"
        common[f"{name}_coefficient"] = 1.0 if spec.l1_coefficient is None else spec.l1_coefficient
        common[f"{name}_warm_up_steps"] = 0 if spec.aims_at_k else penalty_warm_up
        if spec.architecture == "jumprelu":
            common["jumprelu_bandwidth"] = JUMPRELU_BANDWIDTH
            if spec.aims_at_k:
                common |= {"jumprelu_sparsity_loss_mode": "quadratic", "target_l0": float(spec.k)}
    else:
        common |= {"k": spec.k, "aux_loss_coefficient": config.aux_loss_coefficient}
    if spec.architecture == "matryoshka_batchtopk":
        common["matryoshka_widths"] = [d_sae // 2**level for level in reversed(range(config.matryoshka_levels))]
    fast: dict[str, type[TrainingSAE]] = {"standard": FastStandardTrainingSAE, "batchtopk": FastBatchTopKTrainingSAE}
    prefix = {
        "standard": "Standard",
        "batchtopk": "BatchTopK",
        "topk": "TopK",
        "jumprelu": "JumpReLU",
        "gated": "Gated",
        "matryoshka_batchtopk": "MatryoshkaBatchTopK",
    }[spec.architecture]
    settings = getattr(sae_lens, f"{prefix}TrainingSAEConfig")(**common)
    stock = getattr(sae_lens, f"{prefix}TrainingSAE")
    return (fast.get(spec.architecture, stock) if config.fast else stock)(settings).to(device)
