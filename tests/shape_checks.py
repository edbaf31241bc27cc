"""Checks of mechvit's annotations, shapes and dtypes included, while its functions run in a test.

`install` puts jaxtyping's import hook in place, with beartype as the checker of types. What only mypy can see (a name
that is imported for type checking alone) is checked by mypy alone.
"""

from __future__ import annotations

import builtins
import dataclasses
import functools
import inspect
import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType, SimpleNamespace
from typing import Any, Self, TextIO, get_type_hints
from unittest import mock

import jaxtyping
import pytest
import torch
from beartype import BeartypeConf, FrozenDict, beartype
from jaxtyping import _import_hook, jaxtyped

LOOSER: dict[Any, Any] = {
    Self: Any,  # beartype knows it in a decorated class alone, and the hook decorates functions
    TextIO: io.TextIOBase,  # beartype asks for attributes that pytest's captured output lacks
}
CHECKER: Any = beartype(
    conf=BeartypeConf(
        is_pep484_tower=True,  # an int is a float, as it is to mypy
        hint_overrides=FrozenDict(LOOSER),
    )
)
EVERY_TYPE = os.environ.get("EVERY_TYPE") == "1"
"""Whether functions without an array in an annotation are checked too, as `make test-all` and `make coverage` do."""

_paused = 0


def checked(function: Callable[..., Any]) -> Any:
    """Return a function with its arguments and its result checked, or a dataclass with its fields, as it is made.

    Nothing is checked while checks are paused, nor where torch.compile reads the code: its graph must hold no check.
    """
    if inspect.isclass(function):
        if dataclasses.is_dataclass(function) and "__init__" in vars(function):
            type.__setattr__(function, "__init__", checked(vars(function)["__init__"]))
        return function
    if not (EVERY_TYPE or _may_name_shapes(function)):
        return function
    with_checks: Any = None

    @functools.wraps(function)
    def chosen(*args: Any, **options: Any) -> Any:
        nonlocal with_checks
        if _paused or torch.compiler.is_compiling():
            return function(*args, **options)
        if with_checks is None:  # made at the first call, when all classes of the module are there
            with_checks = _with_checks(function)
        return with_checks(*args, **options)

    return chosen


def _may_name_shapes(function: Callable[..., Any]) -> bool:
    """Return whether an annotation names something of jaxtyping's, an alias that is text, or what is not there yet.

    Most functions name nothing of the kind, and half a million calls of wrappers take seconds.
    """
    names = function.__globals__
    unread = _for_type_checkers(names.get("__file__"))
    for annotation in filter(None, function.__annotations__.values()):
        heads = set(_HEADS.findall(annotation)) - _BUILTINS if isinstance(annotation, str) else {""}
        named = [] if heads & unread else [names.get(head, "") for head in heads]
        if any(isinstance(one, str) or "jaxtyping" in repr(one) for one in named):
            return True
    return False


_HEADS = re.compile(r"""(?<![\w.'"])[A-Za-z_]\w*(?![\w'"])""")
"""Names that stand in an annotation, the first of each dotted one."""
_BUILTINS = frozenset(vars(builtins))


@functools.cache
def _for_type_checkers(path: str | None) -> frozenset[str]:
    """Return the words of a file's `if TYPE_CHECKING:`; to `_hint`, an annotation with one of these is anything."""
    text = Path(path).read_text(encoding="utf-8") if path else ""
    blocks = re.findall(r"^if TYPE_CHECKING:\n((?:[ \t].*\n|\n)+)", text, re.MULTILINE)
    return frozenset(re.findall(r"\w+", " ".join(blocks)))


def _with_checks(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check types, and where an annotation names a shape, that its axes have one size each in a call."""
    written = function.__annotations__
    hints = {name: _hint(annotation, function.__globals__) for name, annotation in written.items()}
    shaped = any("jaxtyping." in repr(hint) for hint in hints.values())
    if not (shaped or EVERY_TYPE):
        return function
    function.__annotations__ = hints
    typed: Callable[..., Any] = CHECKER(function)
    function.__annotations__ = written  # which other tests read
    if not shaped:
        return typed

    def with_axes(*args: Any, **options: Any) -> Any:
        with jaxtyped("context"):
            return typed(*args, **options)

    return with_axes


def _hint(annotation: Any, names: dict[str, Any]) -> Any:
    """Return what an annotation stands for: anything, where a name in it is for type checkers alone, or a text."""
    try:
        return get_type_hints(SimpleNamespace(__annotations__={"it": annotation}), names, include_extras=True)["it"]
    except (NameError, TypeError):
        return Any


@contextmanager
def paused() -> Iterator[None]:
    """Check nothing meanwhile."""
    _pause(1)
    try:
        yield
    finally:
        _pause(-1)


def _pause(change: int) -> None:
    global _paused
    _paused += change


class _Loader(_import_hook._JaxtypingLoader):
    """The hook's loader, with the hook's name for bytecode in place while a module's own code is looked up alone.

    In jaxtyping's own it is in place while the module runs: what it imports (2,400 files of libraries) is then compiled
    anew in every process, since none of it has bytecode of that name.
    """

    def exec_module(self, module: ModuleType) -> None:
        SourceFileLoader.exec_module(self, module)

    def get_code(self, fullname: str) -> CodeType | None:
        named = functools.partial(_import_hook._optimized_cache_from_source, self._typechecker.get_hash())
        with mock.patch("importlib._bootstrap_external.cache_from_source", named):
            return super().get_code(fullname)


def install() -> None:
    """Check all of mechvit from its import on, but where `pytest.raises` expects an error.

    There mechvit's own refusal of the wrong argument must speak, and not the annotation.
    """
    jaxtyping.jaxtyped = lambda typechecker: checked  # what the hook decorates with
    _import_hook._JaxtypingLoader = _Loader
    jaxtyping.install_import_hook("mechvit", None)
    enter, leave = pytest.RaisesExc.__enter__, pytest.RaisesExc.__exit__

    def paused_enter(expected: Any) -> Any:
        _pause(1)
        return enter(expected)

    def resumed_leave(expected: Any, *error: Any) -> bool:
        _pause(-1)
        return leave(expected, *error)

    pytest.RaisesExc.__enter__ = paused_enter
    pytest.RaisesExc.__exit__ = resumed_leave
