"""Execution of one command: reading of its options, and errors in one line."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn, TypeVar

from mechvit.settings_checks import SettingError
from mechvit.terminal import NobodyReads, flush, one_line, say, write_line

from .faults import explain, flag_of, with_values

Config = TypeVar("Config")


def run(main: Callable[..., None], *arguments: object) -> None:
    """Call `main(*arguments)`; an error that the user can resolve ends the process with `error: ...` and exit code 2.

    Such errors are bad input (a ValueError), a failing file or connection (an OSError, a damaged safetensors file, a
    full disk), a training that diverged, and lack of memory, where the flags that reduce it are named: see `faults`.
    Any other error is a bug and shows its traceback, as do all errors with MECHVIT_TRACEBACK=1. Ctrl-C exits with 130.
    """
    try:
        with warnings.catch_warnings():
            warnings.showwarning = partial(_show, warnings.showwarning)
            main(*arguments)
            flush()
    except KeyboardInterrupt:
        write_line("interrupted")
        sys.exit(130)
    except NobodyReads as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # otherwise Python tries again at exit
        refuse(f"the output cannot be printed ({error.strerror})")
    except Exception as error:
        line = None if os.environ.get("MECHVIT_TRACEBACK") else explain(error, *arguments[:1])
        if line is None:
            raise
        refuse(line)


def refuse(line: str) -> NoReturn:
    """End the process with one line on stderr and exit code 2."""
    write_line(f"error: {one_line(line)}")
    sys.exit(2)


def read(
    kind: type[Config],
    description: str | None,
    *,
    args: Sequence[str] | None = None,
    prog: str | None = None,
    **default: Any,
) -> Config:
    """Read the command line into settings; invalid ones end the process with one line, `error: ...`, and exit code 2.

    Args:
        kind: dataclass of the settings, whose own errors are reported as the command line's.
        description: text at the beginning of `--help`.
        args: words after the command's name; those of this process when None.
        prog: the command's name in its usage line.
        default: `default=`, settings that replace the dataclass's defaults.
    """
    import io
    from contextlib import redirect_stderr, redirect_stdout

    import tyro

    for stream in (sys.stdout, sys.stderr):  # a terminal that cannot display a name's letters shows escapes
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    said = io.StringIO()
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(said):  # no terminal, hence no colours
            return tyro.cli(kind, args=args, prog=prog, description=description, **default)
    except SystemExit as end:
        if end.code == 2:
            refuse(_refused(said.getvalue(), end.__context__, kind))
    return tyro.cli(kind, args=args, prog=prog, description=description, **default)  # --help


def _refused(shown: str, cause: BaseException | None, kind: object) -> str:
    """Describe in one line what tyro refused; a setting's own error gets its full flag.

    Args:
        shown: tyro's box of several lines.
        cause: an error of the outermost settings; tyro's InstantiationError, with the argument or the group of settings
            that it concerns; or anything else, if tyro has no exception for it, as for a missing argument.
        kind: dataclass of the settings.
    """
    place = "" if isinstance(cause, ValueError) else getattr(cause, "arg", None)
    if cause is None or place is None:
        return f"{_in_one_line(shown)} (see --help)"
    error = cause if isinstance(cause, ValueError) else cause.__context__
    if isinstance(error, SettingError):
        nested = isinstance(place, str) and place
        flag = f"--{place}.{error.name}".replace("_", "-") if nested else flag_of(error.name, kind)
        return f"{flag} {with_values(error.problem, kind)}"
    problem = str(error or getattr(cause, "message", cause)).partition("Got errors")[0]
    return problem if isinstance(place, str) else f"{'/'.join(place.lowered.name_or_flags)}: {problem}"


def _in_one_line(shown: str) -> str:
    """Join the lines of tyro's box, without its frame and its advice."""
    rows = [row.strip("│| ") for row in shown.splitlines()[1:-1] if not re.fullmatch("[│| ]*[─-]+[│| ]*", row)]
    ends = (at for at, row in enumerate(rows) if row.startswith(("For full helptext", "Argument helptext")))
    return " ".join(row for row in rows[: next(ends, None)] if row)


def _show(otherwise: Callable[..., None], message: Warning | str, category: type[Warning], *place: Any) -> None:
    """Show how classes were matched as a note and other warnings to users in one line, and all else as usual."""
    from mechvit.data import InferredLabels

    if issubclass(category, InferredLabels):
        say(f"note: {message}", file=sys.stderr)
    elif category is UserWarning:
        say(f"warning: {one_line(str(message))}", file=sys.stderr)
    else:
        otherwise(message, category, *place)


def with_preset(
    presets: Mapping[str, Config], arguments: list[str], description: str | None, prog: str | None = None
) -> Config:
    """Read a command line into a configuration whose defaults are those of `--preset`, or of the first preset."""
    import argparse

    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", nargs="?", default=next(iter(presets)))
    chosen = first.parse_known_args(arguments)[0].preset
    if chosen not in presets:
        refuse(f"--preset must be one of {', '.join(presets)}; got {chosen}")
    preset = presets[chosen]
    return read(type(preset), description, args=arguments, prog=prog, default=preset)
