"""HookedViT: a Hugging Face vision transformer whose every intermediate can be read, edited and differentiated."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformer_lens import ActivationCache
from transformer_lens.hook_points import HookPoint
from transformer_lens.HookedRootModule import HookedRootModule

from .attention import is_watched
from .block import Block, LayerNorm
from .caching import NamesFilter, caching_hooks
from .checks import check_head_tokens, check_input, check_reached, check_target, no_head
from .config import HookedViTConfig
from .embedding import Embedding, Pooler

ReturnType = Literal["logits", "loss", "both"] | None


class HookedViT(HookedRootModule):
    """A plain vision transformer with transformer-lens's hook points.

    Build it with `from_pretrained` or `from_hf`. Attention runs fused (SDPA) in every layer whose
    `hook_attn_scores` and `hook_pattern` nothing watches, and with an explicit softmax in the others; attaching or
    removing a hook switches the layer at its next call. There is no dropout: training mode is refused for
    checkpoints that ask for some.

    Attributes:
        cfg: the shape, device and dtype.
        hf_config: the Hugging Face config that `to_hf` gives back.
        image_processor: the checkpoint's own, on PIL and numpy; None where it has none.
    """

    def __init__(self, cfg: HookedViTConfig, hf_config: Any, image_processor: Any = None) -> None:
        super().__init__()
        self.cfg, self.hf_config, self.image_processor = cfg, hf_config, image_processor
        self.embed = Embedding(cfg)
        self.hook_embed = HookPoint()  # [batch, token, d_model]: CLS and patches
        self.hook_pos_embed = HookPoint()  # [batch, token, d_model]
        self.blocks = cast(Sequence[Block], nn.ModuleList([Block(cfg) for _ in range(cfg.n_layers)]))
        self.ln_final = LayerNorm(cfg)
        self.head, self.pooler = None, None
        if cfg.n_classes:
            self.hook_head_input = HookPoint()  # [batch, d_model]
            self.head = nn.Linear(cfg.d_model, cfg.n_classes)
            self.hook_logits = HookPoint()  # [batch, class]
        elif cfg.pooler_size:
            self.pooler = Pooler(cfg)
        self.to(device=cfg.device, dtype=cfg.dtype)
        self.eval()
        self.setup()

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub_id: str | os.PathLike[str],
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        fold_ln: bool = False,
    ) -> HookedViT:
        """Load a checkpoint's folder, or a model of the Hugging Face hub, with its image processor.

        Args:
            path_or_hub_id: a folder that `save_pretrained` wrote (safetensors), or a hub id.
            device: where to; CUDA where there is one, else the CPU, when None.
            dtype: the checkpoint's own when None.
            fold_ln: fold every LayerNorm's gain and bias into the weights that read it (see `fold_layer_norms`).

        Raises:
            ValueError: nothing is there, it is of another kind (named before any weight is read), or its weights are
                missing, left over or mis-shaped (each named).
        """
        from .loading import load_pretrained
        from .processing import fold_layer_norms

        model = load_pretrained(path_or_hub_id, device, dtype)
        return fold_layer_norms(model) if fold_ln else model

    @classmethod
    def from_hf(cls, hf_model: Any, image_processor: Any = None) -> HookedViT:
        """Copy a loaded Hugging Face model, which stays as it is.

        Raises:
            ValueError: it is of another kind, or its weights do not fit its config.
        """
        from .loading import from_hf

        return from_hf(hf_model, image_processor)

    def to_hf(self) -> Any:
        """Give an ordinary Hugging Face model of the same class with the same weights, bit for bit."""
        from .loading import to_hf

        return to_hf(self)

    def forward(
        self,
        pixel_values: Float[Tensor, "batch channel height width"],
        return_type: ReturnType = "logits",
        *,
        labels: Int[Tensor, " batch"] | None = None,
        stop_at_layer: int | None = None,
        prepend_bos: bool | None = None,
    ) -> Any:
        """Run the model on normalised pixels.

        Args:
            pixel_values: what the image processor gives.
            return_type: "logits" [batch, class] (a bare encoder gives its last hidden state [batch, token, d_model]),
                "loss" (mean cross-entropy, nats), "both" (logits, loss), or None to return nothing.
            labels: the right classes, for the loss.
            stop_at_layer: return the residual stream that enters block L, [batch, token, d_model], and run no
                further; n_layers gives the last one, negative values count from the end.
            prepend_bos: ignored; language-model tools pass it.

        Raises:
            ValueError: the pixels do not fit, or a loss is asked for that cannot be computed.
        """
        check_input(self.cfg, pixel_values, return_type, labels, stop_at_layer)
        embed, positions = self.embed(pixel_values.to(self.cfg.dtype))
        if is_watched(self.hook_pos_embed):
            positions = positions.clone()  # a hook may write into it, and it is the parameter itself
        resid = self.hook_embed(embed) + self.hook_pos_embed(positions)
        for block in self.blocks[:stop_at_layer]:
            resid = block(resid)
        if stop_at_layer is not None:
            return resid
        final = self.ln_final(resid)
        if self.head is None:
            return final if return_type == "logits" else None
        logits = self.hook_logits(self.head(self.hook_head_input(final[:, 0])))
        if return_type in ("logits", None):
            return logits if return_type else None
        assert labels is not None
        loss = F.cross_entropy(logits, labels)
        return (logits, loss) if return_type == "both" else loss

    @property
    def head_tokens(self) -> slice:
        """The tokens that the head reads: CLS."""
        return slice(0, 1)

    def unembed_residual(
        self, resid: Float[Tensor, "batch head_token d_model"], apply_ln: bool = True
    ) -> Float[Tensor, "batch class"]:
        """Apply the model's own head to a residual stream at `head_tokens`: the logit lens. No hook fires.

        Args:
            resid: any layer's residual stream at `head_tokens`.
            apply_ln: normalise by `ln_final` first, as the model does; the bare head when False.

        Raises:
            ValueError: the model has no classification head, or `resid` holds other tokens.
        """
        head = self._require_head()
        check_head_tokens(resid)
        if apply_ln:
            ln = self.ln_final
            resid = F.layer_norm(resid, ln.w.shape, ln.w, ln.b, ln.eps)
        return head(resid[:, 0])

    def run_with_cache(  # type: ignore[override]
        self,
        pixel_values: Float[Tensor, "batch channel height width"],
        return_type: ReturnType = "logits",
        *,
        names_filter: NamesFilter = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        pos_slice: Any = None,
        remove_batch_dim: bool = False,
        incl_bwd: bool = False,
        return_cache_object: bool = True,
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
        **forward_kwargs: Any,
    ) -> tuple[Any, Any]:
        """Run the model and keep what passes the hook points.

        Args:
            pixel_values, return_type, **forward_kwargs: as `forward`.
            names_filter: a hook point's name, several, or a predicate; all when None.
            device, dtype: of the cached tensors; as computed when None.
            pos_slice: the tokens to keep, as transformer-lens's `Slice`: an int drops the dimension, (a, b) is a range.
            remove_batch_dim: drop the batch dimension (one image).
            incl_bwd: run backward from the loss too, and cache gradients as NAME_grad.
            return_cache_object: an `ActivationCache`, or a plain dict when False.

        Raises:
            ValueError: an unknown name, a name that `stop_at_layer` leaves out, or `incl_bwd` without a loss.
        """
        stop = forward_kwargs.get("stop_at_layer")
        check_input(self.cfg, pixel_values, return_type, forward_kwargs.get("labels"), stop, incl_bwd)
        cache, fwd, bwd = self.get_caching_hooks(
            names_filter, incl_bwd, device, remove_batch_dim, pos_slice=pos_slice, dtype=dtype
        )
        if names_filter is not None and not callable(names_filter):
            check_reached([name for name, _ in fwd], self.hook_dict, stop, self.cfg.n_layers)
        with self.hooks(fwd, bwd, reset_hooks_end, clear_contexts):
            out = self(pixel_values, return_type, **forward_kwargs)
            if incl_bwd:
                out.backward()
        return out, ActivationCache(cache, self, has_batch_dim=not remove_batch_dim) if return_cache_object else cache

    def run_with_hooks(
        self, *args: Any, fwd_hooks: Sequence[tuple] = (), stop_at_layer: int | None = None, **kwargs: Any
    ) -> Any:
        """Run with hooks for this run alone; a name beyond `stop_at_layer`, or unknown, raises a ValueError."""
        check_reached([name for name, _ in fwd_hooks], self.hook_dict, stop_at_layer, self.cfg.n_layers)
        return super().run_with_hooks(*args, fwd_hooks=list(fwd_hooks), stop_at_layer=stop_at_layer, **kwargs)

    def get_caching_hooks(self, *args: Any, **kwargs: Any) -> tuple[dict[str, Tensor], list[Any], list[Any]]:
        """Make the hooks that `run_with_cache` uses; see `caching.caching_hooks`."""
        return caching_hooks(self.hook_dict, *args, **kwargs)

    def add_caching_hooks(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Attach the hooks of `get_caching_hooks` until `reset_hooks`, and return the dict that they fill."""
        cache, fwd, bwd = self.get_caching_hooks(*args, **kwargs)
        for name, hook, direction in [(*pair, "fwd") for pair in fwd] + [(*pair, "bwd") for pair in bwd]:
            self.add_hook(name, hook, direction)
        return cache

    def add_hook(self, name: str | Callable[[str], bool], *args: Any, **kwargs: Any) -> None:
        """Attach a hook as transformer-lens does; a name that is no hook point raises a ValueError."""
        check_target(name, self.hook_dict)
        super().add_hook(name, *args, **kwargs)

    def _enable_hook(self, name: str | Callable[[str], bool], hook: Callable, dir: Any) -> None:
        check_target(name, self.hook_dict)
        super()._enable_hook(name, hook, dir)

    def set_use_attn_result(self, use: bool) -> None:
        """Add (or remove) `attn.hook_result`, each head's own output: [batch, token, head, d_model]."""
        self._request([(block.attn, "hook_result") for block in self.blocks], use)

    def set_use_split_qkv_input(self, use: bool) -> None:
        """Add (or remove) `hook_q_input` and siblings: a copy of the residual stream for each head's q, k and v."""
        names = ("hook_q_input", "hook_k_input", "hook_v_input")
        self._request([(block, name) for block in self.blocks for name in names], use)

    def set_use_hook_mlp_in(self, use: bool) -> None:
        """Add (or remove) `hook_mlp_in`: a copy of the residual stream for the MLP alone."""
        self._request([(block, "hook_mlp_in") for block in self.blocks], use)

    def _request(self, points: list[tuple[nn.Module, str]], use: bool) -> None:
        for module, name in points:
            if (getattr(module, name) is None) == use:
                setattr(module, name, HookPoint() if use else None)
        self.setup()

    @property
    def W_U(self) -> Float[Tensor, "d_model class"]:
        """The head's weights, a view."""
        return self._require_head().weight.T

    @property
    def b_U(self) -> Float[Tensor, " class"]:
        """The head's bias."""
        return self._require_head().bias

    def to_single_token(self, label: str) -> int:
        """Give the index of a class by its name in `cfg.id2label`."""
        for index, name in self.cfg.id2label.items():
            if name == label:
                return index
        raise ValueError(f"label must be one of the {self.cfg.n_classes} names in cfg.id2label; got {label!r}.")

    def tokens_to_residual_directions(
        self, tokens: str | int | Int[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch d_model"]:
        """Give the residual direction of each class: its column of W_U times ln_final's gain.

        With the gain, `ActivationCache.logit_attrs` is exact: over all components it sums to the class's logit
        minus (ln_final.b @ W_U + b_U). transformer-lens's own directions leave the gain out.
        """
        index = self.to_single_token(tokens) if isinstance(tokens, str) else tokens
        index = torch.as_tensor(index, device=self.cfg.device)
        return self._require_head().weight[index] * self.ln_final.w

    def accumulated_bias(
        self, layer: int, mlp_input: bool = False, include_mlp_biases: bool = True
    ) -> Float[Tensor, " d_model"]:
        """Sum the biases that the blocks before `layer` (and, with `mlp_input`, its attention) write."""
        if not 0 <= layer <= self.cfg.n_layers - mlp_input:
            raise ValueError(f"layer must lie within 0..{self.cfg.n_layers - mlp_input}; got {layer}.")
        biases = [torch.zeros_like(self.ln_final.b), *(block.attn.b_O for block in self.blocks[: layer + mlp_input])]
        biases += [block.mlp.b_out for block in self.blocks[:layer] if include_mlp_biases]
        return torch.stack(biases).sum(0)

    def train(self, mode: bool = True) -> HookedViT:
        """Switch training mode, which changes nothing: dropout is not applied, and is refused if asked for."""
        if mode and self.cfg.dropout:
            raise ValueError(
                f"HookedViT trains without dropout only; this checkpoint's config asks for {self.cfg.dropout}. "
                "Set its dropout rates to 0 first."
            )
        return super().train(mode)

    def _apply(self, fn: Callable, recurse: bool = True) -> HookedViT:
        super()._apply(fn, recurse)
        self.cfg = dataclasses.replace(self.cfg, device=self.ln_final.w.device, dtype=self.ln_final.w.dtype)
        return self

    def _require_head(self) -> nn.Linear:
        if self.head is None:
            raise ValueError(no_head(self.cfg))
        return self.head
