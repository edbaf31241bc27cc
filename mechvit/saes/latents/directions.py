"""Directions of latents: decode(e_j) - decode(0), with e_j the code in which only latent j is active, at 1.

In many SAEs, but not all, this is row j of `W_dec`: sae-lens's TopK SAEs with `rescale_acts_by_decoder_norm` divide
each row by its length. If `decode` scales its output by the length or deviation of the input of `encode`
(`normalize_activations` of layer_norm or constant_norm_rescale), the length of a direction differs from token to token:
then only the unit vector is defined.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from mechvit.analysis.inputs import wide
from mechvit.models.interrupts import temporary
from mechvit.models.sae_checks import check_unhooked

if TYPE_CHECKING:
    from sae_lens import SAE

RESCALED = ("layer_norm", "constant_norm_rescale")
"""Values of sae-lens's `normalize_activations` with which the decoder scales its output per token."""
_ACTIVE, _CODES, _ROWS = 8, 64, 1024  # latents per test code, number of test codes, rows per block


def fixed_scale(sae: SAE) -> bool:
    """Return whether one unit of a latent writes the same vector into every token."""
    return sae.cfg.normalize_activations not in RESCALED


@torch.no_grad()
def latent_directions(
    sae: SAE, latents: Int[Tensor, " n"] | None = None, *, name: str = "the SAE"
) -> Float[Tensor, "n d"]:
    """Return decode(e_j) - decode(0) of some latents (all when None), in at least float32, on the SAE's device.

    Raises:
        ValueError: the decoder scales its output by a statistic of the token read or is not affine in the codes, or
            hooks are left in the SAE.
    """
    check_fixed_scale(sae, name)
    rows = _rows(sae, name)
    return rows if latents is None else rows[latents.to(rows.device)]


def check_fixed_scale(sae: SAE, name: str = "the SAE") -> None:
    """Raise a ValueError if an SAE's decoder scales its output by a statistic of the token read."""
    if not fixed_scale(sae):
        raise ValueError(
            f"{name} normalises its input ({sae.cfg.normalize_activations}) and scales its output back token by token, "
            "so that its latents have no fixed directions: use an SAE that reads raw activations, or fold a fixed "
            "scale into its weights"
        )


@torch.no_grad()
def unit_directions(sae: SAE, *, name: str = "the SAE") -> Float[Tensor, "d_sae d"]:
    """Return decode(e_j) - decode(0) of every latent at length 1, in float32; 0 where a latent writes nothing.

    Raises:
        ValueError: the decoder is not affine in the codes, or hooks are left in the SAE.
    """
    return normalize(_rows(sae, name).float(), dim=1)


def _rows(sae: SAE, name: str) -> Float[Tensor, "d_sae d"]:
    """Return decode(e_j) - decode(0) for each latent, before `decode` scales and reshapes its output."""
    check_unhooked(sae, name)
    with _plain_output(sae):
        rows = wide(sae.W_dec.detach())
        if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
            rows = rows * (1 / rows.norm(dim=-1, keepdim=True))
        if not _decodes_to(sae, rows):
            rows = _differences(sae)
            if not _decodes_to(sae, rows):
                raise ValueError(
                    f"{name} ({type(sae).__name__}) must decode codes to a finite sum of one vector per latent; it "
                    "does not, so its latents have no directions"
                )
    return rows


def _differences(sae: SAE) -> Float[Tensor, "d_sae d"]:
    """Compute decode(e_j) - decode(0) for each latent, for decoders that `W_dec` does not describe."""
    d_sae, weight = sae.cfg.d_sae, sae.W_dec
    nothing = sae.decode(weight.new_zeros(1, d_sae))
    blocks = torch.arange(d_sae, device=weight.device).split(_ROWS)
    return torch.cat([wide(sae.decode(one_hot(j, d_sae).to(weight))) - wide(nothing) for j in blocks])


def _decodes_to(sae: SAE, rows: Float[Tensor, "d_sae d"]) -> bool:
    """Return whether `decode` equals the sum of the latents' rows on random codes of a few latents."""
    generator, d_sae = torch.Generator().manual_seed(0), len(rows)
    active = min(_ACTIVE, d_sae)
    places = torch.stack([torch.randperm(d_sae, generator=generator)[:active] for _ in range(_CODES)])
    sizes = 0.5 + torch.rand(_CODES, active, generator=generator)
    codes = torch.zeros(_CODES, d_sae).scatter_(1, places, sizes).to(sae.W_dec)
    found, nothing = sae.decode(codes).double(), sae.decode(torch.zeros_like(codes[:1])).double()
    places = places.to(rows.device)
    parts = codes.gather(1, places)[..., None].double() * rows[places].double()  # [code, active latent, d]
    size = parts.abs().sum(1) + nothing.abs()
    off = (found - nothing - parts.sum(1)).abs()
    return bool((off <= 16 * torch.finfo(codes.dtype).eps * size).all())  # False where anything is NaN


@temporary
def _plain_output(sae: Any) -> Iterator[None]:
    """Make `decode` neither rescale its output nor split it by head."""
    sae.d_head = getattr(sae, "d_head", None)  # a hook_z SAE sets it only when it reads an activation
    before = sae.run_time_activation_norm_fn_out, sae.reshape_fn_out
    sae.run_time_activation_norm_fn_out, sae.reshape_fn_out = (lambda x: x), (lambda x, d_head: x)
    try:
        yield
    finally:
        sae.run_time_activation_norm_fn_out, sae.reshape_fn_out = before
