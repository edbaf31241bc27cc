"""Hook points that are watched, and running without any."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from transformer_lens.hook_points import HookPoint

from mechvit.models.interrupts import temporary

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def is_watched(point: nn.Module) -> bool:
    """Return whether a hook point may be read or changed by anything.

    True where the point was replaced (a spliced SAE) or has any torch hook: forward, forward-pre, backward or
    backward-pre, added through transformer-lens or not.
    """
    if type(point) is nn.Identity:  # a removed hook point
        return False
    return type(point) is not HookPoint or has_hooks(point)


def has_hooks(module: nn.Module) -> bool:
    """Return whether a module has any torch hook of its own."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


@temporary
def unwatched(modules: list[nn.Module]) -> Iterator[None]:
    """Disable the hooks at the hook points of some modules in the context."""
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
    """Remove a module's hook points for good, where no hook would ever fire."""
    for parent in list(module.modules()):
        for name, point in list(parent.named_children()):
            if type(point) is HookPoint:
                setattr(parent, name, nn.Identity())
