"""Reading a pass's attention: the pattern itself where it is small, and only its queries and keys where it is not.

Up to a few hundred tokens a layer's pattern is cheap, and takes the place of the fused attention. Beyond, or on a GPU,
the pass stays fused, and `mechvit.kernels` makes the numbers from the queries and keys without storing a pattern.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mechvit.kernels.attention_pair import attention_pair, cosine_of_norms
from mechvit.kernels.attention_statistics import row_entropy
from mechvit.models.watching import is_watched

from .lens import Hooks

if TYPE_CHECKING:
    from mechvit.models import HookedViT
    from mechvit.models.positions import Place

ENTROPY_PATTERN, SHIFT_PATTERN = 128, 256
"""Tokens up to which a CPU reads patterns, for the entropy alone and for a comparison of two passes;
`benchmarks/attention_statistics.py` measures both ways."""

Shift = tuple[Tensor, Tensor, Tensor]
"""Entropy, cosine and squared difference of one layer, each [batch]."""


def pattern_entropy(pattern: Float[Tensor, "batch head query key"]) -> Float[Tensor, " batch"]:
    """-sum p log p (nats) of each row, averaged over heads and queries (the paper's equation 1); 0 log 0 is 0."""
    rows = pattern.shape[1] * pattern.shape[2]
    log = pattern.clamp_min(torch.finfo(pattern.dtype).tiny).log_()
    return log.mul_(pattern).sum((1, 2, 3)).div_(-rows)


def pattern_shift(
    clean: Float[Tensor, "batch head query key"],
    corrupted: Float[Tensor, "batch head query key"],
    clean_norm: Float[Tensor, "batch head query"],
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Cosine and squared difference (summed over keys) of each row, averaged over heads and queries.

    The cosine comes from norms (`cosine_of_norms`): no product of patterns is formed.
    """
    norm = torch.linalg.vector_norm(corrupted, dim=-1)
    squared = torch.linalg.vector_norm(corrupted - clean, dim=-1).square_()
    return cosine_of_norms(squared, norm, clean_norm).mean((1, 2)), squared.mean((1, 2))


def reads_patterns(model: HookedViT, layer: int, most_tokens: int) -> bool:
    """Whether a layer's pattern is read itself: it is small, or hooks of the caller's watch (and may edit) it."""
    attn = model.blocks[layer].attn
    small = model.cfg.device.type == "cpu" and model.cfg.n_tokens <= most_tokens
    return small or is_watched(attn.hook_attn_scores) or is_watched(attn.hook_pattern)


def _layer_hooks(
    model: HookedViT,
    layer: int,
    most_tokens: int,
    place: Callable[[], Place],
    on_pattern: Callable[[Tensor], None],
    on_heads: Callable[[Tensor, Tensor, Tensor | None], None],
) -> Hooks:
    """Hooks that call either with the pattern, or with queries, keys [batch, head, token, d_head] and position bias."""
    at, attn = f"blocks.{layer}.attn.", model.blocks[layer].attn
    if reads_patterns(model, layer, most_tokens):
        return [(at + "hook_pattern", lambda pattern, hook: on_pattern(pattern.float()))]
    turned = "rot_" if model.cfg.positions == "rotary" else ""
    held: list[Tensor] = []

    def query(q: Tensor, hook: Any) -> None:
        held[:] = [q.transpose(1, 2)]

    def key(k: Tensor, hook: Any) -> None:
        on_heads(held.pop(), k.transpose(1, 2), attn.position_bias(place()))

    return [(f"{at}hook_{turned}q", query), (f"{at}hook_{turned}k", key)]


def _hooks(
    model: HookedViT,
    most_tokens: int,
    on_pattern: Callable[[Tensor], None],
    on_heads: Callable[[Tensor, Tensor, Tensor | None], None],
) -> Hooks:
    """The hooks of every layer."""
    place = functools.cache(lambda: model.place(model.cfg.grid))  # one for all layers of the pass
    layers = range(model.cfg.n_layers)
    return [hook for layer in layers for hook in _layer_hooks(model, layer, most_tokens, place, on_pattern, on_heads)]


def entropy_hooks(model: HookedViT) -> tuple[Hooks, list[Tensor]]:
    """Hooks that collect each layer's entropy [batch], and the list that they fill."""
    found: list[Tensor] = []

    def of_pattern(pattern: Tensor) -> None:
        found.append(pattern_entropy(pattern))

    def of_heads(q: Tensor, k: Tensor, bias: Tensor | None) -> None:
        found.append(row_entropy(q, k, bias=bias).mean((1, 2)))

    return _hooks(model, ENTROPY_PATTERN, of_pattern, of_heads), found


class CleanAttention:
    """One batch's clean attention in every layer, and what corrupted passes are measured against."""

    def __init__(self, model: HookedViT) -> None:
        self.model = model
        self.kept: list[tuple[Tensor, Tensor]] = []
        """Of each layer the pattern and its rows' norms, or queries and keys."""
        self.entropy: list[Tensor] = []

    def hooks(self) -> Hooks:
        """Hooks for the clean forward pass."""

        def of_pattern(pattern: Tensor) -> None:
            self.kept.append((pattern, torch.linalg.vector_norm(pattern, dim=-1)))
            self.entropy.append(pattern_entropy(pattern))

        def of_heads(q: Tensor, k: Tensor, bias: Tensor | None) -> None:
            self.kept.append((q, k))
            self.entropy.append(row_entropy(q, k, bias=bias).mean((1, 2)))

        return _hooks(self.model, SHIFT_PATTERN, of_pattern, of_heads)

    def comparison(self) -> tuple[Hooks, list[Shift]]:
        """Hooks for a corrupted pass, and the list it fills with each layer's numbers."""
        found: list[Shift] = []

        def of_pattern(pattern: Tensor) -> None:
            clean, norm = self.kept[len(found)]
            found.append((pattern_entropy(pattern), *pattern_shift(clean, pattern, norm)))

        def of_heads(q: Tensor, k: Tensor, bias: Tensor | None) -> None:
            pair = attention_pair(*self.kept[len(found)], q, k, bias=bias, other_bias=bias)
            rows = (pair.other_entropy, pair.cosine, pair.squared_difference)
            entropy, cosine, squared = (row.mean((1, 2)) for row in rows)
            found.append((entropy, cosine, squared))

        return _hooks(self.model, SHIFT_PATTERN, of_pattern, of_heads), found
