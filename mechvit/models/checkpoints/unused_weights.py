"""Hugging Face weights that the model does not use, kept so that `to_hf` returns them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


class CarriedWeights(nn.Module):
    """Unused weights (mask tokens, decoders, text towers) as buffers, by Hugging Face names with slashes for dots."""

    def keep(self, weights: Mapping[str, Tensor]) -> None:
        """Register weights by their Hugging Face names."""
        for name, tensor in weights.items():
            self.register_buffer(name.replace(".", "/"), tensor)

    def weights(self) -> dict[str, Tensor]:
        """Return all weights by their Hugging Face names."""
        return {name.replace("/", "."): tensor for name, tensor in self.named_buffers()}
