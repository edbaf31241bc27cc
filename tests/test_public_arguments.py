"""Every argument of every public function is looked at, and what does not fit is refused in one line."""

from __future__ import annotations

import ast
import inspect
import os
from collections.abc import Collection, Sequence
from pathlib import Path

import datasets
import numpy as np
import pytest
from wrong_things import FACES, LOOKED_AT, held

from mechvit import HookedViT, analysis, saes
from mechvit.arguments import _annotations, _are_numbers, _choices, _members, _name, checked
from mechvit.data import CLEAN, Corruption, ImageBatch

CLASSES = {
    f"saes.{name}": getattr(saes, name).__init__
    for name in ("ImageStreams", "CachedStreams", "ImageActivationsStore", "CachedActivations")
}


def kinds_in(annotation: ast.expr) -> set[str]:
    """The names of an annotation, those inside its brackets too; of a range or a grid none."""
    if any(map(_are_numbers, _choices(annotation))):
        return set()
    names = {_name(choice) for choice in _choices(annotation)}
    return names.union(*(kinds_in(part) for choice in _choices(annotation) for part in _members(choice)))


def test_every_public_function_looks_at_what_it_is_given():
    """Those that take tensors, words and truth values alone look at these themselves."""
    bare = []
    for name, function in (FACES | CLASSES).items():
        kinds = [kinds_in(annotation) for annotation in _annotations(function).values()]
        if LOOKED_AT & set().union(*kinds) and not getattr(function, "checks_arguments", False):
            bare.append(name)
    assert bare == []
    assert len(FACES) > 90


@pytest.fixture(scope="module")
def given(tiny_hf, tiny_processor, tiny_images):
    return held(tiny_hf, tiny_processor, tiny_images)


@pytest.mark.parametrize("name", FACES | CLASSES)
def test_each_argument_of_another_kind_is_refused_in_one_line(given, name):
    function = (FACES | CLASSES)[name]
    for parameter, annotation in _annotations(function).items():
        if parameter == "self" or (isinstance(annotation, ast.Name) and annotation.id == "Any"):
            continue
        if not kinds_in(annotation) & (LOOKED_AT | {"Mapping"}):
            continue
        for value in given.not_fitting(annotation):
            with pytest.raises(ValueError, match=rf"^{parameter}(\[.*\])? must be ") as refused:
                function(**{parameter: value})
            assert "\n" not in str(refused.value)
            assert "; got " in str(refused.value)
            assert len(str(refused.value)) < 400


def test_what_fits_passes():
    @checked
    def take(
        model: HookedViT | None = None,
        images: datasets.Dataset | ImageBatch | None = None,
        corruptions: Collection[Corruption | str] = (),
        size: int | None = None,
        share: float = 0.5,
        place: str | os.PathLike[str] = "x",
        layers: Sequence[int] | None = None,
        pairs: list[tuple[Corruption, int]] = (),
        other: frozenset[int] = frozenset(),
        *rest: int,
        **more: int,
    ) -> tuple:
        return size, share, rest, more

    assert take() == (None, 0.5, (), {})
    assert take(size=np.int64(3), share=1, place=Path("y"), more="text") == (3, 1, (), {"more": "text"})
    take(corruptions=("fog_3", CLEAN), layers=range(3), pairs=[(CLEAN, 2)], other=object())
    take(corruptions=(c for c in ("fog_3",)))  # what can be gone through once alone is not looked into
    take(layers=np.arange(3), share=np.float32(0.2))
    for wrong, line in {
        "corruptions": (("fog_3", 4), r"^corruptions\[1\] must be a Corruption or its key, .*; got 4"),
        "pairs": ([(CLEAN, "2")], r"^pairs\[0\]\[1\] must be a whole number; got '2'"),
        "layers": ([1, 2.0], r"^layers\[1\] must be a whole number; got 2.0"),
    }.items():
        with pytest.raises(ValueError, match=line[1]):
            take(**{wrong: line[0]})
    with pytest.raises(ValueError, match=r"^pairs\[0\] must be \(Corruption, int\); got a tuple of 1"):
        take(pairs=[(CLEAN,)])


def test_signatures_stay_readable():
    assert list(inspect.signature(analysis.evaluate).parameters)[:3] == ["model", "images", "corruption"]
    assert analysis.evaluate.__doc__.startswith("Classify every image")
