"""Initial weights of an SAE, set from the first training tokens."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from .learner import Learner
from .sparse_step import reconstruct

_LATENTS = 1024
"""Number of latents whose pre-activations on all starting tokens are held at once."""


@torch.no_grad()
def start_from_data(learner: Learner, x: Float[Tensor, "token d_in"], scale: float) -> None:
    """Initialise from data: b_dec at the tokens' centre, the encoder scaled for the best first reconstruction.

    An SAE with a penalty also starts at the target sparsity: each latent's bias (standard), gate bias (gated) or
    threshold (jumprelu) is set so that it fires on a share k / d_sae of the tokens. `x` is raw; `scale` brings its mean
    norm to sqrt(d_in).

    Raises:
        ValueError: no latent fires, since the activations do not vary.
    """
    sae, spec = learner.sae, learner.spec
    learner.trainer.activation_scaler.scaling_factor = scale
    x = x * scale
    sae.b_dec.data = geometric_median(x) if learner.config.b_dec_init == "geometric_median" else x.mean(0)
    centred = x - sae.b_dec
    if learner.config.decoder_init == "data":
        sae.W_dec.data = centred[torch.randint(len(x), (sae.cfg.d_sae,)).to(x.device)].clone()
    sae.W_dec.data /= sae.W_dec.norm(dim=-1, keepdim=True)
    sae.W_enc.data = sae.W_dec.T.clone().contiguous()
    gates = {"standard": ("b_enc", -1.0), "gated": ("b_gate", -1.0), "jumprelu": ("threshold", 1.0)}
    if spec.architecture in gates:
        name, sign = gates[spec.architecture]
        rank = min(max(1, round(spec.k / sae.cfg.d_sae * len(x))) + 1, len(x))
        for latents in torch.arange(sae.cfg.d_sae, device=x.device).split(_LATENTS):
            pre = centred @ sae.W_enc[:, latents]
            getattr(sae, name).data[latents] = sign * pre.topk(rank, dim=0).values[-2:].mean(0)
    along = length = 0.0
    for part in x.split(learner.config.train_batch_size_tokens):
        first = reconstruct(sae, part)[0] - sae.b_dec
        along += float((first * (part - sae.b_dec)).sum())
        length += float(first.pow(2).sum())
    if not along > 0:
        raise ValueError(f"no latent fires on the {len(x)} tokens to start from: the activations do not vary")
    for name in ("W_enc", "b_enc", "b_gate", "threshold"):
        if getattr(sae, name, None) is not None:
            getattr(sae, name).data *= along / length


def geometric_median(
    x: Float[Tensor, "token d_in"], *, steps: int = 100, tolerance: float = 1e-7
) -> Float[Tensor, " d_in"]:
    """Compute the point with the smallest sum of distances to all tokens, by Weiszfeld's iteration in float64.

    Args:
        steps: largest number of iterations.
        tolerance: relative change at which to stop.
    """
    wide = x.double()
    guess = wide.mean(0)
    for _ in range(steps):
        weight = 1 / (wide - guess).norm(dim=-1).clamp(min=1e-12)
        better = (weight[:, None] * wide).sum(0) / weight.sum()
        done = (better - guess).norm() <= tolerance * guess.norm()
        guess = better
        if done:
            break
    return guess.to(x.dtype)
