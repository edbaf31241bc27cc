"""What a family of checkpoints is: a few tables, read in both directions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from mechvit.models.config import HookedViTConfig

ReadConfig = Mapping[str, Callable[[Any], Any]]
"""Field of `HookedViTConfig` -> how to read it off the Hugging Face config."""


@dataclass(frozen=True)
class Stored:
    """Where a parameter of ours lies in a Hugging Face state dict, and as which part of a tensor there.

    Shapes that differ only by how they are folded (a CLS token [d] or [1, 1, d]) need no more than the name.
    """

    name: str
    third: int | None = None
    """Which third of the rows: 0, 1 and 2 are the query, key and value of a packed projection."""
    channels_last: bool = False
    """A patch projection stored as a matrix [d_model, row * column * channel]."""

    def read(self, theirs: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Give our tensor, of `shape`, out of theirs."""
        if self.third is not None:
            theirs = theirs.chunk(3)[self.third]
        if self.channels_last:
            theirs = theirs.unflatten(1, (*shape[2:], shape[1])).permute(0, 3, 1, 2)
        return theirs.reshape(shape)

    def write(self, ours: Tensor) -> Tensor:
        """Give what of their tensor is ours, folded as ours is."""
        return ours.permute(0, 2, 3, 1) if self.channels_last else ours


Weights = Mapping[str, "str | Stored | Callable[[HookedViTConfig], str]"]
"""Our parameter name -> the name in a `state_dict()`; `{l}` stands for the layer. A parameter that a checkpoint's
config switches off (a bias, the pooler) is simply absent on both sides."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One supported Hugging Face class."""

    prefix: str = ""
    """What stands before the encoder's names in the class's state dict."""
    weights: Weights = field(default_factory=dict)
    """The head and the pooler, by their full names there."""
    config: ReadConfig = field(default_factory=dict)
    """Fields that differ from the family's, read off the whole config."""
    carried: tuple[str, ...] = ()
    """Beginnings of full names of weights that the function does not use; they are carried along for `to_hf`."""
    classifier: bool = False
    """It has a classification head (where its config has any labels)."""
    zero_shot: ReadConfig | None = None
    """The fields that change once text embeddings make it a zero-shot classifier; None where they cannot."""
    optional_pooler: bool = False
    """Its constructor takes `add_pooling_layer`, which no config records."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """A kind of Hugging Face model as data: how its config and its weights are called here.

    A new family is one file with one `Family`, and one line in `supported.py`.
    """

    name: str
    model_types: tuple[str, ...]
    """`config.model_type` of its checkpoints."""
    config: ReadConfig
    """Fields read off the config of the vision encoder (`config.vision_config` where there is one)."""
    weights: Weights
    """The encoder, without the class's prefix."""
    architectures: Mapping[str, Architecture]
    """Supported class name -> what is special about it."""
    carried: tuple[str, ...] = ()
    """Encoder weights that the function does not use (mask tokens), by name without prefix."""
    switches: Mapping[str, str] = field(default_factory=dict)
    """Field of `HookedViTConfig` -> the flag of the Hugging Face config that says the same (biases)."""
    any_size: bool = False
    """Hugging Face's forward resizes the positions to any image unasked."""
    ignored: tuple[str, ...] = ("position_ids", "relative_position_index")
    """Ends of names that old checkpoints hold and that are no weights."""

    def stored(self, cfg: HookedViTConfig, ours: list[str]) -> dict[str, Stored]:
        """Say where each of our parameters lies in the class's state dict; those that it has no place for are left out.

        Raises:
            KeyError: the tables lack a parameter, which is a bug of the family's file.
        """
        architecture = self.architectures[cfg.architecture]
        return {
            name: place
            for name in ours
            if not name.startswith("carried.") and (place := self._place(cfg, architecture, name)) is not None
        }

    def is_carried(self, architecture: str, name: str) -> bool:
        """Tell whether a name of the class's state dict is carried along unused."""
        known = self.architectures[architecture]
        return name.startswith(known.carried) or name in {known.prefix + own for own in self.carried}

    def _place(self, cfg: HookedViTConfig, architecture: Architecture, name: str) -> Stored | None:
        prefix, layer, key = "", "", name
        if name.startswith("blocks."):
            _, layer, rest = name.split(".", 2)
            key = "blocks.{l}." + rest
        if name == "head.text_embeds":  # given by the user, not by the checkpoint
            return None
        if key in architecture.weights:
            place = architecture.weights[key]
        else:
            place, prefix = self.weights[key], architecture.prefix
        if callable(place):
            place = place(cfg)
        if isinstance(place, str):
            place = Stored(place)
        return Stored(prefix + place.name.replace("{l}", layer), place.third, place.channels_last)
