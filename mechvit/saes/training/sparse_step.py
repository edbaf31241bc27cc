"""sae-lens's training SAEs, computed on the active entries only.

Parameters, checkpoints, losses and gradients are those of `StandardTrainingSAE` and `BatchTopKTrainingSAE`, up to
rounding; a test compares them in float64. Three costs are avoided: the top-k over the whole batch (candidates above 0.9
of the last step's threshold nearly always contain it; if not, all entries are searched), the dense decoder product and
the dense gradients.
"""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from sae_lens import BatchTopKTrainingSAE, StandardTrainingSAE, TrainingSAE
from sae_lens.saes.sae import TrainStepInput, TrainStepOutput
from torch import Tensor

from mechvit.models.layers.hook_state import has_hooks
from mechvit.saes import distributed as parallel

from .sparse_codes import Codes, SparseEntries, encode_above, sparse_decode, sparse_encode

DEVICES = ("cpu",)
"""Devices on which the sparse form is used by default, where `benchmarks/sae_step.py` has shown it to be faster.

On CUDA it gives the same results but is off until it has been timed there; an SAE whose `devices` include "cuda" uses
it.
"""

MAX_DENSITY = 1 / 16
"""Share of active entries above which the vanilla SAE's dense form is faster."""


def _folded_bias(sae: StandardTrainingSAE | BatchTopKTrainingSAE) -> Float[Tensor, " d_sae"]:
    """Return b_enc - b_dec @ W_enc, the bias that x @ W_enc needs to equal (x - b_dec) @ W_enc + b_enc."""
    return (sae.b_enc - sae.b_dec @ sae.W_enc).detach()


def _applies(sae: FastStandardTrainingSAE | FastBatchTopKTrainingSAE, x: Tensor) -> bool:
    """Return whether these inputs, settings and hooks need nothing that the sparse form leaves out."""
    hooked = any(map(has_hooks, sae.hook_dict.values()))
    return (
        x.device.type in sae.devices
        and x.ndim == 2
        and x.dtype == sae.W_enc.dtype
        and x.dtype in (torch.float32, torch.float64)
        and not (x.requires_grad or hooked or torch.is_autocast_enabled(x.device.type))
        and sae.cfg.apply_b_dec_to_input
        and not sae.hook_z_reshaping_mode
        and sae.cfg.normalize_activations in ("none", "expected_average_only_in")
    )


def _mse(sae_out: Tensor, sae_in: Tensor) -> Tensor:
    return (sae_out - sae_in).pow(2).sum(dim=-1).mean()


class FastStandardTrainingSAE(StandardTrainingSAE):
    """`StandardTrainingSAE` whose decoder and gradients use active entries only, once few are active."""

    devices = DEVICES

    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        """Compute sae-lens's losses; `feature_acts` is sparse, and `hidden_pre` holds the active entries only."""
        x = step_input.sae_in
        kept = self.active(x, MAX_DENSITY) if self.cfg.lp_norm == 1 and _applies(self, x) else None
        if kept is None:
            return super().training_forward_pass(step_input)
        acts = sparse_encode(x, self.W_enc, self.b_enc, self.b_dec, kept.values, kept)
        sae_out = sparse_decode(acts, self.W_dec, self.b_dec, kept)
        weighted = acts * self.W_dec.norm(dim=1)[kept.columns]
        losses = {
            "mse_loss": _mse(sae_out, x),
            "l1_loss": step_input.coefficients["l1"] * weighted.sum() / len(x),
        }
        codes = cast(Tensor, Codes(kept, acts.detach()))
        return TrainStepOutput(x, sae_out, codes, acts, sum(losses.values()), losses)

    def active(self, x: Float[Tensor, "token d_in"], max_density: float = 1.0) -> SparseEntries | None:
        """Return the positive entries of the pre-activations, or None if their share exceeds `max_density`."""
        return encode_above(x, self.W_enc.detach(), _folded_bias(self), 0.0, max_density=max_density)


class FastBatchTopKTrainingSAE(BatchTopKTrainingSAE):
    """`BatchTopKTrainingSAE` with an exact threshold in place of a sort, and products over the kept entries only."""

    devices = DEVICES
    _last_threshold = 0.0

    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        """Compute sae-lens's losses; `feature_acts` is sparse, and `hidden_pre` holds the kept entries only."""
        x = step_input.sae_in
        if not (self.cfg.rescale_acts_by_decoder_norm and _applies(self, x)):
            return super().training_forward_pass(step_input)
        kept = self.active(x)
        norms = self.W_dec.detach().norm(dim=-1)[kept.columns]
        pre = sparse_encode(x, self.W_enc, self.b_enc, self.b_dec, kept.values / norms, kept)
        sae_out = sparse_decode(pre, self.W_dec, self.b_dec, kept)
        losses = {
            "mse_loss": _mse(sae_out, x),
            "auxiliary_reconstruction_loss": self._dead_loss(x, sae_out, step_input.dead_neuron_mask),
        }
        self.update_topk_threshold(kept.values)
        codes = cast(Tensor, Codes(kept, kept.values))
        output = TrainStepOutput(x, sae_out, codes, pre, sum(losses.values()), losses)
        output.metrics["topk_threshold"] = self.topk_threshold
        return output

    @torch.no_grad()
    def active(self, x: Float[Tensor, "token d_in"]) -> SparseEntries:
        """Return the k x batch largest positive pre-activations times the decoder's norms; among equals the first.

        In training, the batch is that of all processes.
        """
        norms = self.W_dec.norm(dim=-1)
        weight, bias = self.W_enc * norms, _folded_bias(self) * norms
        shared = self.training  # a training step's batch is shared by all processes, a check's is not
        wanted = int(self.cfg.k * len(x) * (parallel.size() if shared else 1))
        found = encode_above(x, weight, bias, 0.9 * self._last_threshold)
        if self._last_threshold > 0:
            n = 0 if found is None else len(found.values)
            if (parallel.summed(n, x.device) if shared else n) < wanted:
                found = encode_above(x, weight, bias, 0.0)
        assert found is not None  # no max_density was given
        chosen, threshold = parallel.largest(found.values, wanted, shared=shared)
        self._last_threshold = max(threshold, 0.0)
        return SparseEntries(found.index[chosen], found.values[chosen], found.n_rows, found.n_columns)

    def _dead_loss(self, x: Tensor, sae_out: Tensor, dead: Tensor | None) -> Tensor:
        """Compute sae-lens's auxiliary loss on the dead latents' columns alone (arXiv:2406.04093, appendix A.2)."""
        n_dead = 0 if dead is None else int(dead.sum())
        if dead is None or n_dead == 0 or self.cfg.aux_loss_coefficient == 0:
            return sae_out.new_tensor(0.0)
        half = x.shape[-1] // 2
        columns = dead.nonzero().squeeze(1)
        W_dec = self.W_dec[columns]
        pre = (x - self.b_dec) @ self.W_enc[:, columns] + self.b_enc[columns]
        chosen = (pre * W_dec.norm(dim=-1)).detach().topk(min(half, n_dead), sorted=False).indices
        codes = torch.zeros_like(pre).scatter(-1, chosen, pre.gather(-1, chosen))
        error = codes @ W_dec - (x - sae_out).detach()
        return self.cfg.aux_loss_coefficient * min(n_dead / half, 1.0) * error.pow(2).sum(dim=-1).mean()


@torch.no_grad()
def reconstruct(sae: TrainingSAE, x: Float[Tensor, "token d_in"]) -> tuple[Float[Tensor, "token d_in"], float]:
    """Return an SAE's reconstruction of scaled activations, and its mean number of active latents per token."""
    if not isinstance(sae, (FastStandardTrainingSAE, FastBatchTopKTrainingSAE)) or not _applies(sae, x):
        codes = sae.encode(x)
        return sae.decode(codes), float(codes.count_nonzero()) / len(x)
    kept = sae.active(x)
    assert kept is not None  # no max_density was given
    values = kept.values
    if isinstance(sae, FastBatchTopKTrainingSAE):
        values = values / sae.W_dec.norm(dim=-1)[kept.columns]
    return kept.times(values, sae.W_dec.detach()) + sae.b_dec, len(values) / len(x)
