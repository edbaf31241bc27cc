"""Hugging Face weights that the model does not use, kept so that `to_hf` gives them back."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


class Carried(nn.Module):
    """Mask tokens, decoders, text towers: buffers, by their Hugging Face names with slashes for dots."""

    def keep(self, weights: Mapping[str, Tensor]) -> None:
        """Take weights by their Hugging Face names."""
        for name, tensor in weights.items():
            self.register_buffer(name.replace(".", "/"), tensor)

    def weights(self) -> dict[str, Tensor]:
        """Give all of them by their Hugging Face names."""
        return {name.replace("/", "."): tensor for name, tensor in self.named_buffers()}
