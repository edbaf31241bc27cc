"""Labelled data sets, their matching with a checkpoint's classes, and ImageNet's names and WordNet ids."""

from __future__ import annotations

import csv
from importlib.resources import files

import datasets

from mechvit.data import align_labels
from mechvit.data.sources.labels import match_classes

TABLE = files("mechvit.data").joinpath("imagenet_synsets.tsv").read_text(encoding="utf8")
ROWS = list(csv.reader(TABLE.splitlines(), delimiter="\t"))[1:]
IDS, IMAGENET = [row[1] for row in ROWS], [row[2] for row in ROWS]
FIRST = [name.split(", ")[0] for name in IMAGENET]
UNNAMED = {i: f"LABEL_{i}" for i in range(1000)}


def labelled(names: list[str], labels: list[int] | None = None) -> datasets.Dataset:
    """A data set of these classes with an image of each, or with these labels."""
    rows = list(range(len(names))) if labels is None else labels
    features = datasets.Features({"label": datasets.ClassLabel(names=names), "image_id": datasets.Value("int64")})
    return datasets.Dataset.from_dict({"label": rows, "image_id": list(range(len(rows)))}, features=features)


def of_values(values: list, dtype: str) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"label": values}, features=datasets.Features({"label": datasets.Value(dtype)}))


def matched(names: list[str], id2label: dict[int, str]) -> list[int | None]:
    return list(match_classes(names, id2label).classes)


def said(names: list[str], id2label: dict[int, str]) -> list[str]:
    found: list[str] = []
    align_labels(labelled(names), id2label, say=found.append)
    return found
