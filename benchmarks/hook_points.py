"""Cost of unused hook points: the same model with and without each of them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from unittest import mock

from timing import Contender, Timing, time_interleaved

if TYPE_CHECKING:
    from torch import Tensor
    from transformer_lens.hook_points import HookPoint

    from mechvit import HookedViT

AS_IS, BYPASSED, POINTS, NOTHING = "points as they are", "every point bypassed", "the points alone", "the loop alone"


@contextlib.contextmanager
def bypassed(model: HookedViT) -> Iterator[None]:
    """Answer every hook point's call, and every question whether it is watched, without running it.

    A function in the parent's `__dict__` comes before the module of the same name, so that neither the module's
    look-up nor its call happens. What stays is one call of a function that returns its argument (0.05 microseconds).
    """
    parents = {name: model.get_submodule(name.rpartition(".")[0]) for name in model.hook_dict}
    asking = [module for name, module in sys.modules.items() if name.startswith("mechvit.models.")]
    with contextlib.ExitStack() as stack:
        for module in asking:
            if "is_watched" in vars(module):
                stack.enter_context(mock.patch.object(module, "is_watched", _unwatched))
        try:
            for name, parent in parents.items():
                vars(parent)[name.rpartition(".")[2]] = _same
            yield
        finally:
            for name, parent in parents.items():
                vars(parent).pop(name.rpartition(".")[2], None)


def _same(x: Any) -> Any:
    return x


def _unwatched(point: Any) -> bool:
    return False


def reached(model: HookedViT, pixels: Tensor) -> list[HookPoint]:
    """List the hook points that a forward pass calls when nothing watches, in the order of the calls."""
    from transformer_lens.hook_points import HookPoint

    called: list[HookPoint] = []

    def forward(point: HookPoint, x: Tensor) -> Tensor:
        called.append(point)
        return x

    with mock.patch.object(HookPoint, "forward", forward):
        model(pixels)
    return called


def time_hook_points(model: HookedViT, pixels: Tensor, **settings: Any) -> tuple[Timing, int]:
    """Time the model with and without its hook points, and the points alone.

    The points alone are as many calls as a forward pass makes, in a loop; without the looking-up and the asking that
    the first difference holds too.

    Args:
        settings: of `time_interleaved`.

    Returns:
        The timing, and the number of calls in one forward pass.

    Raises:
        ValueError: the bypass changes the output, or the model calls no point.
    """
    import torch

    points = reached(model, pixels)
    with bypassed(model):
        without, left = model(pixels), reached(model, pixels)
    if not points or left or not torch.equal(model(pixels), without):
        raise ValueError(
            f"The bypass must pass by every hook point and keep the logits; {len(left)} of {len(points)} points were "
            "still called, or the logits changed. Mend `bypassed`."
        )
    x = torch.zeros(1)
    contenders = (
        Contender(name=AS_IS, call=lambda: model(pixels)),
        Contender(name=BYPASSED, call=lambda: model(pixels), context=lambda: bypassed(model)),
        Contender(name=POINTS, call=_calling(list(points), x)),
        Contender(name=NOTHING, call=_calling([_same] * len(points), x)),
    )
    return time_interleaved(contenders, **settings), len(points)


def _calling(functions: list[Callable[[Tensor], Tensor]], x: Tensor) -> Callable[[], None]:
    def call() -> None:
        for function in functions:
            function(x)

    return call
