"""sae-lens SAEs with random weights, and what they are compared with."""

from __future__ import annotations

import warnings

import torch
from sae_lens import JumpReLUSAE, JumpReLUSAEConfig, StandardSAE, StandardSAEConfig, TopKSAE, TopKSAEConfig
from sae_lens.saes.sae import SAEMetadata

RESID = "blocks.1.hook_resid_post"  # the penultimate residual of three blocks
FIRST = "blocks.0.hook_resid_post"
Z = "blocks.1.attn.hook_z"
KINDS = {
    "standard": (StandardSAE, StandardSAEConfig, {}),
    "jumprelu": (JumpReLUSAE, JumpReLUSAEConfig, {}),  # as which batchtopk is published
    "topk": (TopKSAE, TopKSAEConfig, {"k": 5}),
    "normalising": (StandardSAE, StandardSAEConfig, {"normalize_activations": "layer_norm"}),
}


def make_sae(kind="standard", name=RESID, d_in=32, dtype="float32", seed=0, **metadata):
    """An SAE of 48 latents with random weights, some of them active at each token, far from reconstructing."""
    sae_class, config_class, options = KINDS[kind]
    if name is not None and name.endswith("hook_z") and d_in == 32:  # two heads of 16 side by side
        options = {**options, "reshape_activations": "hook_z"}
    about = SAEMetadata(hook_name=name, **metadata)
    sae = sae_class(config_class(d_in=d_in, d_sae=48, dtype=dtype, metadata=about, **options))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, weight in sae.named_parameters():
            drawn = 0.3 * torch.randn(weight.shape, generator=generator)
            weight.copy_(drawn.abs() if key == "threshold" else drawn)
    return sae


def replaced(model, pixels, name, change):
    """Run the model with a plain hook that replaces an activation, which is also given."""
    seen = []

    def hook(x, hook):
        seen.append(x.clone())
        return change(x)

    return model.run_with_hooks(pixels, fwd_hooks=[(name, hook)]), seen[0]


def stock_with_error(sae):
    """sae-lens's own forward pass with its error term."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # sae-lens moves the setting elsewhere
        sae.use_error_term = True
    return sae
