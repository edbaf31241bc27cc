"""Table of the settings that published SAEs record in their metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mechvit.arguments import checked
from mechvit.saes.config import ARCHITECTURES

if TYPE_CHECKING:
    import pandas as pd
    from sae_lens import SAE


@checked
def sae_settings(saes: Mapping[str, SAE], **labels: str) -> pd.DataFrame:
    """Return one row per SAE, to be joined with the tables of `evaluate_saes` on `architecture`, the SAE's name.

    Returns:
        columns of `labels`, then architecture, kind (the architecture in training, from the metadata or the name:
        batchtopk is published as jumprelu), d_sae, k, lr, hook_name, hook_tokens; NaN or None if not recorded.
    """
    import pandas as pd

    rows = []
    for name, sae in saes.items():
        about = sae.cfg.metadata
        last = name.rpartition("/")[2]
        kind = about.architecture_in_training or (last if last in ARCHITECTURES else sae.cfg.architecture())
        rows.append(
            (*labels.values(), name, kind, sae.cfg.d_sae, about.k, about.lr, about.hook_name, about.hook_tokens)
        )
    frame = pd.DataFrame(
        rows, columns=[*labels, "architecture", "kind", "d_sae", "k", "lr", "hook_name", "hook_tokens"]
    )
    return frame.astype({"k": float, "lr": float})
