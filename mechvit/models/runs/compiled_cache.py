"""A HookedViT's truncated forward pass and its cached points as one compiled graph."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from mechvit.models.checkpoints.checks import check_input, check_reached
from mechvit.models.layers.hook_state import is_watched, without_hook_points

from .cache_hooks import names_to_cache

if TYPE_CHECKING:
    from mechvit.models.hooked_vit import HookedViT


class Tap(nn.Module):
    """Hook point of a compiled model that stores its value."""

    def __init__(self, kept: dict[str, Tensor], name: str) -> None:
        super().__init__()
        self.kept, self.name = kept, name

    def forward(self, x: Tensor) -> Tensor:
        self.kept[self.name] = x
        return x


Backend = str | Callable[..., Any]
"""A compiler of `torch.compile`, by name or as a function."""


class CompiledCache:
    """Result of `HookedViT.compile_cache`: called on pixels, it returns the named activations.

    The graph is compiled at the first call; where that fails a warning says why, and every call runs uncompiled. Later
    failures, and lack of memory, are raised. On CUDA it is replayed as a CUDA graph, and copies are returned. A batch
    smaller than `batch_size` (the last of an epoch) runs uncompiled.

    Attributes:
        names: the hook points, in the order in which a pass reaches them.
        compiled: False once compiling failed.
    """

    def __init__(
        self, model: HookedViT, names: Sequence[str], stop_at_layer: int | None, batch_size: int, backend: Backend
    ) -> None:
        self.names, self.compiled, self._ran = tuple(names), True, False
        self._model, self._stop, self._batch_size = model, stop_at_layer, batch_size
        self._kept: dict[str, Tensor] = {}
        for name in self.names:
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, Tap(self._kept, name))
        without_hook_points(model)
        self._graphs = model.cfg.device.type == "cuda" and backend == "inductor"
        mode = "reduce-overhead" if self._graphs else None
        run = MethodType(_with_code_of_its_own(CompiledCache._run), self)
        self._run_compiled = torch.compile(run, backend=backend, mode=mode, fullgraph=True, dynamic=False)

    def _run(self, pixels: Tensor) -> dict[str, Tensor]:
        self._model(pixels, None, stop_at_layer=self._stop)
        # The dict is emptied again: the graph would be recompiled for a dict with other keys.
        return {name: self._kept.pop(name) for name in self.names}

    @torch.no_grad()
    def __call__(self, pixel_values: Float[Tensor, "batch channel height width"]) -> dict[str, Tensor]:
        """Return the activations of at most `batch_size` images, which are moved to the model's device.

        Raises:
            ValueError: more images, or pixels that do not fit the model.
        """
        check_input(self._model.cfg, pixel_values, None, None, self._stop)
        if len(pixel_values) > self._batch_size:
            raise ValueError(
                f"This was compiled for batches of {self._batch_size} images; got {len(pixel_values)}. Cut the batch, "
                "or compile for a larger batch_size."
            )
        pixel_values = pixel_values.to(self._model.cfg.device)
        if self.compiled and len(pixel_values) == self._batch_size:
            try:
                found = self._compiled_call(pixel_values)
            except Exception as error:  # compilers raise exceptions of many kinds
                if self._ran or isinstance(getattr(error, "inner_exception", error), torch.OutOfMemoryError):
                    raise
                self.compiled = False
                reason = " ".join([f"{type(error).__name__}:", *str(error).split()])[:200]
                warnings.warn(f"the forward pass runs uncompiled, since compiling failed ({reason})", stacklevel=3)
            else:
                self._ran = True
                return found
        return self._run(pixel_values)

    def _compiled_call(self, pixels: Tensor) -> dict[str, Tensor]:
        if not self._graphs:
            return self._run_compiled(pixels)
        torch.compiler.cudagraph_mark_step_begin()
        return {name: tensor.clone() for name, tensor in self._run_compiled(pixels).items()}


def _with_code_of_its_own(function: Any) -> FunctionType:
    """Copy a function with its own code object, of each of which torch.compile compiles only eight graphs."""
    code = function.__code__.replace()
    return FunctionType(code, function.__globals__, function.__name__, closure=function.__closure__)


def compile_cache(
    model: HookedViT,
    names: str | Sequence[str],
    *,
    stop_at_layer: int | None = None,
    batch_size: int,
    dtype: torch.dtype | None = None,
    backend: Backend = "inductor",
) -> CompiledCache:
    """Compile the forward pass up to a layer together with its cache; see `HookedViT.compile_cache`."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1; got {batch_size}.")
    chosen = names_to_cache([names] if isinstance(names, str) else list(names), model.hook_dict)
    check_reached(chosen, model.hook_dict, stop_at_layer, model.cfg.n_layers)
    watched = [name for name, point in model.named_modules() if isinstance(point, HookPoint) and is_watched(point)]
    if watched or any(type(point) is not HookPoint for point in model.hook_dict.values()):
        raise ValueError(
            f"compile_cache does not run hooks or spliced SAEs, and the model has {watched[:3] or 'a spliced SAE'}. "
            "Remove it (model.reset_hooks()), or use run_with_cache."
        )
    same = dtype in (None, model.cfg.dtype)
    shared = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]} if same else {}
    twin = copy.deepcopy(model, shared)
    return CompiledCache(twin if same else twin.to(dtype), chosen, stop_at_layer, batch_size, backend)
