"""A checkpoint's weights in safetensors files of floats; no other format is opened, and nothing is unpickled."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import torch
import transformers
from torch import Tensor, nn

from mechvit.terminal import printable

from .checkpoint_config import one_line, quiet
from .revisions import hub_revision
from .stored_files import read_tensors

Shape = tuple[int, ...]

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
WRAPPERS = {"_orig_mod": "torch.compile", "module": "DataParallel"}
"""Part of a weight's name -> the wrapper that adds it."""
NAMED = 6
"""Number of faults that one message names; the others are counted."""


def read_weights(where: str, ignored: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Open the safetensors files of a folder or hub id: name -> tensor, read from disk when it is used.

    Args:
        where: the folder or hub id.
        ignored: suffixes of names that are not weights, and are left out.

    Raises:
        ValueError: no file is found, one is damaged, an index names a file outside the folder or a weight twice, or a
            weight is not of a float type.
    """
    found: dict[str, Tensor] = {}
    for path in _weight_files(where):
        weights = read_tensors(path)
        if twice := found.keys() & weights.keys():
            raise ValueError(f"{path} holds {min(twice)} a second time. Save the model again.")
        found |= weights
    found = {name: weight for name, weight in found.items() if not name.endswith(ignored)} if ignored else found
    for name, weight in found.items():
        if weight.dtype not in FLOATS:
            raise ValueError(
                f"{where}: the weights must be floats, not quantised; {name} is {weight.dtype}. Load the checkpoint "
                "that it was made from."
            )
    return found


def check_weights(
    where: str,
    given: Collection[str],
    missing: Collection[str],
    extra: Collection[str],
    mismatched: Mapping[str, tuple[Shape, Shape]],
) -> None:
    """Raise a ValueError that names the weights that are missing, left over or mis-shaped, unless all fit.

    Args:
        where: the checkpoint, for the error.
        given: the names of all weights found.
        missing, extra: names.
        mismatched: name -> shape found, shape wanted.
    """
    faults = [f"missing {name}" for name in _by_block(missing)] + [f"left over {name}" for name in _by_block(extra)]
    faults += [f"{name} is {found}, must be {wanted}" for name, (found, wanted) in sorted(mismatched.items())]
    if not faults:
        return
    if wrapped := _wrapped(given, missing):
        raise ValueError(
            f"{where}: the weights must be exactly those of its config; {printable(wrapped)}. Save the model that was "
            "wrapped, or take that part out of the names."
        )
    raise ValueError(
        f"{where}: the weights must be exactly those of its config; {_listed(faults)}. "
        "Correct the config, or save the model again."
    )


def shapes_of(model: nn.Module) -> dict[str, Shape]:
    """Return the shape of each tensor in a model's state dict."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def check_shapes(where: str, found: Mapping[str, Tensor], wanted: Mapping[str, Shape]) -> None:
    """Raise a ValueError, as `check_weights`, unless tensors have exactly the wanted names and shapes."""
    mismatched = {
        name: (tuple(found[name].shape), shape)
        for name, shape in wanted.items()
        if name in found and found[name].shape != shape
    }
    check_weights(where, found, wanted.keys() - found, found.keys() - wanted, mismatched)


def _wrapped(given: Collection[str], missing: Collection[str]) -> str:
    """Return a sentence that names a wrapper's prefix in the weights' names; empty where there is none."""
    for part, wrapper in WRAPPERS.items():
        found = [name for name in given if part in name.split(".")]
        if found:
            first = all(name.startswith(f"{part}.") for name in given)
            which = f"all names begin with `{part}.`" if first else f"{len(found)} names contain `{part}.`"
            return f"{which}, which {wrapper} puts there"
    (first_part, *others) = {name.partition(".")[0] for name in given} or {""}
    if others or not missing or any(name.startswith(f"{first_part}.") for name in missing):
        return ""
    return f"all names begin with `{first_part}.`, where the config has {min(missing)}"


def _by_block(names: Iterable[str]) -> list[str]:
    """Return sorted names, with four or more of one block summarised as one entry."""
    ordered = sorted(names)
    blocks = {name: found[0] if (found := re.match(r".*?layers?\.\d+(?=\.)", name)) else name for name in ordered}
    count = Counter(blocks.values())
    whole = (f"{count[block]} weights of {block}" if count[block] > 3 else name for name, block in blocks.items())
    return list(dict.fromkeys(whole))


def _listed(faults: list[str]) -> str:
    more = f"; and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
    return printable("; ".join(faults[:NAMED]) + more)


def _weight_files(where: str) -> list[Path]:
    """Return the single weight file, or the shards that an index names.

    Raises:
        ValueError: neither is there, or both are in one folder.
    """
    needs = f"{where} must hold its weights as whole safetensors files"
    with quiet():
        try:
            revision = hub_revision(where)
            single = _file(where, SINGLE, revision)
            index = None if single else _file(where, INDEX, revision)
            if single is None and index is None and not Path(where).exists():
                revision, single, index = _converted(where)
            if index is not None:
                return [Path(_file(where, name, revision) or Path(where, name)) for name in _shard_names(Path(index))]
        except (OSError, RuntimeError) as error:
            raise ValueError(f"{needs}; {one_line(error)} Save them with `save_pretrained`.") from error
    if single is None:
        raise ValueError(f"{needs}; it has no {SINGLE}. Nothing is unpickled: save them with `save_pretrained`.")
    index_beside = Path(where) / INDEX
    named = {*_shard_names(index_beside)} - {SINGLE} if index_beside.is_file() else {}
    if any((Path(where) / name).is_file() for name in named):
        raise ValueError(
            f"{where} holds its weights twice, in {SINGLE} and in the files that {INDEX} names, and they may differ: "
            "move one of the two away."
        )
    return [Path(single)]


def _converted(where: str) -> tuple[str | None, str | None, str | None]:
    """Find the safetensors conversion of a hub model's pickled weights: revision, single file, index."""
    from huggingface_hub import is_offline_mode
    from transformers.safetensors_conversion import auto_conversion

    if is_offline_mode():
        return None, None, None
    found, revision, sharded = auto_conversion(where)
    return (revision, None, found) if sharded else (revision, found, None)


def _file(where: str, name: str, revision: str | None) -> str | None:
    return transformers.utils.cached_file(where, name, revision=revision, _raise_exceptions_for_missing_entries=False)


def _shard_names(index: Path) -> list[str]:
    """Read the shard names of an index, and check that each is a plain file beside it."""
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{index} must have a weight_map of each weight's file. Save the model again.") from error
    for name in names or [""]:
        if not isinstance(name, str) or not re.fullmatch(r"[^/\\\0]+\.safetensors", name):
            raise ValueError(f"{index} must name safetensors files beside it; it names {name!r}. Save the model again.")
    return names
