"""Families of checkpoints as tables that are read in both directions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from mechvit.models.config import HookedViTConfig

ReadConfig = Mapping[str, Callable[[Any], Any]]
"""Field of `HookedViTConfig` -> the function that reads it from the Hugging Face config."""


@dataclass(frozen=True)
class Stored:
    """Location of one of our parameters in a Hugging Face state dict.

    Shapes that differ only by singleton dimensions (a CLS token [d] or [1, 1, d]) need only the name.
    """

    name: str
    third: int | None = None
    """Third of the rows that is used: 0, 1 and 2 are the query, key and value of a packed projection."""
    channels_last: bool = False
    """Whether a patch projection is stored as a matrix [d_model, row * column * channel]."""

    def read(self, theirs: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Extract our tensor, of `shape`, from the Hugging Face one."""
        if self.third is not None:
            theirs = theirs.chunk(3)[self.third]
        if self.channels_last:
            theirs = theirs.unflatten(1, (*shape[2:], shape[1])).permute(0, 3, 1, 2)
        return theirs.reshape(shape)

    def write(self, ours: Tensor) -> Tensor:
        """Return our tensor in the Hugging Face layout (one third of a packed projection)."""
        return ours.permute(0, 2, 3, 1) if self.channels_last else ours


Weights = Mapping[str, "str | Stored | Callable[[HookedViTConfig], str]"]
"""Our parameter name -> the name in a `state_dict()`; `{l}` stands for the layer. A parameter that a checkpoint's
config switches off (a bias, the pooler) is absent on both sides.
"""


def with_biases(places: Mapping[str, str]) -> dict[str, str]:
    """Return the names of the weight and the bias of linear maps and LayerNorms (ours: `ln...`, with `.w` and `.b`)."""
    found = {}
    for ours, theirs in places.items():
        is_norm = ours.rpartition(".")[2].startswith("ln")
        for kind in ("weight", "bias"):
            found[f"{ours}.{kind[0] if is_norm else kind}"] = f"{theirs}.{kind}"
    return found


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One supported Hugging Face class."""

    prefix: str = ""
    """Prefix of the encoder's names in the class's state dict."""
    weights: Weights = field(default_factory=dict)
    """Weights of the head and the pooler, by their full names."""
    config: ReadConfig = field(default_factory=dict)
    """Fields that differ from the family's, read from the whole config."""
    carried: tuple[str, ...] = ()
    """Prefixes of full names of weights that the model does not use; they are kept for `to_hf`."""
    classifier: bool = False
    """Whether the class has a classification head (where its config has any labels)."""
    zero_shot: ReadConfig | None = None
    """Fields that change when text embeddings turn it into a zero-shot classifier; None where that is impossible."""
    optional_pooler: bool = False
    """Whether its constructor takes `add_pooling_layer`, which no config records."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of Hugging Face models as data: its config fields and its weight names.

    A new family is one file with one `Family`, and one line in `supported.py`.
    """

    name: str
    model_types: tuple[str, ...]
    """Values of `config.model_type`."""
    config: ReadConfig
    """Fields read from the config of the vision encoder (`config.vision_config` where there is one)."""
    weights: Weights
    """Weights of the encoder, without the class's prefix."""
    architectures: Mapping[str, Architecture]
    """Supported class name -> its description."""
    carried: tuple[str, ...] = ()
    """Encoder weights that the model does not use (mask tokens), by name without prefix."""
    switches: Mapping[str, str] = field(default_factory=dict)
    """Field of `HookedViTConfig` -> the Hugging Face flag for the same thing (biases)."""
    any_size: bool = False
    """Whether Hugging Face's forward resizes the positions to any image size without being asked."""
    ignored: tuple[str, ...] = ("position_ids", "relative_position_index")
    """Suffixes of names in old checkpoints that are not weights."""

    def stored(self, cfg: HookedViTConfig, ours: list[str]) -> dict[str, Stored]:
        """Return the location of each of our parameters in the class's state dict; those without one are left out.

        Raises:
            KeyError: the tables lack a parameter, which is a bug in the family's file.
        """
        architecture = self.architectures[cfg.architecture]
        return {
            name: place
            for name in ours
            if not name.startswith("carried.") and (place := self._place(cfg, architecture, name)) is not None
        }

    def is_carried(self, architecture: str, name: str) -> bool:
        """Return whether a name of the class's state dict belongs to an unused weight."""
        known = self.architectures[architecture]
        return name.startswith(known.carried) or name in {known.prefix + own for own in self.carried}

    def _place(self, cfg: HookedViTConfig, architecture: Architecture, name: str) -> Stored | None:
        prefix, layer, key = "", "", name
        if name.startswith("blocks."):
            _, layer, rest = name.split(".", 2)
            key = "blocks.{l}." + rest
        if name == "head.text_embeds":  # given by the user, not the checkpoint
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
