"""transformer-lens's ActivationCache, with direct logit attribution that is exact for every kind of head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens import ActivationCache
from transformer_lens.utilities import Slice

from .head import AttentionPooler, ZeroShotHead

if TYPE_CHECKING:
    from .hooked_vit import HookedViT

Classes = str | int | Int[Tensor, "*batch"]


class ViTActivationCache(ActivationCache):
    """What `run_with_cache` returns: every method of transformer-lens's cache, on the tokens of images.

    `decompose_resid`, `stack_head_results`, `stack_neuron_results` and `get_full_resid_decomposition` sum to what they
    decompose (with the biases that the last adds), layer scale and registers included.
    """

    model: HookedViT  # type: ignore[assignment]

    def logit_attrs(
        self,
        residual_stack: Float[Tensor, "component *batch_and_token d_model"],
        tokens: Classes,
        incorrect_tokens: Classes | None = None,
        pos_slice: Any = None,
        batch_slice: Any = None,
        has_batch_dim: bool = True,
    ) -> Float[Tensor, "component *batch token"]:
        """Share a class's logit out over components and tokens, LayerNorms, pooling patterns and norms held fixed.

        Over all components and all tokens the shares sum to the logit less `logit_bias`. A token that the head
        does not read has the share 0. For the CLS of a head that reads CLS alone, pass a stack at
        `pos_slice=0` and the same `pos_slice` here.

        Args:
            residual_stack: components of the last residual stream, as `decompose_resid` gives them.
            tokens: the class: a name, an index, or one index per image.
            incorrect_tokens: if given, share out the difference to this class's logit.
            pos_slice, batch_slice: what the stack was cut to already (tokens), and is to be cut to (images).
            has_batch_dim: whether the stack has a batch dimension.
        """
        pos, batch = (s if isinstance(s, Slice) else Slice(s) for s in (pos_slice, batch_slice))
        directions = self.logit_directions(tokens)
        if incorrect_tokens is not None:
            directions = directions - self.logit_directions(incorrect_tokens)
        if self._has_token_dim():
            directions = pos.apply(directions, dim=-2)
        if has_batch_dim and len(directions) > 1:
            directions = batch.apply(directions, dim=0)
        stack = self.apply_ln_to_stack(
            residual_stack, -1, pos_slice=pos, batch_slice=batch, has_batch_dim=has_batch_dim
        )
        return (stack * directions).sum(-1)

    def logit_directions(self, tokens: Classes) -> Float[Tensor, "*batch token d_model"]:
        """Give for each token the direction whose product with its normalised residual is its share of a logit."""
        model, cfg = self.model, self.model.cfg
        to_class = self._head_input_direction(tokens)
        if isinstance(model.pooler, AttentionPooler):
            attn, pattern = model.pooler.attn, self["pooler.attn.hook_pattern"][..., 0, :]
            through = torch.einsum("hmd,hdn,...n->...hm", attn.W_V, attn.W_O, to_class)
            return self._gain(torch.einsum("...hk,...hm->...km", pattern, through))
        if cfg.pooling == "cls" and not self._has_token_dim():
            return self._gain(to_class)
        if not self._has_token_dim():
            raise ValueError(
                f"The head of this {cfg.architecture} reads {cfg.pooling}; this cache holds one token. "
                "Cache without pos_slice."
            )
        reads = to_class.unflatten(-1, (-1, cfg.d_model))  # [*batch, part of the head's input, d_model]
        n_tokens = self._reference().shape[-2]
        found = reads.new_zeros(*to_class.shape[:-1], n_tokens, cfg.d_model)
        if cfg.pooling in ("mean", "cls+mean"):
            n_patches = n_tokens - cfg.n_prefix_tokens
            found[..., cfg.n_prefix_tokens :, :] = reads[..., -1:, :] / n_patches
        if cfg.pooling != "mean":
            found[..., 0, :] = reads[..., 0, :]
        if cfg.pooling == "cls+distillation":
            found[..., 1, :] = reads[..., 1, :]
        return self._gain(found)

    def logit_bias(self, tokens: Classes) -> Float[Tensor, "*batch"]:
        """Give what no component of the residual stream adds to a class's logit: biases, and a pooling head's MLP."""
        model, cfg = self.model, self.model.cfg
        to_class = self._head_input_direction(tokens)
        ln = model.ln_final
        constant = to_class.new_zeros(cfg.d_model) if ln is None else ln.b
        if isinstance(model.pooler, AttentionPooler):
            attn = model.pooler.attn
            value = torch.einsum("m,hmd->hd", constant, attn.W_V) + attn.b_V
            constant = torch.einsum("hd,hdm->m", value, attn.W_O) + attn.b_O + self["pooler.hook_mlp_out"][..., 0, :]
        index = self._index(tokens)
        found = (constant.repeat(*[1] * (constant.dim() - 1), cfg.d_head_input // cfg.d_model) * to_class).sum(-1)
        if isinstance(model.head, ZeroShotHead):
            found = found + model.head.b_projection[index] / self["head.hook_scale"][..., 0]
        return found + model.b_U[index]

    def apply_ln_to_stack(
        self,
        residual_stack: Float[Tensor, "component *batch_and_token d_model"],
        layer: int | None = None,
        mlp_input: bool = False,
        pos_slice: Any = None,
        batch_slice: Any = None,
        has_batch_dim: bool = True,
        recompute_ln: bool = False,
    ) -> Float[Tensor, "component *batch_and_token d_model"]:
        """Normalise a stack as the LayerNorm before `layer` does, by the cached scale (transformer-lens's method).

        Before the head (`layer` None, -1 or n_layers) a model without a final LayerNorm leaves the stack as it is, and
        one that normalises after pooling divides by the pooled mean's scale.

        Raises:
            ValueError: `recompute_ln` for a model that normalises after pooling: a token has no statistics there.
        """
        cfg = self.model.cfg
        at_head = layer in (None, -1, cfg.n_layers)
        if not at_head or cfg.final_norm == "tokens":
            return super().apply_ln_to_stack(
                residual_stack, layer, mlp_input, pos_slice, batch_slice, has_batch_dim, recompute_ln
            )
        batch = batch_slice if isinstance(batch_slice, Slice) else Slice(batch_slice)
        stack = batch.apply(residual_stack, dim=1) if has_batch_dim else residual_stack
        if cfg.final_norm == "none":
            return stack
        if recompute_ln:
            raise ValueError(
                f"This {cfg.architecture} normalises the mean of its patches, not each token. "
                "Use model.unembed_residual for its logit lens."
            )
        scale = self["ln_final.hook_scale"]  # [*batch, 1, 1]
        scale = batch.apply(scale, dim=0) if self.has_batch_dim else scale
        scale = scale if stack.dim() - 1 == scale.dim() else scale[..., 0, :]
        return (stack - stack.mean(-1, keepdim=True)) / scale

    def apply_slice_to_batch_dim(self, batch_slice: Any) -> ViTActivationCache:
        """Give the cache of some of the images."""
        cut = super().apply_slice_to_batch_dim(batch_slice)
        return ViTActivationCache(cut.cache_dict, self.model, has_batch_dim=cut.has_batch_dim)

    def _head_input_direction(self, tokens: Classes) -> Float[Tensor, "*batch d_head_input"]:
        direction = self.model.W_U.T[self._index(tokens)]
        if not isinstance(self.model.head, ZeroShotHead):
            return direction
        return direction / self["head.hook_scale"]

    def _index(self, tokens: Classes) -> Tensor:
        index = self.model.to_single_token(tokens) if isinstance(tokens, str) else tokens
        return torch.as_tensor(index, device=self.model.cfg.device)

    def _gain(self, directions: Tensor) -> Tensor:
        return directions if self.model.ln_final is None else directions * self.model.ln_final.w

    def _reference(self) -> Tensor:
        return self["ln_final.hook_scale" if self.model.cfg.final_norm == "tokens" else ("resid_post", -1)]

    def _has_token_dim(self) -> bool:
        return self._reference().dim() - self.has_batch_dim == 2
