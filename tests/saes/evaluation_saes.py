"""Published SAEs with known weights, for the tests of their evaluation."""

from __future__ import annotations

import torch
from sae_lens import JumpReLUSAE, JumpReLUSAEConfig, StandardSAE, StandardSAEConfig
from sae_lens.saes.sae import SAEMetadata

KINDS = {"standard": (StandardSAE, StandardSAEConfig), "batchtopk": (JumpReLUSAE, JumpReLUSAEConfig)}
CORRUPTIONS = ("gaussian_blur_2", "gaussian_noise_4")
CONDITIONS = ("clean", *CORRUPTIONS)
CHOSEN = {"all": slice(None), "patches": slice(1, None), "cls": slice(0, 1)}
D = 32


def empty_sae(kind="standard", d_in=D, d_sae=96, hook="blocks.1.hook_resid_post", tokens="all", **about):
    cls, config = KINDS[kind]
    metadata = SAEMetadata(hook_name=hook, hook_tokens=tokens, **about)
    return cls(config(d_in=d_in, d_sae=d_sae, metadata=metadata))


def random_sae(kind="standard", seed=None, **settings):
    """Every weight far from its start; the decoder is near the encoder's transpose, so that it rebuilds something."""
    sae = empty_sae(kind, **settings)
    generator = torch.Generator().manual_seed(len(kind) if seed is None else seed)
    d = sae.cfg.d_in

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    with torch.no_grad():
        directions = torch.nn.functional.normalize(normal(sae.cfg.d_sae, d), dim=1)
        sae.W_enc.copy_(directions.T + 0.02 * normal(d, sae.cfg.d_sae))
        sae.W_dec.copy_(0.6 * directions + 0.02 * normal(sae.cfg.d_sae, d))
        sae.b_enc.copy_(0.3 * normal(sae.cfg.d_sae) - 0.5)
        sae.b_enc[:7] = -1e4  # dead
        sae.b_dec.copy_(0.3 * normal(d))
        if kind == "batchtopk":
            sae.threshold.copy_(0.5 + torch.rand(sae.cfg.d_sae, generator=generator))
    return sae


def identity_sae(d=D, **settings):
    """relu(x) - relu(-x) = x."""
    sae = empty_sae(d_in=d, d_sae=2 * d, **settings)
    with torch.no_grad():
        sae.W_enc.copy_(torch.cat([torch.eye(d), -torch.eye(d)], dim=1))
        sae.W_dec.copy_(torch.cat([torch.eye(d), -torch.eye(d)]))
        sae.b_enc.zero_()
        sae.b_dec.zero_()
    return sae


def zero_sae(**settings):
    sae = empty_sae(**settings)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.zero_()
    return sae


def float64_codes(sae, x):
    """relu, and a threshold where there is one, in float64: [token, d_sae]."""
    W, b, b_dec = (p.detach().double() for p in (sae.W_enc, sae.b_enc, sae.b_dec))
    pre = (x.double() - b_dec) @ W + b
    floor = sae.threshold.detach().double() if hasattr(sae, "threshold") else torch.zeros(len(b))
    return torch.where(pre > floor, pre.clamp_min(0), 0)
