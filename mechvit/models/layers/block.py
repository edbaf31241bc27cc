"""One pre-norm transformer block: attention and an MLP, each added to the residual stream."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from transformer_lens.hook_points import HookPoint
from transformers.activations import ACT2FN

from mechvit.models.config import HookedViTConfig

from .attention import Attention
from .hook_state import is_watched
from .positions import TokenLayout


class LayerNorm(nn.Module):
    """(x - mean) / scale * w + b, with scale = √(variance + eps), which `hook_scale` can read and change."""

    def __init__(self, cfg: HookedViTConfig) -> None:
        super().__init__()
        self.eps = cfg.eps
        self.w = nn.Parameter(torch.ones(cfg.d_model))
        self.b = nn.Parameter(torch.zeros(cfg.d_model))
        self.hook_scale = HookPoint()  # [batch, token, 1]
        self.hook_normalized = HookPoint()  # [batch, token, d_model], after gain and bias

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """Normalise; fused unless `hook_scale` is watched."""
        if not is_watched(self.hook_scale):
            return self.hook_normalized(F.layer_norm(x, self.w.shape, self.w, self.b, self.eps))
        centred, scale = self.statistics(x)
        return self.hook_normalized((centred / self.hook_scale(scale) * self.w + self.b).to(x.dtype))

    def statistics(self, x: Float[Tensor, "*batch d_model"]) -> tuple[Tensor, Float[Tensor, "*batch 1"]]:
        """Return x - mean and the scale, in float32 for half-precision types."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        centred = wide - wide.mean(-1, keepdim=True)
        return centred, (centred.pow(2).mean(-1, keepdim=True) + self.eps).sqrt()


class PreNorm(nn.Module):
    """LayerNorm between the embedding and the first block (CLIP), split between its two summands.

    LN(e + p) = (e - mean e) / scale * w + (p - mean p) / scale * w + b: the two summands are what the embedding and the
    positions write into the residual stream, at `hook_embed` and `hook_pos_embed`.
    """

    def __init__(self, cfg: HookedViTConfig) -> None:
        super().__init__()
        self.eps = cfg.eps
        self.w = nn.Parameter(torch.ones(cfg.d_model))
        self.b = nn.Parameter(torch.zeros(cfg.d_model))
        self.hook_scale = HookPoint()  # [batch, token, 1]

    def fused(self, embed: Tensor, positions: Tensor) -> Float[Tensor, "batch token d_model"]:
        """Compute LN(embed + positions)."""
        return F.layer_norm(embed + positions, self.w.shape, self.w, self.b, self.eps)

    def forward(
        self, embed: Float[Tensor, "batch token d_model"], positions: Float[Tensor, "batch token d_model"]
    ) -> tuple[Float[Tensor, "batch token d_model"], Float[Tensor, "batch token d_model"]]:
        """Return the two normalised summands; that of the positions contains the bias."""
        wide = torch.promote_types(embed.dtype, torch.float32)
        e, p = (x.to(wide) - x.to(wide).mean(-1, keepdim=True) for x in (embed, positions))
        scale = self.hook_scale(((e + p).pow(2).mean(-1, keepdim=True) + self.eps).sqrt())
        return (e / scale * self.w).to(embed.dtype), (p / scale * self.w + self.b).to(embed.dtype)


class MLP(nn.Module):
    """act(x W_in + b_in) W_out + b_out, or gated: (act(x W_gate + b_gate) * (x W_in + b_in)) W_out + b_out.

    `W_out` and `b_out` include the layer scale, so that they are what is written into the residual stream.
    """

    def __init__(self, cfg: HookedViTConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(cfg.d_model, cfg.d_mlp, bias=cfg.mlp_bias) if cfg.gated_mlp else None
        self.fc1 = nn.Linear(cfg.d_model, cfg.d_mlp, bias=cfg.mlp_bias)
        self.fc2 = nn.Linear(cfg.d_mlp, cfg.d_model, bias=cfg.mlp_bias)
        self.scale = nn.Parameter(torch.ones(cfg.d_model)) if cfg.layer_scale else None
        self.act = ACT2FN[cfg.act]
        self.hook_pre = HookPoint()  # [batch, token, d_mlp]
        if cfg.gated_mlp:
            self.hook_pre_linear = HookPoint()  # [batch, token, d_mlp]
        self.hook_post = HookPoint()  # [batch, token, d_mlp]

    def forward(self, x: Float[Tensor, "batch token d_model"]) -> Float[Tensor, "batch token d_model"]:
        """Apply the MLP to every token."""
        if self.gate is None:
            post = self.act(self.hook_pre(self.fc1(x)))
        else:
            post = self.act(self.hook_pre(self.gate(x))) * self.hook_pre_linear(self.fc1(x))
        out = self.fc2(self.hook_post(post))
        return out if self.scale is None else out * self.scale

    @property
    def W_gate(self) -> Float[Tensor, "d_model d_mlp"] | None:
        """Weights of the gate, a view; None where the MLP has none."""
        return None if self.gate is None else self.gate.weight.T

    @property
    def W_in(self) -> Float[Tensor, "d_model d_mlp"]:
        """Input weights, a view."""
        return self.fc1.weight.T

    @property
    def W_out(self) -> Float[Tensor, "d_mlp d_model"]:
        """Output weights with the layer scale; a view where there is none."""
        return self.fc2.weight.T if self.scale is None else self.fc2.weight.T * self.scale

    @property
    def b_in(self) -> Float[Tensor, " d_mlp"]:
        """Input bias; zeros where the checkpoint has none."""
        return self.fc1.weight.new_zeros(self.fc1.out_features) if self.fc1.bias is None else self.fc1.bias

    @property
    def b_gate(self) -> Float[Tensor, " d_mlp"] | None:
        """Bias of the gate; zeros where the checkpoint has none, None where the MLP has no gate."""
        if self.gate is None:
            return None
        return self.gate.weight.new_zeros(self.gate.out_features) if self.gate.bias is None else self.gate.bias

    @property
    def b_out(self) -> Float[Tensor, " d_model"]:
        """Output bias with the layer scale; zeros where the checkpoint has none."""
        if self.fc2.bias is None:
            return self.fc2.weight.new_zeros(self.fc2.out_features)
        return self.fc2.bias if self.scale is None else self.fc2.bias * self.scale


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

    def forward(
        self, resid: Float[Tensor, "batch token d_model"], place: TokenLayout
    ) -> Float[Tensor, "batch token d_model"]:
        """Compute the residual stream after this block."""
        pre = self.hook_resid_pre(resid)
        return self.after_attention(pre + self.hook_attn_out(self._attend(pre, place)))

    def after_attention(self, mid: Float[Tensor, "batch token d_model"]) -> Float[Tensor, "batch token d_model"]:
        """Compute the rest of the block from the residual stream after attention."""
        mid = self.hook_resid_mid(mid)
        mlp_in = mid if self.hook_mlp_in is None else self.hook_mlp_in(mid.clone())
        return self.hook_resid_post(mid + self.hook_mlp_out(self.mlp(self.ln2(mlp_in))))

    def _attend(
        self, pre: Float[Tensor, "batch token d_model"], place: TokenLayout
    ) -> Float[Tensor, "batch token d_model"]:
        if self.hook_q_input is None or self.hook_k_input is None or self.hook_v_input is None:
            x = self.ln1(pre)
            return self.attn(x, x, x, place)
        per_head = pre.unsqueeze(2).expand(-1, -1, self.attn.n_heads, -1)
        points = (self.hook_q_input, self.hook_k_input, self.hook_v_input)
        return self.attn(*(self.ln1(point(per_head.clone())) for point in points), place)
