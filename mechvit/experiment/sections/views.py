"""Pictures of a report with the data of its pages' own scripts, written as one folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechvit.experiment.runs.stages import write_json
from mechvit.files import beside, new_folder

if TYPE_CHECKING:
    import numpy as np

    from mechvit.visualization.attention.explorer import AttentionExplorer
    from mechvit.visualization.pages.patch_lens import PatchLensView


def write_views(
    folder: Path,
    arrays: Mapping[str, Mapping[str, np.ndarray]],
    texts: Mapping[str, Any],
    *,
    explorer: AttentionExplorer | None,
    lens: PatchLensView | None,
) -> None:
    """Write NAME.safetensors of each set of arrays, NAME.json of each text, and explorer.json and lens.json.

    Args:
        folder: output folder, which replaces an earlier one.
        arrays: name -> arrays by key.
        texts: name -> a JSON value.
        explorer, lens: the views, without those that the models do not allow.
    """
    from safetensors.numpy import save_file

    pages = dict(texts)
    if explorer is not None:
        pages["explorer"] = explorer.spec()
    if lens is not None:
        pages["lens"] = {"spec": lens.spec(), "figures": lens.figures()}
    with new_folder(folder, "views", overwrite=True) as new:
        for name, held in arrays.items():
            with beside(new / f"{name}.safetensors") as part:
                save_file(dict(held), part)
        for name, value in pages.items():
            write_json(new / f"{name}.json", value)
