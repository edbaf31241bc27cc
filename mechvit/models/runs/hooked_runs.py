"""Running a HookedViT with hooks and with a cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint
from transformer_lens.HookedRootModule import HookedRootModule

from mechvit.models.checkpoints.checks import check_backward, check_input, check_reached, check_target
from mechvit.models.config import HookedViTConfig
from mechvit.models.interrupts import sigint_held, temporary
from mechvit.models.layers.block import Block

from .activation_cache import ViTActivationCache
from .cache_hooks import NamesFilter, caching_hooks
from .image_tokens import ImageTokens, as_pixels

if TYPE_CHECKING:
    from mechvit.models.hooked_vit import HookedViT

    from .compiled_cache import CompiledCache


class HookedRuns(HookedRootModule):
    """transformer-lens's methods for running a model, for images; names are checked before anything is computed."""

    cfg: HookedViTConfig
    blocks: Sequence[Block]

    def run_with_cache(  # type: ignore[override]
        self,
        pixel_values: Float[Tensor, "batch channel height width"] | Float[Tensor, "batch token d_model"] | ImageTokens,
        return_type: Any = "logits",
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
        """Run the model and cache the values at hook points.

        The cached tensor is not a copy, as in transformer-lens: a hook of the same run that changes it in place
        (`x.mul_(2)`) changes the cached value at every point that passes on the same tensor. Return a new tensor
        instead.

        Args:
            pixel_values, return_type, **forward_kwargs: as `forward`.
            names_filter: a hook point's name, several, or a predicate; all when None.
            device, dtype: those of the cached tensors; as computed when None.
            pos_slice: the tokens to keep, as transformer-lens's `Slice`: an int drops the dimension, (a, b) is a range.
            remove_batch_dim: drop the batch dimension (one image).
            incl_bwd: run backward from the loss too, and cache gradients as NAME_grad. Of a point that is called more
                than once a pass (ln1 after `set_use_split_qkv_input`) the last call of either pass is kept: the value
                of v's, the gradient of q's.
            return_cache_object: a `ViTActivationCache`, or a plain dict when False.

        Raises:
            ValueError: an unknown name, one that `start_at_layer` or `stop_at_layer` leaves out, or `incl_bwd` without
                a loss, without gradients (torch.no_grad) or of a frozen model.
        """
        start, stop = forward_kwargs.get("start_at_layer"), forward_kwargs.get("stop_at_layer")
        given = as_pixels(pixel_values)
        check_input(
            *(self.cfg, given, return_type, forward_kwargs.get("labels"), stop, start),
            incl_bwd=incl_bwd,
            interpolate_pos_encoding=forward_kwargs.get("interpolate_pos_encoding", False),
        )  # `forward` checks for values that are not finite
        if incl_bwd:
            check_backward(self, given)
        cache, fwd, bwd = self.get_caching_hooks(
            names_filter, incl_bwd, device, remove_batch_dim, pos_slice=pos_slice, dtype=dtype
        )
        if names_filter is not None and not callable(names_filter):
            check_reached([name for name, _ in fwd], self.hook_dict, stop, self.cfg.n_layers, start)
        with self.hooks(fwd, bwd, reset_hooks_end, clear_contexts):
            out = self(pixel_values, return_type, **forward_kwargs)
            if incl_bwd:
                out.backward()
        if not return_cache_object:
            return out, cache
        n_patches = math.prod(side // self.cfg.patch_size for side in given.shape[2:])
        n_tokens = self.cfg.n_prefix_tokens + n_patches if start is None else self.cfg.n_tokens
        return out, ViTActivationCache(cache, self, not remove_batch_dim, pos_slice=pos_slice, n_tokens=n_tokens)

    def run_with_hooks(
        self, *args: Any, fwd_hooks: Sequence[tuple[Any, ...]] = (), stop_at_layer: int | None = None, **kwargs: Any
    ) -> Any:
        """Run with hooks attached for this run only.

        Raises:
            ValueError: an unknown hook name, or one that `start_at_layer` or `stop_at_layer` leaves out.
        """
        names, start = [name for name, _ in fwd_hooks], kwargs.get("start_at_layer")
        check_reached(names, self.hook_dict, stop_at_layer, self.cfg.n_layers, start)
        return super().run_with_hooks(*args, fwd_hooks=list(fwd_hooks), stop_at_layer=stop_at_layer, **kwargs)

    def get_caching_hooks(self, *args: Any, **kwargs: Any) -> tuple[dict[str, Tensor], list[Any], list[Any]]:
        """Return the hooks that `run_with_cache` uses; see `cache_hooks.caching_hooks`."""
        pooled = ("ln_final.",) if self.cfg.final_norm == "pooled" else ()
        kwargs["without_tokens"] = ("pooler.", "head.", *pooled)
        return caching_hooks(self.hook_dict, *args, **kwargs)

    def add_caching_hooks(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Attach the hooks of `get_caching_hooks` until `reset_hooks`, and return the dict that they fill."""
        cache, fwd, bwd = self.get_caching_hooks(*args, **kwargs)
        with sigint_held():
            for name, hook, direction in [(*pair, "fwd") for pair in fwd] + [(*pair, "bwd") for pair in bwd]:
                self.add_hook(name, hook, direction)
        return cache

    @temporary
    def hooks(  # type: ignore[override]
        self,
        fwd_hooks: Sequence[tuple[Any, ...]] = (),
        bwd_hooks: Sequence[tuple[Any, ...]] = (),
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
    ) -> Iterator[Any]:
        """Attach hooks in the context, as transformer-lens does; Ctrl-C is deferred while hooks change."""
        with super().hooks(list(fwd_hooks), list(bwd_hooks), reset_hooks_end, clear_contexts):
            yield self

    def reset_hooks(self, *args: Any, **kwargs: Any) -> None:
        """Remove hooks as transformer-lens does; Ctrl-C is deferred meanwhile."""
        with sigint_held():
            super().reset_hooks(*args, **kwargs)

    def add_hook(self, name: str | Callable[[str], bool], *args: Any, **kwargs: Any) -> None:
        """Attach a hook as transformer-lens does; raise a ValueError for an unknown name."""
        check_target(name, self.hook_dict)
        with sigint_held():
            super().add_hook(name, *args, **kwargs)

    def _enable_hook(self, name: str | Callable[[str], bool], hook: Callable[..., Any], dir: Any) -> None:
        check_target(name, self.hook_dict)
        super()._enable_hook(name, hook, dir)

    def remove_all_hook_fns(
        self, direction: Any = "both", including_permanent: bool = False, level: Any = None
    ) -> None:
        """Remove hooks as transformer-lens does, skipping points without any (saves 1 ms per 100 points)."""
        with sigint_held():
            for point in self.hook_points():
                if point.fwd_hooks or point.bwd_hooks:
                    point.remove_hooks(direction, including_permanent=including_permanent, level=level)

    def compile_cache(
        self,
        names: str | Sequence[str],
        *,
        stop_at_layer: int | None = None,
        batch_size: int,
        dtype: torch.dtype | None = None,
        backend: str | Callable[..., Any] = "inductor",
    ) -> CompiledCache:
        """Compile the forward pass and its cache into one graph: a CUDA graph on CUDA.

        The result computes the same numbers as `run_with_cache` up to the compiler's rounding, without gradients. It
        shares this model's weights, unless `dtype` asks for others. Where compiling fails a warning says why, and it
        runs uncompiled.

        Args:
            names: hook points to keep.
            stop_at_layer: as in `forward`.
            batch_size: images per call; fewer run uncompiled.
            dtype: dtype of weights and activations; the model's own when None.
            backend: backend of `torch.compile`.

        Raises:
            ValueError: an unknown name, one that `stop_at_layer` leaves out, or hooks and SAEs that are attached.
        """
        from .compiled_cache import compile_cache

        return compile_cache(
            cast("HookedViT", self),
            names,
            stop_at_layer=stop_at_layer,
            batch_size=batch_size,
            dtype=dtype,
            backend=backend,
        )

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
        with sigint_held():
            for module, name in points:
                if (getattr(module, name) is None) == use:
                    setattr(module, name, HookPoint() if use else None)
            self.setup()
