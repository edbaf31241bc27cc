"""One pre-norm transformer block: attention and an MLP, each added to the residual stream."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from transformer_lens.hook_points import HookPoint
from transformers.activations import ACT2FN

from .attention import Attention, is_watched
from .config import HookedViTConfig


class LayerNorm(nn.Module):
    """(x - mean) / scale * w + b, with scale = √(variance + eps), which `hook_scale` sees and may change."""

    def __init__(self, cfg: HookedViTConfig) -> None:
        super().__init__()
        self.eps = cfg.eps
        self.w = nn.Parameter(torch.ones(cfg.d_model))
        self.b = nn.Parameter(torch.zeros(cfg.d_model))
        self.hook_scale = HookPoint()  # [batch, token, 1]
        self.hook_normalized = HookPoint()  # [batch, token, d_model], after gain and bias

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """Normalise; fused unless something watches the scale."""
        if not is_watched(self.hook_scale):
            return self.hook_normalized(F.layer_norm(x, self.w.shape, self.w, self.b, self.eps))
        wide = x.to(torch.promote_types(x.dtype, torch.float32))  # half types are normalised in float32
        centred = wide - wide.mean(-1, keepdim=True)
        scale = self.hook_scale((centred.pow(2).mean(-1, keepdim=True) + self.eps).sqrt())
        return self.hook_normalized((centred / scale * self.w + self.b).to(x.dtype))


class MLP(nn.Module):
    """act(x W_in + b_in) W_out + b_out."""

    def __init__(self, cfg: HookedViTConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(cfg.d_model, cfg.d_mlp)
        self.fc2 = nn.Linear(cfg.d_mlp, cfg.d_model)
        self.act = ACT2FN[cfg.act]
        self.hook_pre = HookPoint()  # [batch, token, d_mlp]
        self.hook_post = HookPoint()  # [batch, token, d_mlp]

    def forward(self, x: Float[Tensor, "batch token d_model"]) -> Float[Tensor, "batch token d_model"]:
        """Apply the MLP to every token."""
        return self.fc2(self.hook_post(self.act(self.hook_pre(self.fc1(x)))))

    @property
    def W_in(self) -> Float[Tensor, "d_model d_mlp"]:
        """Input weights, a view."""
        return self.fc1.weight.T

    @property
    def W_out(self) -> Float[Tensor, "d_mlp d_model"]:
        """Output weights, a view."""
        return self.fc2.weight.T

    @property
    def b_in(self) -> Float[Tensor, " d_mlp"]:
        """Input bias."""
        return self.fc1.bias

    @property
    def b_out(self) -> Float[Tensor, " d_model"]:
        """Output bias."""
        return self.fc2.bias


class Block(nn.Module):
    """mid = pre + attention(ln1(pre)); post = mid + mlp(ln2(mid))."""

    hook_q_input: HookPoint | None
    hook_k_input: HookPoint | None
    hook_v_input: HookPoint | None
    hook_mlp_in: HookPoint | None

    def __init__(self, cfg: HookedViTConfig) -> None:
        super().__init__()
        self.ln1 = LayerNorm(cfg)
        self.attn = Attention(cfg)
        self.ln2 = LayerNorm(cfg)
        self.mlp = MLP(cfg)
        self.hook_resid_pre = HookPoint()  # [batch, token, d_model]
        self.hook_attn_out = HookPoint()  # [batch, token, d_model]
        self.hook_resid_mid = HookPoint()  # [batch, token, d_model]
        self.hook_mlp_out = HookPoint()  # [batch, token, d_model]
        self.hook_resid_post = HookPoint()  # [batch, token, d_model]
        for name in ("hook_q_input", "hook_k_input", "hook_v_input"):
            self.register_module(name, None)  # [batch, token, head, d_model], on request
        self.register_module("hook_mlp_in", None)  # [batch, token, d_model], on request

    def forward(self, resid: Float[Tensor, "batch token d_model"]) -> Float[Tensor, "batch token d_model"]:
        """Give the residual stream after this block."""
        pre = self.hook_resid_pre(resid)
        mid = self.hook_resid_mid(pre + self.hook_attn_out(self._attend(pre)))
        mlp_in = mid if self.hook_mlp_in is None else self.hook_mlp_in(mid.clone())
        return self.hook_resid_post(mid + self.hook_mlp_out(self.mlp(self.ln2(mlp_in))))

    def _attend(self, pre: Float[Tensor, "batch token d_model"]) -> Float[Tensor, "batch token d_model"]:
        if self.hook_q_input is None or self.hook_k_input is None or self.hook_v_input is None:
            x = self.ln1(pre)
            return self.attn(x, x, x)
        per_head = pre.unsqueeze(2).expand(-1, -1, self.attn.n_heads, -1)
        points = (self.hook_q_input, self.hook_k_input, self.hook_v_input)
        return self.attn(*(self.ln1(point(per_head.clone())) for point in points))
