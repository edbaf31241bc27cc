"""Sections of a comparison that are measured in one pass of both models."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .pair import Pair

if TYPE_CHECKING:
    import pandas as pd

    from mechvit.analysis.shared_pass import PassMeasurement

Tables = dict[str, "pd.DataFrame"]


@dataclass(frozen=True)
class PassRequest:
    """A measurement that a section wants of the pass, and its images."""

    measurement: PassMeasurement
    count: int
    """Number of images, the first ones."""
    head: str | None = None
    """Head whose images these are (`Pair.first`); None for all images."""


SharedSection = Generator[list[PassRequest], None, Tables]
"""A section of the pass: it yields what it wants measured and, continued after the pass, returns its tables."""


class OnePass:
    """The pass that some sections of one pair share; it runs when the first of them asks for its tables.

    Args:
        sections: name -> function of the pair that begins a section which is still to be measured.
    """

    def __init__(self, sections: Mapping[str, Callable[[Pair], SharedSection]]) -> None:
        self.sections = sections
        self.begun: dict[str, SharedSection] = {}

    def tables(self, name: str, pair: Pair) -> Tables:
        """Return the tables of one section, once."""
        if not self.begun:
            self._run(pair)
        try:
            next(self.begun[name])
        except StopIteration as done:
            found: Tables = done.value
            return found
        raise AssertionError(f"the section {name} wants a second pass")

    def _run(self, pair: Pair) -> None:
        from mechvit.analysis.shared_pass import run_together

        self.begun = {name: begin(pair) for name, begin in self.sections.items()}
        wanted = [each for section in self.begun.values() for each in next(section)]
        for on_rest in (False, True):
            part = [each for each in wanted if (each.head == "probe") is on_rest]
            if part:
                counts = [len(pair.first(each.count, each.head)) for each in part]
                run_together(
                    pair.encoders,
                    pair.first(max(counts), part[0].head),
                    pair.one_image,
                    [each.measurement for each in part],
                    counts=counts,
                    progress=", ".join(self.begun).capitalize(),
                    **pair.asked,
                )
