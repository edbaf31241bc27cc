"""Models wrapped in other modules: data parallel ones, compiled ones, adapters."""

from __future__ import annotations

from typing import Any


def unwrapping(model: Any) -> str:
    """Return how to take a model out of its wrapper; "" if it is not wrapped."""
    kinds = {kind.__name__ for kind in type(model).__mro__}
    if kinds & {"DataParallel", "DistributedDataParallel"}:
        return "give the model that it wraps, its .module"
    if "OptimizedModule" in kinds:
        return "give the model as it was before torch.compile, its ._orig_mod"
    if any(kind.__module__.partition(".")[0] == "peft" for kind in type(model).__mro__):
        return "merge the adapter first, with merge_and_unload(), and give HookedViT.from_hf what that returns"
    return ""
