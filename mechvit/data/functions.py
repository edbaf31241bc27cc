"""Corruptions of one's own: functions of images that are registered under a name and checked when they are applied."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mechvit.arguments import checked
from mechvit.settings_checks import COUNT, check_number
from mechvit.terminal import one_line, printable

from .corruption_spec import CORRUPTION_FAMILIES, Corruption, CorruptionFamily

if TYPE_CHECKING:
    from torch import Tensor

GROUP = "function"
"""Group of registered functions."""
RESERVED = ("all", "base", "clean", "filters", "fgsm", "imagenet_c", "paired", "paper", "pgd", "self", "tuned")
"""Words with a meaning of their own where conditions are named."""
TOLERANCE = 1e-5
"""Largest difference of a pixel between two calls with the same image, alone and in a batch: rounding, and no more."""
_CHECKED: set[tuple[Any, ...]] = set()
"""Functions, levels and sizes of images whose first batch was checked in this process."""
_MODULES: dict[Path, tuple[bytes, ModuleType]] = {}
"""Files that were imported -> their content then, and the module."""


@checked
def register_corruption(
    name: str,
    function: Callable[..., Any],
    *,
    levels: Collection[int] | None = None,
    title: str | None = None,
) -> None:
    """Register a function as a family of corruptions: `haze` at level 3 is then `haze_3` wherever a condition is named.

    The function is called as `function(images)`, `function(images, level)` or `function(images, level, seeds)`, by how
    many parameters without a default it has. `images` is float32 [batch, 3, height, width] in [0, 1], a copy; `seeds`
    is int64 [batch], one non-negative seed for each image, fixed by the run's seed and the image's id. It returns new
    images of the same shape, dtype and range. On the first batch it is held to that, to giving the same result again,
    and to giving an image the same pixels alone as in the batch.

    Args:
        name: letters, digits and _, starting with a letter and not ending in _ and a number. Registered again, it
            replaces the earlier function of that name.
        function: the function; one without a level has a single condition, called by the name alone.
        levels: the whole numbers from 1 that it takes; any when None.
        title: name in prose; by default made of the name.

    Raises:
        ValueError: a name that is taken or cannot be one, a function that takes something else, levels for a function
            that takes none.
    """
    own = CORRUPTION_FAMILIES.get(name)
    if not re.fullmatch(r"[A-Za-z]\w{0,59}", name, re.ASCII) or re.search(r"_\d+$", name):
        raise ValueError(
            "a corruption's name starts with a letter, holds letters, digits and _ only, at most 60, and does not end "
            f"in _ and a number, which is the level; got {name!r}"
        )
    if name in RESERVED or (own is not None and own.function is None):
        raise ValueError(f"{name!r} is a condition of this package: give the function another name")
    takes = _takes(name, function)
    chosen = None if levels is None else tuple(sorted(set(levels)))
    for level in chosen or ():
        check_number("levels", level, COUNT)
    if takes == 1 and levels is not None:
        raise ValueError(f"the function of {name!r} takes images alone, and levels need one of images and level")
    if chosen == ():
        raise ValueError(f"levels of {name!r} must be some whole numbers from 1, or None for any; got none")
    highest = 0 if takes == 1 else None if chosen is None else chosen[-1]
    title = title or name.replace("_", " ").capitalize()
    CORRUPTION_FAMILIES[name] = CorruptionFamily(title, GROUP, "a whole number", highest, chosen, function)
    _CHECKED.difference_update([known for known in _CHECKED if known[0] == name])
    from .corruptions import CORRUPTIONS

    CORRUPTIONS[name] = partial(_apply, name, function, takes)


def load_function(text: str) -> None:
    """Import the file or module of a condition such as `my_file.py:haze_3`, and register its function `haze`.

    A file that calls `register_corruption` itself keeps what it registered. Nothing but the file is run.

    Raises:
        ValueError: no such file or module, an error while it is imported, no such function in it, or another function
            of that name is registered already.
    """
    where, _, key = text.rpartition(":")
    module = _file(where, text) if where.endswith(".py") else _module(where, text)
    name = re.sub(r"_\d+$", "", key)
    own = CORRUPTION_FAMILIES[name].function if name in CORRUPTION_FAMILIES else None
    function = getattr(module, name, None)
    if not callable(function):
        if own is not None:
            return
        raise ValueError(
            f"{printable(where)} has no function {name!r}, which {printable(text)} names; it has "
            f"{', '.join(_functions(module)) or 'none'}"
        )
    if own is None:
        register_corruption(name, function)
    elif own is not function and getattr(own, "__module__", None) != module.__name__:
        raise ValueError(f"{printable(text)}: another function is registered as {name!r} already: rename one of them")


def _functions(module: ModuleType) -> list[str]:
    return [name for name, value in vars(module).items() if inspect.isfunction(value) and not name.startswith("_")][:9]


def _file(where: str, text: str) -> ModuleType:
    path = Path(where).expanduser().resolve()
    if not path.is_file():
        raise ValueError(f"there is no file {printable(where)}, of which {printable(text)} names a function")
    content = path.read_bytes()
    if path in _MODULES and _MODULES[path][0] == content:
        return _MODULES[path][1]
    name = f"mechvit_condition_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    _forget(name)
    sys.modules[name] = module  # where inspect looks for a function's source
    try:
        exec(compile(content, path, "exec"), vars(module))  # bytecode might be of an earlier edit in the same second
    except Exception as error:
        del sys.modules[name]
        raise ValueError(f"{printable(where)} cannot be imported: {_told(error, path)}") from error
    _MODULES[path] = content, module
    return module


def _forget(module: str) -> None:
    """Remove what an earlier version of a file registered."""
    for name, family in list(CORRUPTION_FAMILIES.items()):
        if family.function is not None and getattr(family.function, "__module__", None) == module:
            del CORRUPTION_FAMILIES[name]


def _module(where: str, text: str) -> ModuleType:
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", where):
        raise ValueError(
            f"a condition of your own is written module:name_level or file.py:name_level, as in my_file.py:haze_3; got "
            f"{printable(text)!r}"
        )
    try:
        return importlib.import_module(where)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{where}.".startswith(f"{error.name}."):
            raise ValueError(f"the module {where} cannot be imported: {_told(error, None)}") from error
        raise ValueError(
            f"there is no module {where}, of which {printable(text)} names a function; a file is named with .py, as in "
            f"{where}.py:{text.rpartition(':')[2]}"
        ) from None
    except Exception as error:
        raise ValueError(f"the module {where} cannot be imported: {_told(error, None)}") from error


def _told(error: Exception, path: Path | None) -> str:
    """Return an error in one line, with the line of the file at which it was raised."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    place = f", at line {lines[-1]}" if lines else ""
    return one_line(f"{type(error).__name__}: {error}{place}")


def _takes(name: str, function: Any) -> int:
    """Return how many of images, level and seeds a function takes.

    Raises:
        ValueError: it is no function, or takes something else.
    """
    asked = f"the function of {name!r} must take images, images and level, or images, level and seeds; "
    if not callable(function):
        raise ValueError(f"{asked}got a {type(function).__name__}")
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        raise ValueError(f"{asked}what this one takes cannot be read: wrap it, as in lambda x: f(x)") from None
    needed = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if not 1 <= len(needed) <= 3 or any(p.kind is p.KEYWORD_ONLY for p in needed):
        raise ValueError(
            f"{asked}this one takes ({', '.join(map(str, parameters))}), and what has a default is left at it"
        )
    return len(needed)


def _apply(
    name: str, function: Callable[..., Any], takes: int, images: Tensor, level: int, image_ids: Tensor, seed: int
) -> Tensor:
    """Apply a registered function to a batch, and hold it to what `register_corruption` says."""
    import torch

    from .counter_rng import named_seed, splitmix64

    key = f"{name}_{level}" if level else name
    seeds = splitmix64(image_ids.to(torch.int64) ^ named_seed(seed, name)) & (2**63 - 1)

    def called(rows: slice) -> Tensor:
        return _returned(key, function, (images[rows].clone(), level, seeds[rows].clone())[:takes])

    found = called(slice(None))
    first = (name, level, tuple(images.shape[1:]), images.device)
    if first not in _CHECKED:
        if (apart := float((called(slice(None)) - found).abs().max())) > TOLERANCE:
            raise ValueError(
                f"{key} must make the same of the same images; called twice it differs by {apart:.2g}: draw random "
                "numbers from the seeds alone, one generator for each image"
            )
        rows = {0, len(images) - 1}
        if (apart := max(float((called(slice(i, i + 1)) - found[i : i + 1]).abs().max()) for i in rows)) > TOLERANCE:
            raise ValueError(
                f"{key} must make the same of an image whatever is in its batch; alone it differs by {apart:.2g}: "
                "treat each image by itself, with its own seed"
            )
        if len(images) > 1:
            _CHECKED.add(first)
    return found


def _returned(key: str, function: Callable[..., Any], given: tuple[Any, ...]) -> Tensor:
    """Call a function once, and refuse what is no image."""
    from torch import Tensor

    images = given[0]
    shape, dtype, device = images.shape, images.dtype, images.device
    try:
        found = function(*given)
    except Exception as error:
        file = getattr(getattr(function, "__code__", None), "co_filename", None)
        told = _told(error, None if file is None else Path(file))
        raise ValueError(f"the function of {key} failed on images {list(shape)}: {told}") from error
    if not isinstance(found, Tensor):
        raise ValueError(f"{key} must return a tensor like the images; it returned a {type(found).__name__}")
    if (found.shape, found.dtype, found.device) != (shape, dtype, device):
        raise ValueError(
            f"{key} must return images like those it is given, {dtype} {list(shape)} on {device}; it returned "
            f"{found.dtype} {list(found.shape)} on {found.device}"
        )
    low, high = float(found.min()), float(found.max())
    if not (low >= 0 and high <= 1):  # also where either is NaN
        raise ValueError(
            f"{key} must return images in [0, 1]; it returned values from {low:.3g} to {high:.3g}: end with "
            ".clamp(0, 1), and divide by nothing that may be 0"
        )
    return found


def function_fingerprint(corruption: Corruption) -> str:
    """Return the first 16 hex digits of a SHA-256 over a registered function's source and what it makes of two fixed
    images.

    The images catch what the source calls or reads elsewhere; they are taken in bytes, and where the function fails on
    them, by its error.
    """
    import torch

    from .corruptions import corrupt
    from .counter_rng import named_seed, uniform

    ids = torch.arange(2)
    noise = uniform(ids, 3 * 64 * 64, named_seed(0, "probe")).view(2, 3, 64, 64)
    ramp = torch.linspace(0, 1, 64).expand(2, 3, 64, 64)
    digest = hashlib.sha256(_source(CORRUPTION_FAMILIES[corruption.family].function).encode())
    try:
        shown = corrupt((noise + 3 * ramp) / 4, corruption, ids)
        digest.update((shown * 255).round().to(torch.uint8).numpy().tobytes())
    except ValueError as error:
        digest.update(str(error).encode())
    return digest.hexdigest()[:16]


def _source(function: Any) -> str:
    """Return a function's source, or what it was compiled to where there is none; a class's for an object of it."""
    if isinstance(function, partial):
        return f"{_source(function.func)} {function.args} {sorted(function.keywords.items())}"
    plain = inspect.isroutine(function)
    try:
        return inspect.getsource(function if plain else type(function))
    except (OSError, TypeError):
        return _compiled(function.__code__) if hasattr(function, "__code__") else type(function).__qualname__


def _compiled(code: Any) -> str:
    inner = [_compiled(part) if inspect.iscode(part) else repr(part) for part in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {inner}"
