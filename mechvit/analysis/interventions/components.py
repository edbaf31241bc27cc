"""Components of a ViT that can be patched: their names, hook points, and the cost of patching."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mechvit.analysis.statistics.tidy_tables import labelled
from mechvit.models.config import HookedViTConfig
from mechvit.models.runs.image_tokens import token_slice

if TYPE_CHECKING:
    import pandas as pd

COMPONENT_KINDS: tuple[str, ...] = ("resid", "attn", "mlp", "head")
"""Residual stream, outputs of attention and MLP, and single heads' z."""
ENDS: tuple[str, ...] = ("head_input", "logits")
"""Components after the blocks, on request: the head's input (pooled and normalised), and its output, the logits,
whose patching makes the receiver the giver.
"""
BY: tuple[str, ...] = ("kind", "layer", "head", "tokens")
"""Columns that name a component in tables."""
WHOLE = -1
"""Value of `head` for a component that is not a single head."""


class Component(NamedTuple):
    """An activation that is replaced by another model's."""

    kind: str
    """One of `COMPONENT_KINDS` or `ENDS`."""
    layer: int
    """Block, 0 to n_layers - 1. For `resid` a layer of the lens, 0 to n_layers: l is the residual stream that enters
    block l (0 is the embedding), n_layers that after the last block. For `ENDS` n_layers.
    """
    head: int
    """Head, 0 to n_heads - 1; `WHOLE` (-1) if the component is not a single head."""
    tokens: str
    """"all", "cls" or "patches"; distillation and register tokens belong to "all" only."""

    @property
    def start(self) -> int:
        """First block that runs as a whole after the component is replaced."""
        return self.layer if self.kind in ("resid", *ENDS) else self.layer + 1

    @property
    def before_mlp(self) -> bool:
        """Whether the MLP of the component's own block runs after it."""
        return self.kind in ("attn", "head")

    def point(self, n_layers: int) -> str:
        """Return the hook point where the component is read."""
        if self.kind in ENDS:
            return f"hook_{self.kind}"
        if self.kind == "resid" and self.layer == n_layers:
            return f"blocks.{n_layers - 1}.hook_resid_post"
        name = {"resid": "hook_resid_pre", "attn": "hook_attn_out", "mlp": "hook_mlp_out", "head": "attn.hook_z"}
        return f"blocks.{self.layer}.{name[self.kind]}"


def components_of(
    cfg: HookedViTConfig,
    kinds: Sequence[str],
    tokens: Sequence[str],
    known_kinds: Sequence[str] = (*COMPONENT_KINDS, *ENDS),
) -> tuple[Component, ...]:
    """List every component of these kinds at these tokens, in reading order.

    Raises:
        ValueError: an unknown, repeated or missing kind or token name, or CLS for a model without it.
    """
    for name, given, known in (("kinds", kinds, known_kinds), ("tokens", tokens, ("all", "cls", "patches"))):
        if not given or isinstance(given, str) or len(set(given)) < len(given) or not set(given) <= set(known):
            raise ValueError(f"{name} must be some of {', '.join(known)}, none twice; got {given!r}")
    for where in tokens:
        token_slice(cfg, where)
    found = []
    for kind in kinds:
        if kind in ENDS:
            found.append(Component(kind, cfg.n_layers, WHOLE, "all"))
            continue
        for layer in range(cfg.n_layers + (kind == "resid")):
            heads = range(cfg.n_heads) if kind == "head" else (WHOLE,)
            found += [Component(kind, layer, head, where) for head in heads for where in tokens]
    return tuple(found)


def passes_needed(cfg: HookedViTConfig, components: Iterable[Component]) -> float:
    """Return the number of forward passes per image that patching these components needs.

    Each model runs once, and each patched copy runs the blocks after its component. A block is 1 / n_layers of a pass;
    where only its MLP runs, it counts by its share of the block's multiplications, which per token are (2, gated 3)
    d_model d_mlp for the MLP and 4 d_model w + 2 N w for attention, with w = n_heads d_head and N tokens. Embedding and
    head are left out.
    """
    width = cfg.n_heads * cfg.d_head
    mlp = (3 if cfg.gated_mlp else 2) * cfg.d_model * cfg.d_mlp
    share = mlp / (mlp + 4 * cfg.d_model * width + 2 * cfg.n_tokens * width)
    return 2 + sum(cfg.n_layers - c.start + share * c.before_mlp for c in components) / cfg.n_layers


def component_frame(components: Sequence[Component], repeats: int = 1, **labels: str) -> pd.DataFrame:
    """Return the columns of `BY`, each component `repeats` times; `labels` are constant columns put first."""
    import pandas as pd

    columns = {name: np.repeat([getattr(c, name) for c in components], repeats) for name in BY}
    return labelled(pd.DataFrame(columns), labels)
