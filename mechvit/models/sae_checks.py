"""Checks that a sae-lens SAE can replace a hook point: its output is decode(encode(x)) of raw activations."""

from __future__ import annotations

from typing import Any

from transformer_lens.HookedRootModule import HookedRootModule

from mechvit.models.layers.hook_state import has_hooks

UNFOLDED = ("expected_average_only_in", "covariance_whitening")
"""Values of `normalize_activations` that sae-lens applies in training only and then folds into the weights."""


def is_sae(given: Any) -> bool:
    """Return whether an object is a sae-lens SAE."""
    return isinstance(given, HookedRootModule) and hasattr(given, "encode")


def check_reconstructs(sae: Any, name: str = "the SAE") -> None:
    """Raise a ValueError unless an SAE's output is decode(encode(x)) of raw activations, in place of its input."""
    if not is_sae(sae):
        raise ValueError(
            f"{name} must be an SAE of sae-lens; got {type(sae).__name__}. Load it with mechvit.saes.load_sae, or with "
            "sae_lens."
        )
    cfg: Any = sae.cfg
    reads, writes = cfg.metadata.hook_name, cfg.metadata.hook_name_out
    if hasattr(cfg, "d_out") or writes not in (None, reads) or cfg.architecture() == "temporal":
        got = f"{cfg.architecture()!r}, from {reads!r} to {writes or reads!r}"
        raise ValueError(f"An SAE's output must be decode(encode(x)), at the point that it reads; {name} is {got}.")
    if cfg.normalize_activations in UNFOLDED:
        raise ValueError(
            f"{name} reads activations that its training normalised ({cfg.normalize_activations}), and its weights do "
            "not hold that yet: call sae.fold_activation_norm_scaling_factor (or fold_activation_whitening) with what "
            'the training used; where its weights do, set sae.cfg.normalize_activations = "none"'
        )


def check_unhooked(sae: Any, name: str = "the SAE") -> None:
    """Raise a ValueError where an SAE still has hooks, which would change its measured codes."""
    if left := [point for point, module in sae.hook_dict.items() if has_hooks(module)]:
        raise ValueError(
            f"{name} has hooks at {', '.join(left)}, which would change what is measured of it: take them off with "
            "sae.reset_hooks(including_permanent=True)"
        )
