"""Attention statistics of a forward pass at the least cost: within the pass, from queries and keys, or from the
pattern.

For the entropy, a CPU with a few hundred tokens computes attention block by block and measures each block's pattern on
the way, which costs little more than fused attention. With more tokens, or on a GPU, the pass stays fused, and
`mechvit.kernels` computes the statistics from queries and keys. Neither stores a pattern. To compare two passes, a CPU
keeps patterns while they are small.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mechvit.analysis.inputs import wide
from mechvit.analysis.shared_pass import Hooks
from mechvit.kernels.attention_pair import attention_pair, cosine_of_norms
from mechvit.kernels.attention_statistics import FUSED_KEYS, attention_statistics, row_entropy
from mechvit.models.interrupts import temporary
from mechvit.models.layers.attention import mixed_by
from mechvit.models.layers.hook_state import is_watched

if TYPE_CHECKING:
    from mechvit.models import HookedViT
    from mechvit.models.layers.positions import TokenLayout

MIXED_TOKENS = FUSED_KEYS - 1
"""Most tokens for which a CPU measures the entropy inside the pass; `benchmarks/attention_statistics.py` times both."""
SHIFT_PATTERN = 256
"""Most tokens for which a CPU compares two passes by their patterns."""

Shift = tuple[Tensor, Tensor, Tensor]
"""Entropy, cosine and squared difference of one layer, each [batch]."""


def pattern_entropy(pattern: Float[Tensor, "batch head query key"]) -> Float[Tensor, " batch"]:
    """Compute each row's -sum p log p (nats; 0 log 0 is 0), averaged over heads and queries (paper, equation 1)."""
    pattern, rows = wide(pattern), pattern.shape[1] * pattern.shape[2]
    log = pattern.clamp_min(torch.finfo(pattern.dtype).tiny).log_()
    return log.mul_(pattern).sum((1, 2, 3)).div_(-rows)


def pattern_shift(
    clean: Float[Tensor, "batch head query key"],
    corrupted: Float[Tensor, "batch head query key"],
    clean_norm: Float[Tensor, "batch head query"],
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Compute cosine and squared difference (summed over keys) of each row, averaged over heads and queries.

    The cosine comes from norms (`cosine_of_norms`): no product of patterns is formed.
    """
    clean, corrupted, clean_norm = wide(clean), wide(corrupted), wide(clean_norm)
    norm = torch.linalg.vector_norm(corrupted, dim=-1)
    squared = torch.linalg.vector_norm(corrupted - clean, dim=-1).square_()
    return cosine_of_norms(squared, norm, clean_norm).mean((1, 2)), squared.mean((1, 2))


def is_small(model: HookedViT, most_tokens: int) -> bool:
    """Return whether a model is on a CPU and has at most `most_tokens` tokens."""
    return model.cfg.device.type == "cpu" and model.cfg.n_tokens <= most_tokens


def watches_pattern(model: HookedViT, layer: int) -> bool:
    """Return whether the caller's hooks watch (and may edit) a layer's scores or pattern."""
    attn = model.blocks[layer].attn
    return is_watched(attn.hook_attn_scores) or is_watched(attn.hook_pattern)


def _layer_hooks(
    model: HookedViT,
    layer: int,
    as_pattern: bool,
    place: Callable[[], TokenLayout],
    on_pattern: Callable[[Tensor], None],
    on_heads: Callable[[Tensor, Tensor, Tensor | None], None],
) -> Hooks:
    """Return hooks that pass on the pattern, or q and k [batch, head, token, d_head] with the position bias."""
    at, attn = f"blocks.{layer}.attn.", model.blocks[layer].attn
    if as_pattern or watches_pattern(model, layer):
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
    layers: Iterable[int],
    as_pattern: bool,
    on_pattern: Callable[[Tensor], None],
    on_heads: Callable[[Tensor, Tensor, Tensor | None], None],
) -> Hooks:
    """Return the hooks of some layers; they read patterns if asked to, or where the caller's hooks may edit them."""
    place = functools.cache(lambda: model.place(model.cfg.grid))  # one for all layers of the pass
    return [hook for layer in layers for hook in _layer_hooks(model, layer, as_pattern, place, on_pattern, on_heads)]


def pattern_hooks(
    model: HookedViT,
    layer: int,
    place: Callable[[], TokenLayout],
    take: Callable[[Callable[[slice], Tensor]], None],
) -> Hooks:
    """Return hooks that give `take` a layer's patterns, as a function of rows of the batch: in float32 on the CPU.

    The pass stays fused: patterns are computed from queries and keys, as the model's own softmax does, unless the
    caller's hooks may edit them.
    """

    def of_pattern(pattern: Tensor) -> None:
        take(lambda rows: pattern[rows].cpu())

    def of_heads(q: Tensor, k: Tensor, bias: Tensor | None) -> None:
        attn = model.blocks[layer].attn
        take(lambda rows: attn.pattern(attn.scores(q[rows], k[rows], bias)).float().cpu())

    return _layer_hooks(model, layer, False, place, of_pattern, of_heads)


@temporary
def entropy_reading(model: HookedViT) -> Iterator[tuple[Hooks, list[Tensor]]]:
    """Yield hooks, and the list to which a forward pass in the context adds each layer's entropy [batch]."""
    found: list[Tensor] = []

    def mix(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        rows = attention_statistics(q, k, v, bias=bias)
        assert rows.output is not None
        found.append(rows.entropy.mean((1, 2)))
        return rows.output

    def of_pattern(pattern: Tensor) -> None:
        found.append(pattern_entropy(pattern))

    def of_heads(q: Tensor, k: Tensor, bias: Tensor | None) -> None:
        found.append(row_entropy(q, k, bias=bias).mean((1, 2)))

    layers = range(model.cfg.n_layers)
    within = [layer for layer in layers if is_small(model, MIXED_TOKENS) and not watches_pattern(model, layer)]
    hooks = _hooks(model, (layer for layer in layers if layer not in within), False, of_pattern, of_heads)
    with mixed_by([model.blocks[layer].attn for layer in within], mix):
        yield hooks, found


class CleanAttention:
    """One batch's clean attention in every layer, to which corrupted passes are compared."""

    def __init__(self, model: HookedViT) -> None:
        self.model = model
        self.kept: list[tuple[Tensor, Tensor]] = []
        """For each layer: the pattern and its rows' norms, or queries and keys."""
        self.entropy: list[Tensor] = []

    def hooks(self) -> Hooks:
        """Return hooks for the clean forward pass."""

        def of_pattern(pattern: Tensor) -> None:
            self.kept.append((pattern, torch.linalg.vector_norm(wide(pattern), dim=-1)))
            self.entropy.append(pattern_entropy(pattern))

        def of_heads(q: Tensor, k: Tensor, bias: Tensor | None) -> None:
            self.kept.append((q, k))
            self.entropy.append(row_entropy(q, k, bias=bias).mean((1, 2)))

        return self._hooks(of_pattern, of_heads)

    def comparison(self) -> tuple[Hooks, list[Shift]]:
        """Return hooks for a corrupted pass, and the list that it fills with each layer's statistics."""
        found: list[Shift] = []

        def of_pattern(pattern: Tensor) -> None:
            clean, norm = self.kept[len(found)]
            found.append((pattern_entropy(pattern), *pattern_shift(clean, pattern, norm)))

        def of_heads(q: Tensor, k: Tensor, bias: Tensor | None) -> None:
            pair = attention_pair(*self.kept[len(found)], q, k, bias=bias, other_bias=bias)
            rows = (pair.other_entropy, pair.cosine, pair.squared_difference)
            entropy, cosine, squared = (row.mean((1, 2)) for row in rows)
            found.append((entropy, cosine, squared))

        return self._hooks(of_pattern, of_heads), found

    def _hooks(
        self, on_pattern: Callable[[Tensor], None], on_heads: Callable[[Tensor, Tensor, Tensor | None], None]
    ) -> Hooks:
        layers, small = range(self.model.cfg.n_layers), is_small(self.model, SHIFT_PATTERN)
        return _hooks(self.model, layers, small, on_pattern, on_heads)
