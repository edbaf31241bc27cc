"""Messages, in one line, for exceptions that a user can resolve; all others are bugs and keep their traceback."""

from __future__ import annotations

import dataclasses
import errno
import re
from collections.abc import Iterator
from typing import Any

from mechvit.files.disk import DiskFull, error_number, is_full
from mechvit.settings_checks import SettingError
from mechvit.terminal import one_line

_MEMORY_TEXT = re.compile(
    r"DefaultCPUAllocator: (can't allocate|not enough) memory|out of memory|_ALLOC_FAILED|Cannot allocate memory"
)
"""Messages of torch's plain RuntimeErrors on memory, which have no type: CPU allocator, cuBLAS, cuDNN and MPS."""
_TORCH_WRITE = "file write failed"
"""Message of the plain RuntimeError with which torch.save ends when it cannot write, whatever the reason."""
_OF_THE_INPUT = {
    ("safetensors", "SafetensorError"),
    ("datasets", "DatasetsError"),
    ("PIL", "DecompressionBombError"),
}
"""Exceptions of libraries about a file that are neither a ValueError nor an OSError: package and class."""
_SETTING_NAME = re.compile(r"""(?<![\w./'"-])[a-z]+(?:_[a-z0-9]+)+(?![\w/'"(=-]|\.\w)""")
_ASSIGNMENT = re.compile(r"""(?<![\w./'"-])([a-z][a-z0-9_]*)=(?:'([^']*)'|\(([^()]*)\)|True)""")
"""A setting that an error recommends, in Python: `bad_files='skip'`, `pixel_range=(LOW, HIGH)` or `control=True`."""
_BATCH = re.compile(r"batch|images_per|max_bytes")


def explain(error: BaseException, options: object = None) -> str | None:
    """Return in one line what went wrong, if the user can resolve it; None if it is a bug.

    Args:
        error: the exception.
        options: settings of the command line, whose flags are named.
    """
    cause = error.__cause__
    if _is_of_the_input(error) and cause is not None and (line := explain(cause, options)) is not None:
        return line  # the cause of a library's general error
    if is_out_of_memory(error):
        return one_line(_out_of_memory(error, options))
    if is_disk_full(error):
        return one_line(_disk_full(error, options))
    if isinstance(error, SettingError):
        return one_line(f"{flag_of(error.name, options)} {with_values(error.problem, options)}")
    known = isinstance(error, (ValueError, OSError)) or _is_of_the_input(error) or _is_of_the_training(error)
    return with_flags(one_line(error) or type(error).__name__, options) if known else None


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out, the machine's or the device's."""
    if isinstance(error, MemoryError) or ("torch", "OutOfMemoryError") in _kinds(error):
        return True
    return isinstance(error, RuntimeError) and bool(_MEMORY_TEXT.search(str(error)))


def is_disk_full(error: BaseException) -> bool:
    """Return whether a file could not be written for lack of space, or because it is larger than allowed."""
    failed_in_torch = isinstance(error, RuntimeError) and _TORCH_WRITE in str(error)
    return is_full(error) or error_number(error) == errno.EFBIG or failed_in_torch


def flag_of(name: str, options: object) -> str:
    """Return a setting's flag, that of the outermost settings that have one; its own name if it is ambiguous.

    Args:
        name: name of the setting.
        options: a command line's settings, or their dataclass.
    """
    flags = [flag for flag, setting in _flags(options) if setting == name or flag == f"--{name.replace('_', '-')}"]
    outermost = [flag for flag in flags if flag.count(".") == min(other.count(".") for other in flags)]
    return outermost[0] if len(outermost) == 1 else name


def with_flags(line: str, options: object) -> str:
    """Replace settings' Python names by their flags, at the beginning of a line or if they contain an underscore and so
    are no common words; names in quotes and in paths are kept.

    Args:
        line: an error's message.
        options: a command line's settings.
    """
    line = with_values(line, options)
    begins = re.match(r"(\w+) (?:must|may|and|needs)\b", line)
    if begins and (flag := flag_of(begins[1], options)) != begins[1]:
        line = flag + line[begins.end(1) :]
    return _SETTING_NAME.sub(lambda name: flag_of(name[0], options), line)


def with_values(line: str, options: object) -> str:
    """Replace a setting that an error recommends by its flag and value: `--bad-files skip` for `bad_files='skip'`.

    Args:
        line: an error's message.
        options: a command line's settings, or their dataclass.
    """

    def flagged(found: re.Match[str]) -> str:
        flag, (_, word, several) = flag_of(found[1], options), found.groups()
        if flag == found[1]:
            return found[0]
        return " ".join([flag, *([word] if word else several.replace(",", " ").split() if several else [])])

    return _ASSIGNMENT.sub(flagged, line)


def _out_of_memory(error: BaseException, options: object) -> str:
    flags = [flag for flag, name in _flags(options) if _BATCH.search(name)]
    size = re.search(r"allocate ([\d.]+ ?(?:bytes|[KMGTP]i?B))", str(error), re.I)
    tried = f" (it tried to take {size[1]} more)" if size else ""
    return f"out of memory{tried}: lower {' or '.join(flags) or 'the batch size'}, or end other programs"


def _disk_full(error: BaseException, options: object) -> str:
    if isinstance(error, DiskFull):
        return str(error.strerror)
    place = getattr(error, "filename", None) or getattr(options, "out", None)
    where = f" for {place}" if place else ""
    return f"no space is left{where} ({one_line(error)}): free some, or give another place, and run this again"


def _is_of_the_input(error: BaseException) -> bool:
    return not _kinds(error).isdisjoint(_OF_THE_INPUT)


def _kinds(error: BaseException) -> set[tuple[str, str]]:
    """Return package and name of the exception's classes, so that no library is imported to recognise them."""
    return {(kind.__module__.partition(".")[0], kind.__qualname__) for kind in type(error).__mro__}


def _is_of_the_training(error: BaseException) -> bool:
    from mechvit.finetuning.config import TrainingFailed

    return isinstance(error, TrainingFailed)


def _flags(options: Any, prefix: str = "--") -> Iterator[tuple[str, str]]:
    """Yield every flag of a command line's settings or of their dataclass, with the setting's own name."""
    if not dataclasses.is_dataclass(options):
        return
    for field in dataclasses.fields(options):
        flag, value = prefix + field.name.replace("_", "-"), getattr(options, field.name, field.default_factory)
        if dataclasses.is_dataclass(value):
            yield from _flags(value, flag + ".")
        else:
            yield flag, field.name
