"""The options that an entry of the zoo meets, and the few entries that meet them all, for tests of structure.

What must be exact for every class (its output, its streams, its way back to Hugging Face) is tested on the whole zoo.
What follows from the options of the block, the embedding and the head is tested on `DAILY` by `make test`, and on the
whole zoo by `make test-all`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import asdict

import pytest
from hf_zoo import ZOO

from mechvit import HookedViT
from mechvit.models.hook_table import points_of

DAILY = (
    "vit classifier, no qkv bias",
    "vit encoder",
    "msn classifier",
    "mae encoder",
    "deit with teacher",
    "beit classifier, all positions",
    "beit encoder, mean",
    "data2vec classifier, relative bias",
    "dinov2 classifier, swiglu",
    "registers classifier, swiglu",
    "dinov3 encoder, few biases",
    "dinov3 encoder, key bias, gated",
    "ijepa classifier",
    "clip classifier",
    "clip zero-shot",
    "clip bare",
    "siglip zero-shot",
    "siglip2 classifier",
)
SIZES = ("n_classes", "n_registers", "projection_dim", "pooler_size")
"""Options of which only whether they are 0 is an option."""
NO_OPTIONS = (
    "architecture",
    "n_layers",
    "n_heads",
    "d_model",
    "d_head",
    "d_mlp",
    "eps",
    "image_size",
    "position_image_size",
    "patch_size",
    "n_channels",
    "dropout",
    "rope_theta",
    "id2label",
    "device",
    "dtype",
)
"""Names, and sizes or rates that take another number and no other way."""


def daily(names: Iterable[str] = ZOO) -> list[object]:
    """Return the names as parameters of a test, of which those outside `DAILY` are slow."""
    return [name if name in DAILY else pytest.param(name, marks=pytest.mark.slow) for name in names]


def exact(names: Iterable[str] = ZOO) -> list[object]:
    """Return the names as parameters of a test of exactness, of which those outside `DAILY` are long."""
    return [name if name in DAILY else pytest.param(name, marks=pytest.mark.long) for name in names]


def daily_but(first: object, others: Iterable[object], names: Iterable[str] = ZOO) -> list[object]:
    """Return pairs of a name and a value: outside `DAILY` those with `first` are long, and those with others slow."""
    names = list(names)
    every: list[object] = []
    for value in (first, *others):
        for name in names:
            marks = [] if name in DAILY else [pytest.mark.long if value is first else pytest.mark.slow]
            every.append(pytest.param(name, value, id=f"{name}-{value}", marks=marks))
    return every


@functools.cache
def options_met(name: str) -> set[tuple[str, object]]:
    """Return the options of an entry's configuration, and the weights and hook points that they lead to."""
    entry = ZOO[name]
    model = HookedViT.from_hf(entry(), **entry.zero_shot_head())
    config = {option: value for option, value in asdict(model.cfg).items() if option not in NO_OPTIONS}
    config |= {size: bool(config[size]) for size in SIZES}
    weights = {re.sub(r"^blocks\.\d+", "blocks.{l}", weight) for weight in model.own_state_dict()}
    return {*config.items(), *(("weight", key) for key in weights), *(("point", key) for key in points_of(model.cfg))}
