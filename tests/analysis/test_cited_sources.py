"""Every analysis and every corruption says in its docstring where it comes from."""

from __future__ import annotations

import inspect
import re

import pytest

from mechvit import analysis, saes
from mechvit.data import corruptions
from mechvit.data.corruption_spec import FAMILIES

SOURCE = re.compile(r"Source: \S|arXiv:\d|\((19|20)\d\d\)")
FUNCTIONS = {name: value for name in analysis.__all__ if inspect.isfunction(value := getattr(analysis, name))}
FUNCTIONS |= {name: getattr(saes, name) for name in ("feature_change", "sensitive_features", "ablate_features")}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_analysis_cites_its_source(name):
    assert SOURCE.search(FUNCTIONS[name].__doc__ or "")


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "clean"])
def test_a_corruption_cites_its_source(family):
    modules = (corruptions.blur, corruptions.digital, corruptions.drops, corruptions.noise, corruptions.weather)
    (function,) = (found for module in modules if (found := vars(module).get(family)) is not None)
    assert SOURCE.search(function.__doc__ or "")
