"""Any number of any config, changed: it loads, or is refused at once in one line that names it, or weights at odds."""

from __future__ import annotations

import copy
import json
import math
import os
import resource
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hf_zoo import ZOO

from mechvit import HookedViT


def numbers(settings: dict[str, Any], at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Return the path of each number in a config."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from numbers(value, (*at, name))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield (*at, name)


@pytest.mark.long
@pytest.mark.processes
@pytest.mark.parametrize("name", ["vit classifier", *(pytest.param(n, marks=pytest.mark.slow) for n in ZOO)])
def test_any_number_loads_or_is_refused_at_once(name, tmp_path):
    """In a process of its own, whose largest memory is asked for."""
    results, process = tmp_path / "results.json", os.fork()
    if process == 0:
        try:
            torch.set_num_threads(1)  # a pool of threads doesn't survive a fork
            results.write_text(json.dumps(_try_numbers(name, tmp_path / "checkpoint")))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.waitpid(process, 0)
    seconds, kilobytes, faults, count = json.loads(results.read_text())
    assert faults == []
    assert count > 20
    assert seconds < 2
    assert kilobytes < 300_000


def _try_numbers(name: str, folder: Path) -> tuple[float, int, list[str], int]:
    ZOO[name]().save_pretrained(folder)
    whole = json.loads((folder / "config.json").read_text())
    longest, faults, count = 0.0, [], 0
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for path in numbers(whole):
        for value in (10**6, 10**9, 0, -1, math.nan, "x", [3]):
            settings = copy.deepcopy(whole)
            part = settings
            for word in path[:-1]:
                part = part[word]
            part[path[-1]] = value
            (folder / "config.json").write_text(json.dumps(settings))
            started = time.process_time()
            try:
                HookedViT.from_pretrained(folder, device="cpu")
            except ValueError as error:
                line = str(error)
                named = path[-1] in line or "the weights must be exactly those of its config" in line
                if "\n" in line or str(folder) not in line or len(line) > 1000 or not named:
                    faults.append(f"{path} = {value}: {error}")
            except BaseException as error:
                faults.append(f"{path} = {value}: {error!r}")
            longest, count = max(longest, time.process_time() - started), count + 1
    return longest, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory, faults, count
