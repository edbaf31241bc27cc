"""`photos`: an embedded data set of real photographs, "which photograph is this crop from?".

scikit-image's wheel contains nineteen photographs, so this set needs no download. Each photograph is divided into a
grid of cells, each of which belongs to one part only (train, validation, sae or test). A crop lies within one cell and
is cut out before it is resized, so no pixel of one part has a share in another.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from .folders.clusters import CLUSTER, STRATUM
from .picture import open_picture

if TYPE_CHECKING:
    import datasets

PHOTOGRAPHS: tuple[str, ...] = (
    "astronaut",
    "brick",
    "camera",
    "cell",
    "chelsea",
    "clock_motion",
    "coffee",
    "coins",
    "color",
    "grass",
    "gravel",
    "hubble_deep_field",
    "ihc",
    "moon",
    "motorcycle_left",
    "page",
    "retina",
    "rocket",
    "text",
)
"""Classes: names of files in scikit-image's data folder."""

SPLITS: dict[str, str] = {
    "train": "train",
    "finetune": "train",
    "validation": "validation",
    "finetune_validation": "validation",
    "sae": "sae",
    "sae_validation": "validation",
    "test": "test",
}
"""Split -> the part of the photographs that its crops come from. `train` trains the base model; `finetune` draws other
crops from the same part, so that fine-tuning adds the corruption and no new scenery.
"""

_PART_OF_CELL = ("train", "test", "sae", "validation", "train", "train", "test", "train")
_MAX_SIDE = 640
CROPS = "cut out, then resized"
"""Way in which crops are made, for records of images: sets of another way hold other pixels."""
DEFAULT_COUNT = 1900
"""Crops per split without a limit: a hundred of each photograph."""


@dataclass(frozen=True)
class GridCell:
    """Cell of a photograph's grid, in pixels of the loaded photograph."""

    top: int
    left: int
    height: int
    width: int
    part: str


@lru_cache(maxsize=len(PHOTOGRAPHS))
def photograph(name: str) -> Image.Image:
    """Return one of scikit-image's photographs in RGB, its longer side at most 640 pixels."""
    from importlib.resources import as_file, files

    folder = files("skimage") / "data"
    found = [folder / f"{name}{suffix}" for suffix in (".png", ".jpg") if (folder / f"{name}{suffix}").is_file()]
    if not found:
        raise ValueError(f"scikit-image carries no photograph named {name!r}; this set uses {', '.join(PHOTOGRAPHS)}")
    with as_file(found[0]) as path:
        rgb = open_picture(path)
    scale = _MAX_SIDE / max(rgb.size)
    if scale < 1:
        rgb = rgb.resize((round(rgb.width * scale), round(rgb.height * scale)), Image.Resampling.LANCZOS)
    return rgb


@lru_cache(maxsize=4 * len(PHOTOGRAPHS))
def cells(name: str, size: int) -> tuple[GridCell, ...]:
    """Divide a photograph into cells about 1.5 crops wide, at least 2 by 4, and assign each to one part.

    The parts follow a cycle of eight along a random order of the cells that is fixed for each photograph, so that every
    part covers every kind of region (sky, ground, edge) and every photograph has every part.
    """
    image = photograph(name)
    target = 1.5 * size
    rows, columns = max(round(image.height / target), 2), max(round(image.width / target), 4)
    ys = np.linspace(0, image.height, rows + 1).astype(int)
    xs = np.linspace(0, image.width, columns + 1).astype(int)
    place = np.random.default_rng(PHOTOGRAPHS.index(name)).permutation(rows * columns).reshape(rows, columns)
    return tuple(
        GridCell(
            top=int(ys[row]),
            left=int(xs[column]),
            height=int(ys[row + 1] - ys[row]),
            width=int(xs[column + 1] - xs[column]),
            part=_PART_OF_CELL[place[row, column] % len(_PART_OF_CELL)],
        )
        for row in range(rows)
        for column in range(columns)
    )


def crop_box(name: str, split: str, index: int, size: int, seed: int) -> tuple[int, int, int, int]:
    """Return the box (left, top, right, bottom) of one crop; see `cell_and_box`."""
    return cell_and_box(name, split, index, size, seed)[1]


def cell_and_box(name: str, split: str, index: int, size: int, seed: int) -> tuple[GridCell, tuple[int, int, int, int]]:
    """Return a random cell of the split's part, and the box (left, top, right, bottom) of a random square in it.

    Its side is drawn between `size` (or the cell's shorter side, if that is less) and the cell's shorter side.
    """
    rng = np.random.default_rng([seed, list(SPLITS).index(split), PHOTOGRAPHS.index(name), index])
    own = [cell for cell in cells(name, size) if cell.part == SPLITS[split]]
    cell = own[rng.integers(len(own))]
    shorter = min(cell.height, cell.width)
    side = int(rng.integers(min(size, shorter), shorter + 1))
    left = cell.left + int(rng.integers(cell.width - side + 1))
    top = cell.top + int(rng.integers(cell.height - side + 1))
    return cell, (left, top, left + side, top + side)


def load_photos(split: str, *, limit: int | None, seed: int, image_size: int) -> datasets.Dataset:
    """Draw the crops of a split: the columns image, label, image_id, file, cluster and stratum, classes in turn.

    Crops of one cell overlap: the cell is their cluster, and the photograph its stratum. The first n crops are the same
    whatever the limit.

    Raises:
        ValueError: an unknown split.
    """
    import datasets

    from .picture_column import PictureColumn

    if split not in SPLITS:
        raise ValueError(f"the splits of photos are {', '.join(SPLITS)}; got {split!r}")
    count = DEFAULT_COUNT if limit is None else limit
    first_id = list(SPLITS).index(split) * 1_000_000
    features = datasets.Features(
        {
            "image": PictureColumn(),
            "label": datasets.ClassLabel(names=list(PHOTOGRAPHS)),
            "image_id": datasets.Value("int64"),
            "file": datasets.Value("string"),
            CLUSTER: datasets.Value("string"),
            STRATUM: datasets.Value("string"),
        }
    )
    images, labels, files, clusters = [], [], [], []
    for index in range(count):
        label = index % len(PHOTOGRAPHS)
        name = PHOTOGRAPHS[label]
        cell, box = cell_and_box(name, split, index, image_size, seed)
        # `resize(box=box)` would read pixels beyond the box, which may be of another part
        images.append(photograph(name).crop(box).resize((image_size, image_size), Image.Resampling.BICUBIC))
        labels.append(label)
        files.append(f"{name}[{box[0]}:{box[2]}, {box[1]}:{box[3]}]")
        clusters.append(f"{name}[{cell.left}:{cell.left + cell.width}, {cell.top}:{cell.top + cell.height}]")
    columns = {
        "image": images,
        "label": labels,
        "image_id": [first_id + i for i in range(count)],
        "file": files,
        CLUSTER: clusters,
        STRATUM: [PHOTOGRAPHS[label] for label in labels],
    }
    return datasets.Dataset.from_dict(columns, features=features)
