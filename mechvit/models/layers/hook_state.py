"""Whether anything watches a hook point, and how to run without any."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from transformer_lens.hook_points import HookPoint

from mechvit.models.interrupts import temporary

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def is_watched(point: nn.Module) -> bool:
    """Tell whether anything may read or change what passes a hook point.

    True where the point was replaced (a spliced SAE) or has any torch hook: forward, forward-pre, backward or
    backward-pre, added through transformer-lens or not.
    """
    if type(point) is nn.Identity:  # a hook point that was taken out
        return False
    return type(point) is not HookPoint or has_hooks(point)


def has_hooks(module: nn.Module) -> bool:
    """Tell whether a module has any torch hook of its own."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


@temporary
def unwatched(modules: list[nn.Module]) -> Iterator[None]:
    """Let no hook fire at the hook points of some modules."""
    points = [point for module in modules for point in module.modules() if type(point) is HookPoint]
    before = [(point, kind, getattr(point, kind)) for point in points for kind in _HOOKS]
    try:
        for point, kind, hooks in before:
            setattr(point, kind, type(hooks)())
        yield
    finally:
        for point, kind, hooks in before:
            setattr(point, kind, hooks)


def without_hook_points(module: nn.Module) -> None:
    """Take a module's hook points out for good: where none would ever fire there must be none."""
    for parent in list(module.modules()):
        for name, point in list(parent.named_children()):
            if type(point) is HookPoint:
                setattr(parent, name, nn.Identity())
