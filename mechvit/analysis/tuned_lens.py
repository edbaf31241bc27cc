"""The tuned lens's reading of the right class, in the logit lens's form."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mechvit.arguments import checked
from mechvit.data.spec import CLEAN, Corruption

from .lens import LogitLens
from .lens_comparison import compare_lenses
from .stream import Images
from .translators import TunedLens

if TYPE_CHECKING:
    from mechvit.models import HookedViT


@checked
def tuned_lens(
    model: HookedViT,
    lens: TunedLens,
    images: Images,
    corruption: Corruption | str = CLEAN,
    *,
    batch_size: int | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> LogitLens:
    """Follow the right class through the layers, each read through its translator: what `logit_lens` gives, tuned.

    Args:
        model: the one that the lens was trained for.
        lens: of `train_tuned_lens`.
        images, corruption, batch_size, seed, progress: as in `compare_lenses`.

    Raises:
        ValueError: as `compare_lenses`.

    Source: arXiv:2303.08112, section 3.
    """
    found = compare_lenses(
        model, {"tuned": lens}, images, corruption, batch_size=batch_size, seed=seed, progress=progress
    )["tuned"]
    return LogitLens(found.image_id, found.label, found.probability, found.rank)
