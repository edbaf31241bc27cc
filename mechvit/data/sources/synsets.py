"""The 1,000 classes of ImageNet-1k: WordNet ids and names, in the order of the classes.

The table is `imagenet_synsets.tsv` (index, WordNet id, names with commas between them); its origin and licence are in
`imagenet_synsets.LICENSE.txt`.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

SYNSET_ID = re.compile(r"n\d{8}")
"""Pattern of a noun's WordNet id."""


@cache
def synset_names() -> dict[str, str]:
    """Return WordNet id -> names, as in `{"n01440764": "tench, Tinca tinca"}`, in the order of the classes."""
    lines = files("mechvit.data").joinpath("imagenet_synsets.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines[1:]]
    return {synset: names for _, synset, names in rows}
