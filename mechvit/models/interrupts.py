"""Deferred Ctrl-C while a model is being changed, and temporary changes that are always undone.

Python raises KeyboardInterrupt between any two instructions of the main thread. Raised while hooks are being attached
or removed, it would leave the model in neither state.
"""

from __future__ import annotations

import functools
import signal
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import Any, Generic, ParamSpec, TypeVar, cast

import torch

Arguments = ParamSpec("Arguments")
Given = TypeVar("Given")


class sigint_held:
    """Context that defers SIGINT until the block ends; the previous handler is called then.

    For short sections that must run as a whole. Nothing is deferred where no Python function handles SIGINT (it is
    ignored, or ends the process), or outside the main thread, which alone is interrupted. In nested blocks the
    outermost one decides. A handler that was installed meanwhile stays.
    """

    def __init__(self) -> None:
        self._before: Callable[[int, FrameType | None], Any] | None = None
        self._holds, self._arrived = True, False

    def __enter__(self) -> None:
        before: Any = signal.getsignal(signal.SIGINT)
        if not callable(before) or (isinstance(before, sigint_held) and before._holds):
            return
        self._before = before
        try:
            signal.signal(signal.SIGINT, self)
        except ValueError:  # not the main thread
            self._before = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Remember the signal, or pass it on where this handler was restored after the block."""
        if self._holds:
            self._arrived = True
        elif self._before is not None:
            self._before(number, frame)

    def __exit__(self, *raised: object) -> None:
        if self._before is None:
            return
        current: Any = signal.getsignal(signal.SIGINT)
        if current is self:
            signal.signal(signal.SIGINT, self._before)
        self._holds = False
        if self._arrived:
            now = signal.getsignal(signal.SIGINT)
            now(signal.SIGINT, None) if callable(now) else signal.raise_signal(signal.SIGINT)


class _Exit:
    """`__exit__` of `Temporary`, which also undoes the change if it is never called.

    An interrupt may arrive after a `with` block has ended and before `__exit__` begins. The block's frame then drops
    the `__exit__` that it holds alone, and deleting it undoes the change.
    """

    def __get__(self, context: Temporary[Any] | None, owner: type[Temporary[Any]]) -> Callable[..., bool | None]:
        if context is None:
            return owner._leave
        leave = functools.partial(owner._leave, context)
        context._net = weakref.ref(leave, context._undo)
        return leave


class Temporary(Generic[Given]):
    """Single-use context that a function made with `temporary` returns."""

    __exit__ = _Exit()

    def __init__(self, change: Any) -> None:
        self._change, self._net = change, cast(Any, None)

    def __enter__(self) -> Given:
        try:
            with sigint_held():
                return self._change.__enter__()
        except BaseException:
            self._undo()
            raise

    def _leave(self, *raised: Any) -> bool | None:
        with sigint_held():
            self._net = None
            return self._change.__exit__(*raised)

    def _undo(self, _: object = None) -> None:
        with sigint_held():
            self._change.gen.close()


def temporary(
    function: Callable[Arguments, Iterator[Given]],
) -> Callable[Arguments, AbstractContextManager[Given]]:
    """Turn a generator function into a context manager, as `contextlib.contextmanager` does, whose set-up and tear-down
    Ctrl-C cannot interrupt.

    SIGINT is deferred (`sigint_held`) up to the generator's `yield` and again from there to its end, not in between.
    The generator undoes its change in a `finally`, so that whatever is raised in the block undoes it, too.
    """
    make = contextmanager(function)

    @functools.wraps(function)
    def made(*args: Arguments.args, **kwargs: Arguments.kwargs) -> AbstractContextManager[Given]:
        return cast("AbstractContextManager[Given]", Temporary(make(*args, **kwargs)))

    return made


@temporary
def random_numbers_kept(devices: Sequence[int | torch.device] = ()) -> Iterator[None]:
    """Restore torch's random state (the CPU's, and that of the given GPUs) when the block ends."""
    with torch.random.fork_rng(devices=devices):
        yield
