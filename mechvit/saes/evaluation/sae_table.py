"""What published SAEs say about themselves, as a table."""

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
    """One row an SAE, to be joined with the tables of `evaluate_saes` on `architecture`, the SAE's name.

    Returns:
        the labels, architecture, kind (what it was trained as, by its metadata or its name: batchtopk is published as
        jumprelu), d_sae, k, lr, hook_name, hook_tokens; NaN or None where the SAE's metadata do not say.
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
