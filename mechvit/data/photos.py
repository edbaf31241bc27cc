"""`photos`: an embedded data set of real photographs, "which photograph is this crop from?".

scikit-image's wheel carries nineteen photographs, so this set needs no download. Each photograph is cut into a grid of
cells, and each cell belongs to one part only (train, validation, sae or test). A crop lies wholly inside one cell: no
pixel of one part is ever seen in another.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import datasets

PHOTOGRAPHS: tuple[str, ...] = (
    "astronaut", "brick", "camera", "cell", "chelsea", "clock_motion", "coffee", "coins", "color", "grass", "gravel",
    "hubble_deep_field", "ihc", "moon", "motorcycle_left", "page", "retina", "rocket", "text",
)  # fmt: skip
"""The classes: names of files in scikit-image's data folder."""

SPLITS: dict[str, str] = {
    "train": "train",
    "finetune": "train",
    "finetune_validation": "validation",
    "validation": "validation",
    "sae": "sae",
    "sae_validation": "sae_validation",
    "test": "test",
}
"""Each split and the part of the photographs that its crops come from. `train` teaches the base model; `finetune` draws
other crops from the same part, so that what fine-tuning adds is the corruption and not new scenery."""

_PART_OF_CELL = "train test train sae train validation train test train sae_validation train sae".split()
_SPLIT_ID = {split: i for i, split in enumerate(SPLITS)}
_MAX_SIDE = 640


@dataclass(frozen=True)
class Cell:
    """One cell of a photograph's grid, in pixels of the loaded photograph."""

    top: int
    left: int
    height: int
    width: int
    part: str


@lru_cache(maxsize=len(PHOTOGRAPHS))
def photograph(name: str) -> Image.Image:
    """One of scikit-image's photographs in RGB, its longer side at most 640 pixels."""
    from importlib.resources import as_file, files

    folder = files("skimage") / "data"
    found = [folder / f"{name}{suffix}" for suffix in (".png", ".jpg") if (folder / f"{name}{suffix}").is_file()]
    if not found:
        raise ValueError(f"scikit-image carries no photograph named {name!r}; this set uses {', '.join(PHOTOGRAPHS)}")
    with as_file(found[0]) as path, Image.open(path) as image:
        rgb = image.convert("RGB")
    scale = _MAX_SIDE / max(rgb.size)
    if scale < 1:
        rgb = rgb.resize((round(rgb.width * scale), round(rgb.height * scale)), Image.Resampling.LANCZOS)
    return rgb


def cells(name: str, size: int) -> list[Cell]:
    """Cut a photograph into cells that hold a crop of `size` pixels with room to move, and give each its part.

    The parts follow a fixed cycle from a start that differs per photograph, so that every part meets every region
    (sky, ground, edge) somewhere, and photographs with few cells still have each part.
    """
    image = photograph(name)
    target = round(1.5 * size)
    rows, columns = max(image.height // target, 2), max(image.width // target, 3)
    ys = np.linspace(0, image.height, rows + 1).astype(int)
    xs = np.linspace(0, image.width, columns + 1).astype(int)
    order = np.random.default_rng(PHOTOGRAPHS.index(name)).permutation(rows * columns)
    return [
        Cell(
            int(ys[r]), int(xs[c]), int(ys[r + 1] - ys[r]), int(xs[c + 1] - xs[c]), _PART_OF_CELL[order[r * columns + c] % len(_PART_OF_CELL)]
        )
        for r in range(rows)
        for c in range(columns)
    ]
