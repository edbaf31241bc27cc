"""What a family of checkpoints is: two tables, read in both directions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Family:
    """A Hugging Face model type as data: how its config and its weights are called here.

    A new family is one file with one `Family`, and one line in `supported.py`.
    """

    model_type: str
    """`config.model_type` of its checkpoints."""

    config: Mapping[str, Callable[[Any], Any]]
    """Field of `HookedViTConfig` -> how to read it off the Hugging Face config."""

    weights: Mapping[str, str]
    """Our parameter name -> the encoder's name in a `state_dict()`; `{l}` stands for the layer. A parameter
    that a checkpoint's config switches off (a bias, the pooler) is simply absent on both sides."""

    architectures: Mapping[str, Mapping[str, str]]
    """Supported class name -> the parameters of its head (our name -> full name there). The key `""` holds the
    prefix that the encoder's names have in that class."""

    def weight_names(self, architecture: str, ours: list[str]) -> dict[str, str]:
        """Give the Hugging Face `state_dict()` name of each of our parameter names.

        Raises:
            KeyError: the table lacks a parameter, which is a bug of the family's file.
        """
        head = self.architectures[architecture]
        return {name: head[name] if name in head else head[""] + self._encoder_name(name) for name in ours}

    def pooler_names(self, architecture: str) -> set[str]:
        """Give the Hugging Face names of the pooler's parameters; empty for a class that never has one."""
        return {theirs for ours, theirs in self.architectures[architecture].items() if ours.startswith("pooler.")}

    def _encoder_name(self, name: str) -> str:
        if not name.startswith("blocks."):
            return self.weights[name]
        _, layer, rest = name.split(".", 2)
        return self.weights["blocks.{l}." + rest].replace("{l}", layer)
