"""SAEs of stock sae-lens in all architectures and settings, with random weights, and what their decoders do."""

from __future__ import annotations

import copy

import torch
from sae_lens import (
    AbsTopKSAE,
    AbsTopKSAEConfig,
    GatedSAE,
    GatedSAEConfig,
    JumpReLUSAE,
    JumpReLUSAEConfig,
    MatchingPursuitSAE,
    MatchingPursuitSAEConfig,
    StandardSAE,
    StandardSAEConfig,
    TopKSAE,
    TopKSAEConfig,
)
from sae_lens.saes.sae import SAEMetadata

HOOK = "blocks.1.hook_resid_post"
FOREIGN = {
    "standard": (StandardSAE, StandardSAEConfig, {}),
    "standard, b_dec not applied": (StandardSAE, StandardSAEConfig, {"apply_b_dec_to_input": False}),
    "jumprelu": (JumpReLUSAE, JumpReLUSAEConfig, {}),
    "gated": (GatedSAE, GatedSAEConfig, {}),
    "topk": (TopKSAE, TopKSAEConfig, {"k": 9}),
    "topk, rescaled": (TopKSAE, TopKSAEConfig, {"k": 9, "rescale_acts_by_decoder_norm": True}),
    "abstopk, rescaled": (AbsTopKSAE, AbsTopKSAEConfig, {"k": 9, "rescale_acts_by_decoder_norm": True}),
    "matching pursuit": (MatchingPursuitSAE, MatchingPursuitSAEConfig, {"max_iterations": 6}),
    "matching pursuit, no b_dec": (
        MatchingPursuitSAE,
        MatchingPursuitSAEConfig,
        {"max_iterations": 6, "apply_b_dec_to_input": False},
    ),
}
RESCALED = [name for name in FOREIGN if "rescaled" in name]


def foreign_sae(kind="topk, rescaled", dtype="float32", d_in=32, d_sae=64, seed=0, hook=HOOK, **settings):
    """Decoder rows 0.3 to 3 long, a bias far from 0, an encoder near the decoder's transpose: it rebuilds something."""
    cls, config, options = FOREIGN[kind]
    about = SAEMetadata(hook_name=hook, hook_tokens="all")
    sae = cls(config(d_in=d_in, d_sae=d_sae, dtype=dtype, metadata=about, **options, **settings))
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    directions = torch.nn.functional.normalize(normal(d_sae, d_in), dim=1)
    lengths = 0.3 + 2.7 * torch.rand(d_sae, 1, generator=generator)
    with torch.no_grad():
        for name, weight in sae.named_parameters():
            weight.copy_(0.1 * normal(*weight.shape).abs() if name == "threshold" else 0.2 * normal(*weight.shape))
        if "matching" not in kind:
            sae.W_enc.copy_(directions.T / lengths[:, 0] + 0.02 * normal(d_in, d_sae))
        sae.W_dec.copy_(directions * lengths)
        sae.b_dec.copy_(normal(d_in))
    return sae


def widened(sae):
    """A copy whose decoder computes in float64."""
    return copy.deepcopy(sae).to(dtype=torch.float64)


@torch.no_grad()
def decode_differences(sae):
    """decode(e_j) - decode(0), one latent at a time, in float64."""
    wide = widened(sae)
    codes = torch.eye(sae.cfg.d_sae, dtype=torch.float64)
    nothing = wide.decode(torch.zeros(1, sae.cfg.d_sae, dtype=torch.float64))[0]
    return torch.stack([wide.decode(code[None])[0] - nothing for code in codes])


def folded(sae):
    """sae-lens's own fold of the rescaled decoder's lengths: the same function, whose directions are `W_dec`."""
    other = copy.deepcopy(sae)
    other.fold_W_dec_norm()
    other.cfg.rescale_acts_by_decoder_norm = False
    return other
