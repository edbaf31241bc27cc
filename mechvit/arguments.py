"""Checks of public functions' arguments against their annotations, before anything is computed.

An error says in one line what the argument must be, what it is, and how to convert it.
"""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from numbers import Integral, Real
from os import PathLike
from typing import Any, ParamSpec, TypeVar

from .argument_hints import MADE_BY, got, next_step
from .settings_checks import SettingError

Arguments = ParamSpec("Arguments")
Given = TypeVar("Given")

_ALIASES = {"Images": "datasets.Dataset | ImageBatch"}
_WORDS = {
    "HookedViT": "a HookedViT",
    "SAE": "an SAE of sae-lens",
    "datasets.Dataset": "a datasets.Dataset",
    "ImageBatch": "a mechvit.data.ImageBatch",
    "pd.DataFrame": "a pandas DataFrame",
    "Condition": "a Corruption",
    "Corruption": "a Corruption",
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "os.PathLike": "a path",
    "Path": "a path",
    "None": "None",
}
_LISTS = ("Collection", "Sequence", "list", "tuple")


def checked(function: Callable[Arguments, Given]) -> Callable[Arguments, Given]:
    """Decorate a function so that it refuses arguments of a kind other than its annotations say.

    Models, SAEs, data sets, corruptions, tables, results, configurations, paths, text and numbers are checked, alone,
    in lists and in mappings; tensors, choices and booleans are left to the function itself.

    Raises:
        SettingError: when called; names the parameter.
    """
    parameters = _annotations(function)

    @functools.wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Given:
        given = zip(parameters, args, strict=False)  # the call itself refuses too many, and fills in what is left out
        for name, value in (*given, *kwargs.items()):
            if name in parameters:
                _check(name, value, parameters[name])
        return function(*args, **kwargs)

    call.__dict__["checks_arguments"] = True
    return call


def _annotations(function: Callable[..., Any]) -> dict[str, ast.expr]:
    """Return each parameter's annotation as a syntax tree, in order, without *args and **kwargs."""
    found: dict[str, ast.expr] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        written = parameter.annotation if isinstance(parameter.annotation, str) else "Any"
        found[name] = ast.parse(_ALIASES.get(written, written), mode="eval").body
    return found


def _check(name: str, value: Any, wanted: ast.expr) -> None:
    """Raise a SettingError unless a value and its members match an annotation."""
    choices = _choices(wanted)
    if any(map(_are_numbers, choices)):
        return
    if fitting := [choice for choice in choices if _fits(value, choice)]:
        if len(fitting) == 1 and isinstance(fitting[0], ast.Subscript):
            _check_members(name, value, fitting[0])
        return
    names = {_name(choice) for choice in choices}
    must = " or ".join(dict.fromkeys(_words(choice, names) for choice in choices))
    parts = [part for choice in choices for member in _members(choice) for part in _choices(member)]
    step = next_step(names, set(map(_name, parts)), value)
    raise SettingError(name, f"must be {must}; got {got(value)}{f': {step}' if step else ''}")


def _check_members(name: str, value: Any, wanted: ast.Subscript) -> None:
    """Check the values of a mapping or the members of a list; one-pass iterators are not consumed."""
    if _name(wanted) == "Mapping":
        for key, member in value.items():
            _check(f"{name}[{key!r}]", member, _members(wanted)[-1])
    elif _name(wanted) in _LISTS and isinstance(value, Collection) and not hasattr(value, "shape"):
        parts = _members(wanted)
        fixed = _name(wanted) == "tuple" and _name(parts[-1]) != "..."
        if fixed and len(value) != len(parts):
            raise SettingError(name, f"must be ({', '.join(map(ast.unparse, parts))}); got {got(value)}")
        for place, member in enumerate(value):
            _check(f"{name}[{place}]", member, parts[place] if fixed else parts[0])


def _choices(wanted: ast.expr) -> list[ast.expr]:
    """Return the members of a union."""
    if isinstance(wanted, ast.BinOp) and isinstance(wanted.op, ast.BitOr):
        return [*_choices(wanted.left), *_choices(wanted.right)]
    return [wanted]


def _name(wanted: ast.expr) -> str:
    """Return the name of an annotation, such as `Mapping` for `Mapping[str, int]`."""
    if isinstance(wanted, ast.Constant):
        return "..." if wanted.value is ... else str(wanted.value)
    return ast.unparse(wanted.value if isinstance(wanted, ast.Subscript) else wanted)


def _members(wanted: ast.expr) -> list[ast.expr]:
    """Return the contents of an annotation's brackets."""
    if not isinstance(wanted, ast.Subscript):
        return []
    return wanted.slice.elts if isinstance(wanted.slice, ast.Tuple) else [wanted.slice]


def _words(wanted: ast.expr, names: set[str]) -> str:
    """Describe one choice in words."""
    name, members = _name(wanted), _members(wanted)
    if name == "str" and names & {"Condition", "Corruption"}:
        return "its key, as 'gaussian_blur_4'"
    if name == "str" and names & {"Path", "os.PathLike"}:
        return "a path"
    if name == "Mapping":
        return f"a dict of names to {_many(members[-1])}"
    if name == "tuple" and _name(members[-1]) != "...":
        return f"({', '.join(map(ast.unparse, members))})"
    if name in _LISTS:
        return f"a list of {_many(members[0])}"
    return _WORDS.get(name, f"a {name.rpartition('.')[2]}")


def _many(wanted: ast.expr) -> str:
    """Describe the members of a list in words."""
    choices = _choices(wanted)
    if {"Condition", "Corruption"} & set(map(_name, choices)):
        return "corruptions"
    plurals = {"str": "texts", "int": "whole numbers", "float": "numbers", "HookedViT": "HookedViTs", "SAE": "SAEs"}
    if _name(choices[0]) == "tuple":
        return _words(choices[0], set())
    return plurals.get(_name(choices[0]), f"{ast.unparse(choices[0])}s")


def _fits(value: Any, wanted: ast.expr) -> bool:
    """Return whether a value is of a kind, ignoring its members; True for kinds that are not checked."""
    name = _name(wanted)
    if name == "None":
        return value is None
    if name in ("int", "float"):
        return isinstance(value, Integral if name == "int" else Real) and not isinstance(value, bool)
    if name == "str":
        return isinstance(value, str)
    if name in ("Path", "os.PathLike"):
        return isinstance(value, PathLike)
    if name == "Mapping":
        return isinstance(value, Mapping)
    if name in _LISTS:
        return isinstance(value, Iterable) and not isinstance(value, (str, bytes)) and not _is_a(value, "SAE")
    if name == "HookedViT" and hasattr(value, "cfg") and hasattr(value, "image_processor"):
        from .wrapped_models import unwrapping  # imported late: drawing code imports this file, but no models

        return not unwrapping(value)  # objects that behave like a HookedViT
    return _is_a(value, name) if name in _WORDS or name in MADE_BY else True


def _are_numbers(wanted: ast.expr) -> bool:
    """Return whether an annotation is a tuple of numbers (a range, a grid), which functions check themselves."""
    members = _members(wanted)
    return _name(wanted) == "tuple" and all(_name(member) in ("int", "float") for member in members)


def _is_a(value: Any, name: str) -> bool:
    """Return whether a value's class, or one that it derives from, has a name; no class is imported for it."""
    package, _, plain = name.replace("pd.", "pandas.").rpartition(".")
    alike = [kind.__module__.partition(".")[0] for kind in type(value).__mro__ if kind.__name__ == plain]
    return package in alike if package else bool(alike)
