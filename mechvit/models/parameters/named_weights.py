"""A HookedViT's weights under transformer-lens's names and in its layout, stacked over layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens import FactoredMatrix
from transformer_lens.HookedRootModule import HookedRootModule

from mechvit.models.checkpoints.checks import no_head
from mechvit.models.config import HookedViTConfig
from mechvit.models.layers.block import Block, LayerNorm
from mechvit.models.layers.head import Head


class NamedWeights(HookedRootModule):
    """Weights of all layers, stacked (copies); `blocks[l].attn.W_Q` and siblings are views.

    `W_O`, `b_O`, `W_out` and `b_out` include the layer scale: they are what is written into the residual stream.
    """

    cfg: HookedViTConfig
    blocks: Sequence[Block]
    ln_final: LayerNorm | None
    head: Head | None

    @property
    def W_Q(self) -> Float[Tensor, "layer head d_model d_head"]:
        """Query weights."""
        return torch.stack([block.attn.W_Q for block in self.blocks])

    @property
    def W_K(self) -> Float[Tensor, "layer head d_model d_head"]:
        """Key weights."""
        return torch.stack([block.attn.W_K for block in self.blocks])

    @property
    def W_V(self) -> Float[Tensor, "layer head d_model d_head"]:
        """Value weights."""
        return torch.stack([block.attn.W_V for block in self.blocks])

    @property
    def W_O(self) -> Float[Tensor, "layer head d_head d_model"]:
        """Attention output weights."""
        return torch.stack([block.attn.W_O for block in self.blocks])

    @property
    def W_in(self) -> Float[Tensor, "layer d_model d_mlp"]:
        """MLP input weights."""
        return torch.stack([block.mlp.W_in for block in self.blocks])

    @property
    def W_gate(self) -> Float[Tensor, "layer d_model d_mlp"] | None:
        """Gate weights; None where the MLPs have no gate."""
        gates = [block.mlp.W_gate for block in self.blocks]
        return torch.stack([gate for gate in gates if gate is not None]) if self.cfg.gated_mlp else None

    @property
    def W_out(self) -> Float[Tensor, "layer d_mlp d_model"]:
        """MLP output weights."""
        return torch.stack([block.mlp.W_out for block in self.blocks])

    @property
    def b_Q(self) -> Float[Tensor, "layer head d_head"]:
        """Query biases."""
        return torch.stack([block.attn.b_Q for block in self.blocks])

    @property
    def b_K(self) -> Float[Tensor, "layer head d_head"]:
        """Key biases."""
        return torch.stack([block.attn.b_K for block in self.blocks])

    @property
    def b_V(self) -> Float[Tensor, "layer head d_head"]:
        """Value biases."""
        return torch.stack([block.attn.b_V for block in self.blocks])

    @property
    def b_O(self) -> Float[Tensor, "layer d_model"]:
        """Attention output biases."""
        return torch.stack([block.attn.b_O for block in self.blocks])

    @property
    def b_in(self) -> Float[Tensor, "layer d_mlp"]:
        """MLP input biases."""
        return torch.stack([block.mlp.b_in for block in self.blocks])

    @property
    def b_gate(self) -> Float[Tensor, "layer d_mlp"] | None:
        """Gate biases; None where the MLPs have no gate."""
        biases = [block.mlp.b_gate for block in self.blocks]
        return torch.stack([bias for bias in biases if bias is not None]) if self.cfg.gated_mlp else None

    @property
    def b_out(self) -> Float[Tensor, "layer d_model"]:
        """MLP output biases."""
        return torch.stack([block.mlp.b_out for block in self.blocks])

    @property
    def QK(self) -> FactoredMatrix:
        """W_Q W_Kᵀ of every layer and head, [layer, head, d_model, d_model] in factors, without rotary positions."""
        return FactoredMatrix(self.W_Q, self.W_K.transpose(-2, -1))

    @property
    def OV(self) -> FactoredMatrix:
        """W_V W_O of every layer and head, [layer, head, d_model, d_model] in factors."""
        return FactoredMatrix(self.W_V, self.W_O)

    @property
    def W_U(self) -> Float[Tensor, "d_head_input class"]:
        """Weights of the classifier. A zero-shot head divides their product by `head.hook_scale`."""
        return self._require_head().W_U

    @property
    def b_U(self) -> Float[Tensor, " class"]:
        """The classifier's bias."""
        return self._require_head().b_U

    def all_head_labels(self) -> list[str]:
        """Return the label of every head, "L0H0" to the last, in the order of `stack_head_results`."""
        return [f"L{layer}H{head}" for layer in range(self.cfg.n_layers) for head in range(self.cfg.n_heads)]

    def to_single_token(self, label: str) -> int:
        """Return the index of a class by its name in `cfg.id2label`.

        Raises:
            ValueError: no class has this name.
        """
        for index, name in self.cfg.id2label.items():
            if name == label:
                return index
        raise ValueError(f"label must be one of the {self.cfg.n_classes} names in cfg.id2label; got {label!r}.")

    def tokens_to_residual_directions(
        self, tokens: str | int | Int[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch d_model"]:
        """Return each class's direction in the head's input for one token: its column of W_U times ln_final's gain.

        transformer-lens's own directions leave the gain out. `ActivationCache.logit_attrs` takes the pooling into
        account as well.

        Raises:
            ValueError: there is no head, or it reads two tokens side by side, so that there is no single direction.
        """
        if self.cfg.d_head_input != self.cfg.d_model:
            raise ValueError(
                f"The head of this {self.cfg.architecture} reads {self.cfg.pooling}, which has no single direction. "
                "Use cache.logit_attrs or cache.logit_directions."
            )
        index = self.to_single_token(tokens) if isinstance(tokens, str) else tokens
        direction = self.W_U.T[torch.as_tensor(index, device=self.cfg.device)]
        return direction if self.ln_final is None else direction * self.ln_final.w

    def accumulated_bias(
        self, layer: int, mlp_input: bool = False, include_mlp_biases: bool = True
    ) -> Float[Tensor, " d_model"]:
        """Sum the biases that the blocks before `layer` (and, with `mlp_input`, its attention) write.

        Raises:
            ValueError: a layer outside 0..n_layers.
        """
        if not 0 <= layer <= self.cfg.n_layers - mlp_input:
            raise ValueError(f"layer must lie within 0..{self.cfg.n_layers - mlp_input}; got {layer}.")
        biases = [block.attn.b_O for block in self.blocks[: layer + mlp_input]]
        biases += [block.mlp.b_out for block in self.blocks[:layer] if include_mlp_biases]
        zeros = torch.zeros(self.cfg.d_model, device=self.cfg.device, dtype=self.cfg.dtype)
        return torch.stack([zeros, *biases]).sum(0)

    def _require_head(self) -> Head:
        if self.head is None:
            raise ValueError(no_head(self.cfg))
        return self.head
