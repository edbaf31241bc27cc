"""Multi-head attention with transformer-lens's hook points, fused where nothing watches the pattern."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from transformer_lens.hook_points import HookPoint

from mechvit.models.config import HookedViTConfig
from mechvit.models.interrupts import temporary

from .hook_state import is_watched
from .positions import RelativePositionBias, TokenLayout, rotate


class Attention(nn.Module):
    """softmax(q kᵀ / √d_head + bias) v per head, concatenated and projected, with layer scale where the checkpoint has
    it.

    The weights are stored in Hugging Face's layout; `W_Q` and its siblings are transformer-lens's views of them. `W_O`
    and `b_O` include the layer scale, so that they are what is written into the residual stream.
    """

    hook_result: HookPoint | None
    mix: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor] | None = None
    """Replacement of fused attention where nothing watches the pattern: see `mixed_by`."""

    def __init__(self, cfg: HookedViTConfig) -> None:
        super().__init__()
        self.n_heads, self.d_head = cfg.n_heads, cfg.d_head
        width = cfg.n_heads * cfg.d_head
        self.q = nn.Linear(cfg.d_model, width, bias=cfg.q_bias)
        self.k = nn.Linear(cfg.d_model, width, bias=cfg.k_bias)
        self.v = nn.Linear(cfg.d_model, width, bias=cfg.v_bias)
        self.o = nn.Linear(width, cfg.d_model, bias=cfg.o_bias)
        self.scale = nn.Parameter(torch.ones(cfg.d_model)) if cfg.layer_scale else None
        self.relative = RelativePositionBias(cfg) if cfg.relative_position_bias else None
        self.hook_q = HookPoint()  # [batch, token, head, d_head]
        self.hook_k = HookPoint()  # [batch, token, head, d_head]
        self.hook_v = HookPoint()  # [batch, token, head, d_head]
        if cfg.positions == "rotary":
            self.hook_rot_q = HookPoint()  # [batch, token, head, d_head]
            self.hook_rot_k = HookPoint()  # [batch, token, head, d_head]
        self.hook_attn_scores = HookPoint()  # [batch, head, query, key]
        self.hook_pattern = HookPoint()  # [batch, head, query, key]
        self.hook_z = HookPoint()  # [batch, token, head, d_head]
        self.register_module("hook_result", None)  # [batch, token, head, d_model], on request

    def forward(
        self,
        query_input: Float[Tensor, "batch query *head d_model"],
        key_input: Float[Tensor, "batch key *head d_model"],
        value_input: Float[Tensor, "batch key *head d_model"],
        place: TokenLayout | None = None,
    ) -> Float[Tensor, "batch query d_model"]:
        """Compute attention; each input is shared by all heads, or (with `use_split_qkv_input`) given per head."""
        q = self.hook_q(self._project(self.q, query_input))
        k = self.hook_k(self._project(self.k, key_input))
        v = self.hook_v(self._project(self.v, value_input))
        if place is not None and place.rotary is not None:
            q, k = self.hook_rot_q(rotate(q, place.rotary)), self.hook_rot_k(rotate(k, place.rotary))
        bias = self.position_bias(place)
        z = self.hook_z(self._mix(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), bias).transpose(1, 2))
        return self.write(z)

    def write(self, z: Float[Tensor, "batch query head d_head"]) -> Float[Tensor, "batch query d_model"]:
        """Project the heads' mixed values to the output that attention adds to the residual stream."""
        if self.hook_result is None:
            out = self.o(z.flatten(2))
            return out if self.scale is None else out * self.scale
        return self.hook_result(torch.einsum("bthd,hdm->bthm", z, self.W_O)).sum(2) + self.b_O

    def position_bias(self, place: TokenLayout | None) -> Float[Tensor, "1 head query key"] | None:
        """Return the relative position bias that is added to the scores; None without one."""
        if self.relative is None:
            return None if place is None else place.bias
        assert place is not None
        own = self.relative(place.grid)
        return own if place.bias is None else own + place.bias

    def _mix(
        self,
        q: Float[Tensor, "batch head query d_head"],
        k: Float[Tensor, "batch head key d_head"],
        v: Float[Tensor, "batch head key d_head"],
        bias: Float[Tensor, "1 head query key"] | None,
    ) -> Float[Tensor, "batch head query d_head"]:
        if not (is_watched(self.hook_attn_scores) or is_watched(self.hook_pattern)):
            if self.mix is not None:
                return self.mix(q, k, v, bias)
            return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.hook_pattern(self.pattern(self.hook_attn_scores(self.scores(q, k, bias)))) @ v

    def scores(
        self,
        q: Float[Tensor, "batch head query d_head"],
        k: Float[Tensor, "batch head key d_head"],
        bias: Float[Tensor, "1 head query key"] | None,
    ) -> Float[Tensor, "batch head query key"]:
        """Return q kᵀ / √d_head + bias; no hook fires."""
        scores = q @ k.transpose(-1, -2) * self.d_head**-0.5
        return scores if bias is None else scores + bias

    @staticmethod
    def pattern(scores: Float[Tensor, "batch head query key"]) -> Float[Tensor, "batch head query key"]:
        """Return the softmax over keys, which half types take in float32; no hook fires."""
        wide = torch.promote_types(scores.dtype, torch.float32)
        return scores.softmax(-1, dtype=wide).to(scores.dtype)

    def _project(
        self, linear: nn.Linear, x: Float[Tensor, "batch token *head d_model"]
    ) -> Float[Tensor, "batch token head d_head"]:
        if x.dim() == 3:
            return linear(x).unflatten(-1, (self.n_heads, self.d_head))
        out = torch.einsum("bthm,hmd->bthd", x, self._in_view(linear))
        return out if linear.bias is None else out + linear.bias.unflatten(0, (self.n_heads, self.d_head))

    def _in_view(self, linear: nn.Linear) -> Float[Tensor, "head d_model d_head"]:
        return linear.weight.unflatten(0, (self.n_heads, self.d_head)).transpose(1, 2)

    def _bias_view(self, linear: nn.Linear) -> Float[Tensor, "head d_head"]:
        bias = linear.bias if linear.bias is not None else linear.weight.new_zeros(linear.out_features)
        return bias.unflatten(0, (self.n_heads, self.d_head))

    @property
    def W_Q(self) -> Float[Tensor, "head d_model d_head"]:
        """Query weights, a view."""
        return self._in_view(self.q)

    @property
    def W_K(self) -> Float[Tensor, "head d_model d_head"]:
        """Key weights, a view."""
        return self._in_view(self.k)

    @property
    def W_V(self) -> Float[Tensor, "head d_model d_head"]:
        """Value weights, a view."""
        return self._in_view(self.v)

    @property
    def W_O(self) -> Float[Tensor, "head d_head d_model"]:
        """Output weights with the layer scale; a view where there is none."""
        weight = self.o.weight.T.unflatten(0, (self.n_heads, self.d_head))
        return weight if self.scale is None else weight * self.scale

    @property
    def b_Q(self) -> Float[Tensor, "head d_head"]:
        """Query biases; zeros where the checkpoint has none."""
        return self._bias_view(self.q)

    @property
    def b_K(self) -> Float[Tensor, "head d_head"]:
        """Key biases; zeros where the checkpoint has none."""
        return self._bias_view(self.k)

    @property
    def b_V(self) -> Float[Tensor, "head d_head"]:
        """Value biases; zeros where the checkpoint has none."""
        return self._bias_view(self.v)

    @property
    def b_O(self) -> Float[Tensor, " d_model"]:
        """Output bias with the layer scale; zeros where the checkpoint has none."""
        if self.o.bias is None:
            return self.o.weight.new_zeros(self.o.out_features)
        return self.o.bias if self.scale is None else self.o.bias * self.scale


@temporary
def mixed_by(
    attentions: Iterable[Attention], mix: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
) -> Iterator[None]:
    """Replace fused attention in the context by a function of queries, keys, values [batch, head, token, d_head] and
    bias.

    It must return what fused attention would, and may measure on the way. It is not called in layers whose scores or
    pattern are watched.
    """
    before = [(attention, attention.mix) for attention in attentions]
    try:
        for attention, _ in before:
            attention.mix = mix
        yield
    finally:
        for attention, own in before:
            attention.mix = own
