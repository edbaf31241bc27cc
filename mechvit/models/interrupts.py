"""Ctrl-C that waits while a model is being changed, and temporary changes that are undone whatever interrupts them.

Python raises KeyboardInterrupt between any two instructions of the main thread. Between the first and the last of the
statements that put hooks on, or take them off, it would leave a model that is neither.
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
    """Let SIGINT wait until the block ends: then the handler that was there is called, as if it had arrived just then.

    For short sections that must happen as a whole. Where no Python function handles SIGINT (it is ignored, or ends the
    process) nothing is held back, nor in another than the main thread, which is never interrupted. Inside another such
    block the outer one decides. A handler that was put in the place of this one meanwhile stays.
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
        """Handle the signal: remember it, or pass it on where somebody put this handler back after the block."""
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
    """`__exit__` of `Temporary`, with a net under it.

    An interrupt may come when a `with` block has ended and `__exit__` has not begun. The block's frame then drops the
    `__exit__` that it looked up when it began, and that nothing else holds: this undoes the change.
    """

    def __get__(self, context: Temporary[Any] | None, owner: type[Temporary[Any]]) -> Callable[..., bool | None]:
        if context is None:
            return owner._leave
        leave = functools.partial(owner._leave, context)
        context._net = weakref.ref(leave, context._undo)
        return leave


class Temporary(Generic[Given]):
    """What a function made with `temporary` gives: a context that is entered once."""

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
    """Make a context of a generator function, as `contextlib.contextmanager` does, that Ctrl-C cannot tear.

    SIGINT waits while the generator runs to its `yield` and from there to its end (`sigint_held`), not in between. The
    generator undoes its change in a `finally`, so that whatever is raised in the block undoes it, too.
    """
    make = contextmanager(function)

    @functools.wraps(function)
    def made(*args: Arguments.args, **kwargs: Arguments.kwargs) -> AbstractContextManager[Given]:
        return cast("AbstractContextManager[Given]", Temporary(make(*args, **kwargs)))

    return made


@temporary
def random_numbers_kept(devices: Sequence[int | torch.device] = ()) -> Iterator[None]:
    """Give torch's generators (the CPU's, and those of some GPUs) their state back when the block ends."""
    with torch.random.fork_rng(devices=devices):
        yield
