"""SIGINT at one chosen line of everything that a function runs, and what a model is made of at a moment."""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from shape_checks import paused
from transformer_lens.hook_points import HookPoint

TESTS = str(Path(__file__).parents[1])
SLOW = ("/torch/", "/jaxtyping/", "/typing.py")
"""Code that takes many lines to list a model's modules, and changes none of them."""


def run_to_line(act: Callable[[], Any], line: int | None, skipped: tuple[str, ...]) -> tuple[int, list[str]]:
    """Run `act`, and let SIGINT arrive before the given line (by number, from 0) of all those that it runs.

    Lines of the tests do not count, nor those of files whose paths hold one of `skipped`; those of contextlib, signal,
    weakref and transformer_lens do.

    Returns:
        how many lines there were, up to the signal, and the one at which it came.
    """
    count = 0
    place: list[str] = []

    def at_line(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal count
        if event == "line":
            if count == line:
                place.append(f"{frame.f_code.co_filename}:{frame.f_lineno} ({frame.f_code.co_name})")
                signal.raise_signal(signal.SIGINT)
                sys.settrace(None)  # where the signal is held back: what follows need not be counted
            count += 1
        return at_line

    def at_call(frame: FrameType, event: str, arg: Any) -> Any:
        file = frame.f_code.co_filename
        return None if file.startswith(TESTS) or any(part in file for part in skipped) else at_line

    before, collecting = sys.gettrace(), gc.isenabled()
    gc.disable()  # what it takes away may have lines of its own, which come at another time in the next run
    try:
        with paused():
            sys.settrace(at_call)
            try:
                act()
            finally:
                sys.settrace(before)
    finally:
        if collecting:
            gc.enable()
    return count, place


def interrupted_everywhere(
    act: Callable[[], Any], skipped: tuple[str, ...] = SLOW, prepare: Callable[[], Any] = lambda: None
) -> Iterator[int]:
    """Run `act` as often as it has lines, each time interrupted at another; gives the line, for the caller to check.

    Meanwhile the exception lives on, as it does in a notebook's `sys.last_traceback`. `prepare` is called before each.
    """
    prepare()
    act()  # what is done the first time alone has lines of its own
    prepare()
    lines, _ = run_to_line(act, None, skipped)
    for line in range(lines):
        prepare()
        place: list[str] = []
        try:
            _, place = run_to_line(act, line, skipped)
        except KeyboardInterrupt as error:
            interrupt = error
            yield line
        else:
            raise AssertionError(f"the interrupt at {place or line} was lost")
        del interrupt


def state_of(module: torch.nn.Module) -> dict[str, Any]:
    """Everything that a temporary change might leave behind: modules, hooks, names, flags and where the weights lie."""
    found: dict[str, Any] = {"SIGINT": signal.getsignal(signal.SIGINT)}
    for name, part in module.named_modules():
        own, fields = vars(part), ("name", "training", "cfg", "mix", "context_level", "is_caching", "ctx")
        kept: dict[str, Any] = {field: own.get(field) for field in fields} | {"module": id(part)}
        for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
            kept[kind] = list(own[kind].values())
        if isinstance(part, HookPoint):
            kept["handles"] = [handle.hook.id for handle in (*part.fwd_hooks, *part.bwd_hooks)]
        found[name] = kept
    found["points"] = list(getattr(module, "hook_dict", {}).items())
    found["weights"] = [(n, p.data_ptr(), p.requires_grad, p._version) for n, p in module.named_parameters()]
    return found
