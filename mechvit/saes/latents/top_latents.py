"""The latents that fire most on one picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvit.analysis.inputs import on_cpu, wide
from mechvit.analysis.statistics.results import Result
from mechvit.analysis.statistics.tidy_tables import labelled
from mechvit.arguments import checked
from mechvit.data.batches import ImageBatch
from mechvit.data.pixels import unit_pixels
from mechvit.saes.hook_site import sae_site
from mechvit.saes.splicing import read_site
from mechvit.settings_checks import COUNT, check_number

from .directions import fixed_scale, latent_directions

if TYPE_CHECKING:
    import pandas as pd
    from sae_lens import SAE

    from mechvit.models import HookedViT


@dataclass(frozen=True, repr=False)
class TopLatents(Result):
    """Latents that fire on one picture, those that write most into it first; on the CPU."""

    latent: Int[Tensor, " latents"]
    """Indices in the SAE."""
    activation: Float[Tensor, " latents"]
    """Activation at the token where the latent is strongest."""
    total: Float[Tensor, " latents"]
    """Sum over tokens of activation times the length of what one unit of it writes; the latents' order."""
    token: Int[Tensor, " latents"]
    """Index of that token among those that the SAE reads."""
    maps: Float[Tensor, "latents token"]
    """Activation at every token that the SAE reads."""
    special: int
    """Number of these tokens that lie before the first patch."""
    grid: tuple[int, int]
    """Rows and columns of patches; (0, 0) for an SAE that reads CLS alone."""
    fired: int
    """Number of latents that fire on the picture at all."""

    def __repr__(self) -> str:
        first = f", latent {int(self.latent[0])} first" if len(self.latent) else ""
        return f"TopLatents({len(self.latent)} of {self.fired} latents that fire{first})"

    def patch_maps(self) -> Float[Tensor, "latents row column"]:
        """Return the activations on the patches."""
        return self.maps[:, self.special :].unflatten(1, self.grid) if self.grid[0] else self.maps[:, :0, None]

    def to_frame(self, **labels: str) -> pd.DataFrame:
        """Return one row per latent: the labels, place (from 1), latent, activation, total, token, row, column (of the
        strongest patch, -1 where a token before the patches is strongest), share (of tokens at which it fires).
        """
        import pandas as pd

        patch = self.token - self.special
        columns = max(self.grid[1], 1)
        table = {
            "place": torch.arange(1, 1 + len(self.latent)),
            "latent": self.latent,
            "activation": self.activation,
            "total": self.total,
            "token": self.token,
            "row": torch.where(patch >= 0, patch // columns, -1),
            "column": torch.where(patch >= 0, patch % columns, -1),
            "share": (self.maps > 0).double().mean(1),
        }
        return labelled(pd.DataFrame({name: values.numpy() for name, values in table.items()}), labels)


@checked
@torch.inference_mode()
def top_latents(model: HookedViT, sae: SAE, picture: Any, *, count: int = 10) -> TopLatents:
    """Find the latents that fire most on one picture, and where.

    Args:
        model: the model that the SAE was trained on, with an image processor.
        sae: an SAE of sae-lens, of any of the model's hook points with one vector a token.
        picture: a picture as `mechvit.data.open_picture` takes it (a path, a PIL image, an array), or an `ImageBatch`
            of one image.
        count: number of latents; fewer where fewer fire.

    Raises:
        ValueError: an SAE that does not fit the model, a picture that cannot be read, a batch of more than one image,
            activations that are not finite.
    """
    check_number("count", count, COUNT)
    site = sae_site(model, sae)
    x = read_site(model, site, _one_image(model, picture)).x
    codes = on_cpu(wide(sae.encode(x.to(sae.W_enc.device))))[0]
    scale = on_cpu(latent_directions(sae)).float().norm(dim=1) if fixed_scale(sae) else torch.ones(codes.shape[1])
    total = codes.sum(0) * scale
    fired = int((codes > 0).any(0).sum())
    order = total.argsort(descending=True, stable=True)[: min(count, fired)]
    activation, token = codes[:, order].max(0)
    grid = (0, 0) if site.tokens == "cls" else (int(model.cfg.grid[0]), int(model.cfg.grid[1]))
    special = {"all": model.cfg.n_prefix_tokens, "patches": 0, "cls": 1}[site.tokens]
    return TopLatents(order, activation, total[order], token, codes[:, order].T.contiguous(), special, grid, fired)


def _one_image(model: HookedViT, picture: Any) -> ImageBatch:
    if isinstance(picture, ImageBatch):
        if len(picture) != 1:
            raise ValueError(f"picture must be one image; got a batch of {len(picture)}: take one of it")
        return picture.to(model.cfg.device)
    if model.image_processor is None:
        raise ValueError(
            "a picture is resized by the model's image processor, and this model has none: give an ImageBatch of one "
            "image at the model's input size"
        )
    pixels = torch.from_numpy(unit_pixels([picture], model.image_processor)).float() / 255
    nothing = torch.full((1,), -1)
    return ImageBatch(pixels, nothing, torch.zeros_like(nothing)).to(model.cfg.device)
