"""transformer-lens's ActivationCache, with exact direct logit attribution for every kind of head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens import ActivationCache
from transformer_lens.utilities import Slice

from mechvit.models.layers.head import AttentionPooler, ZeroShotHead
from mechvit.models.layers.hook_state import unwatched

if TYPE_CHECKING:
    from mechvit.models.hooked_vit import HookedViT

Classes = str | int | Int[Tensor, "..."]
"""A class by name or index, or indices: one for all images, or one per image."""


class ViTActivationCache(ActivationCache):
    """Result of `run_with_cache`: transformer-lens's cache, with all its methods, on the tokens of images.

    `decompose_resid`, `stack_head_results`, `stack_neuron_results` and `get_full_resid_decomposition` sum to what they
    decompose (with the biases that the last one adds), including layer scale and registers.
    """

    model: HookedViT  # type: ignore[assignment]

    def __init__(
        self,
        cache_dict: dict[str, Tensor],
        model: Any,
        has_batch_dim: bool = True,
        *,
        pos_slice: Any = None,
        n_tokens: int | None = None,
    ) -> None:
        """Wrap cached activations.

        Args:
            cache_dict, model, has_batch_dim: as transformer-lens's.
            pos_slice: the tokens that were cached; all when None.
            n_tokens: the number of tokens before slicing; that of the cached tensors when None.
        """
        super().__init__(cache_dict, model, has_batch_dim)
        self.pos_slice = pos_slice if isinstance(pos_slice, Slice) else Slice(pos_slice)
        if self.pos_slice.mode != "identity" and n_tokens is None:
            raise ValueError("A cache that was cut by pos_slice needs n_tokens, the number of tokens before the cut.")
        self.n_tokens = n_tokens

    def logit_attrs(
        self,
        residual_stack: Float[Tensor, "component *batch_and_token d_model"],
        tokens: Classes,
        incorrect_tokens: Classes | None = None,
        pos_slice: Any = None,
        batch_slice: Any = None,
        has_batch_dim: bool = True,
    ) -> Float[Tensor, "component ..."]:
        """Attribute a class's logit to components and tokens, with LayerNorms, pooling patterns and norms held fixed.

        Over all components and all tokens the shares sum to the logit less `logit_bias`. A token that the head does not
        read has the share 0. For the CLS of a head that reads CLS alone, pass a stack at `pos_slice=0` and the same
        `pos_slice` here.

        Args:
            residual_stack: components of the last residual stream, as `decompose_resid` returns them.
            tokens: the class: a name, an index, or one index per image of the cache.
            incorrect_tokens: if given, share out the difference to this class's logit.
            pos_slice, batch_slice: what the stack was cut to already (tokens), and is to be cut to (images).
            has_batch_dim: whether the stack has a batch dimension.

        Raises:
            ValueError: there is no head, `tokens` are not one per image, or `pos_slice` cuts a single token.
        """
        pos, batch = (s if isinstance(s, Slice) else Slice(s) for s in (pos_slice, batch_slice))
        directions = self.logit_directions(tokens)
        if incorrect_tokens is not None:
            directions = directions - self.logit_directions(incorrect_tokens)
        stack = self.apply_ln_to_stack(
            residual_stack, -1, pos_slice=pos, batch_slice=batch, has_batch_dim=has_batch_dim
        )
        directions = pos.apply(directions, dim=-2) if pos.mode != "identity" else directions
        directions = batch.apply(directions, dim=0) if self.has_batch_dim else directions
        return (stack * directions.to(stack.device)).sum(-1)

    def logit_directions(self, tokens: Classes) -> Float[Tensor, "*batch_and_token d_model"]:
        """Return, for each cached token, the direction whose product with its normalised residual is its part of a
        logit.

        A cache of one token (an int as `pos_slice`) has no token dimension here, either.
        """
        model, cfg = self.model, self.model.cfg
        to_class = self._head_input_direction(self._index(tokens))
        if isinstance(model.pooler, AttentionPooler):
            attn = model.pooler.attn
            through = torch.einsum("hmd,hdn,...n->...hm", attn.W_V, attn.W_O, to_class)
            found = torch.einsum("...hk,...hm->...km", self._pooling_pattern().to(through), through)
        else:
            n_tokens = self.n_tokens or self["resid_post", -1].shape[-2]
            reads = to_class.unflatten(-1, (-1, cfg.d_model))  # [*batch, part of the head's input, d_model]
            found = reads.new_zeros(*to_class.shape[:-1], n_tokens, cfg.d_model)
            if cfg.pooling in ("mean", "cls+mean"):
                found[..., cfg.n_prefix_tokens :, :] = reads[..., -1:, :] / (n_tokens - cfg.n_prefix_tokens)
            if cfg.pooling != "mean":
                found[..., 0, :] = reads[..., 0, :]
            if cfg.pooling == "cls+distillation":
                found[..., 1, :] = reads[..., 1, :]
        found = found if model.ln_final is None else found * model.ln_final.w
        return self.pos_slice.apply(found, dim=-2)

    def logit_bias(self, tokens: Classes) -> Float[Tensor, "*batch"]:
        """Return the part of a class's logit from outside the residual stream: biases, a pooling head's MLP."""
        model, cfg = self.model, self.model.cfg
        index = self._index(tokens)
        to_class = self._head_input_direction(index)
        constant = to_class.new_zeros(cfg.d_model) if model.ln_final is None else model.ln_final.b
        if isinstance(model.pooler, AttentionPooler):
            attn = model.pooler.attn
            value = torch.einsum("m,hmd->hd", constant, attn.W_V) + attn.b_V
            z = self._pooling_pattern().to(value).sum(-1, keepdim=True) * value  # a hook may change a row's sum from 1
            mlp_out = self["pooler.hook_mlp_out"][..., 0, :].to(z)
            constant = torch.einsum("...hd,hdm->...m", z, attn.W_O) + attn.b_O + mlp_out
        times = cfg.d_head_input // cfg.d_model
        found = (torch.cat([constant] * times, dim=-1) * to_class).sum(-1)
        if isinstance(model.head, ZeroShotHead):
            found = found + model.head.b_projection[index] / self["head.hook_scale"][..., 0].to(found)
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
    ) -> Float[Tensor, "component *own_batch_and_token d_model"]:
        """Normalise a stack as the LayerNorm before `layer` does, by the cached scale (transformer-lens's method).

        Before the head (`layer` None, -1 or n_layers) a model without a final LayerNorm leaves the stack as it is, and
        one that normalises after pooling divides by the pooled mean's scale.

        Raises:
            ValueError: `recompute_ln` for a model that normalises after pooling: a token has no statistics there;
                or `pos_slice` for a cache of one token, which has no token dimension to cut.
        """
        cfg = self.model.cfg
        pos = pos_slice if isinstance(pos_slice, Slice) else Slice(pos_slice)
        self._check_pos_slice(pos)
        at_head = layer in (None, -1, cfg.n_layers)
        if not at_head or cfg.final_norm == "tokens":
            with unwatched([] if self.model.ln_final is None else [self.model.ln_final]):
                return super().apply_ln_to_stack(
                    residual_stack, layer, mlp_input, pos, batch_slice, has_batch_dim, recompute_ln
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

    def compute_head_results(self) -> None:
        """Cache what each head writes, z W_O, where `hook_result` was not cached (transformer-lens's method)."""
        for layer, block in enumerate(self.model.blocks):
            name = f"blocks.{layer}.attn.hook_result"
            if name not in self.cache_dict:
                z, W_O = self["z", layer], block.attn.W_O
                wide = torch.promote_types(z.dtype, W_O.dtype)
                # One product: transformer-lens's sum over d_head needs d_head times the memory.
                self.cache_dict[name] = torch.einsum("...hd,hdm->...hm", z.to(wide), W_O.to(z.device, wide))

    def decompose_resid(
        self,
        layer: int | None = None,
        mlp_input: bool = False,
        mode: Literal["all", "mlp", "attn"] = "all",
        apply_ln: bool = False,
        pos_slice: Any = None,
        incl_embeds: bool = True,
        return_labels: bool = False,
    ) -> Any:
        """Stack what each layer before `layer` added to the residual stream (transformer-lens's method).

        Raises:
            ValueError: here and in the four that follow: `pos_slice` for a cache of one token, which has no token
                dimension to cut.
        """
        self._check_pos_slice(pos_slice)
        return super().decompose_resid(layer, mlp_input, mode, apply_ln, pos_slice, incl_embeds, return_labels)

    def accumulated_resid(
        self,
        layer: int | None = None,
        incl_mid: bool = False,
        apply_ln: bool = False,
        pos_slice: Any = None,
        mlp_input: bool = False,
        return_labels: bool = False,
    ) -> Any:
        """Stack the residual stream at each layer up to `layer` (transformer-lens's method)."""
        self._check_pos_slice(pos_slice)
        return super().accumulated_resid(layer, incl_mid, apply_ln, pos_slice, mlp_input, return_labels)

    def stack_head_results(
        self,
        layer: int = -1,
        return_labels: bool = False,
        incl_remainder: bool = False,
        pos_slice: Any = None,
        apply_ln: bool = False,
    ) -> Any:
        """Stack what each head before `layer` writes (transformer-lens's method)."""
        self._check_pos_slice(pos_slice)
        found = super().stack_head_results(layer, return_labels, incl_remainder, pos_slice, apply_ln)
        if layer != 0:
            return found
        like = self["hook_embed"]  # transformer-lens's empty stack is float32 on the model's device
        return (found[0].to(like), found[1]) if isinstance(found, tuple) else found.to(like)

    def stack_neuron_results(
        self,
        layer: int,
        pos_slice: Any = None,
        neuron_slice: Any = None,
        return_labels: bool = False,
        incl_remainder: bool = False,
        apply_ln: bool = False,
        project_output_onto: Tensor | None = None,
    ) -> Any:
        """Stack what each MLP neuron before `layer` writes (transformer-lens's method)."""
        self._check_pos_slice(pos_slice)
        return super().stack_neuron_results(
            layer, pos_slice, neuron_slice, return_labels, incl_remainder, apply_ln, project_output_onto
        )

    def get_full_resid_decomposition(
        self,
        layer: int | None = None,
        mlp_input: bool = False,
        expand_neurons: bool = True,
        apply_ln: bool = False,
        pos_slice: Any = None,
        return_labels: bool = False,
        project_output_onto: Tensor | None = None,
    ) -> Any:
        """Stack every head's, neuron's (or MLP's) and embedding's part, and the biases (transformer-lens's method)."""
        self._check_pos_slice(pos_slice)
        return super().get_full_resid_decomposition(
            layer, mlp_input, expand_neurons, apply_ln, pos_slice, return_labels, project_output_onto
        )

    def apply_slice_to_batch_dim(self, batch_slice: Any) -> ViTActivationCache:
        """Return the cache of some of the images."""
        cut = super().apply_slice_to_batch_dim(batch_slice)
        return ViTActivationCache(
            cut.cache_dict, self.model, cut.has_batch_dim, pos_slice=self.pos_slice, n_tokens=self.n_tokens
        )

    def _head_input_direction(self, index: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch d_head_input"]:
        direction = self.model.W_U.T[index]
        if not isinstance(self.model.head, ZeroShotHead):
            return direction
        return direction / self["head.hook_scale"].to(direction)

    def _index(self, tokens: Classes) -> Int[Tensor, "*batch"]:
        """Return one class per image, or a single class where the cache has no batch dimension."""
        index = self.model.to_single_token(tokens) if isinstance(tokens, str) else tokens
        index = torch.as_tensor(index, device=self.model.cfg.device)
        wanted = (self._batch_size(),) if self.has_batch_dim else ()
        if index.numel() != 1 and index.shape != wanted:
            raise ValueError(f"tokens must be one class, or one for each image {wanted}; got {tuple(index.shape)}.")
        return index.reshape(()).expand(wanted) if index.numel() == 1 else index

    def _check_pos_slice(self, pos_slice: Any) -> None:
        """Raise a ValueError where the token dimension was already dropped: the next dimension would be cut instead."""
        pos = pos_slice if isinstance(pos_slice, Slice) else Slice(pos_slice)
        if self.pos_slice.mode == "int" and pos.mode != "identity":
            raise ValueError(f"This cache holds token {self.pos_slice.slice} alone. Leave pos_slice out.")

    def _pooling_pattern(self) -> Float[Tensor, "*batch head token"]:
        return self["pooler.attn.hook_pattern"][..., 0, :]
