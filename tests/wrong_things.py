"""Objects that a user may hold, and for each kind of argument what does not fit it, for the tests of arguments."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import torch
from PIL import Image

from mechvit import HookedViT, data
from mechvit.arguments import _choices, _name
from mechvit.data import Mixture

PACKAGES = ("data", "analysis", "saes", "finetuning", "visualization", "visualization.figures", "experiment")
PACKAGES += ("experiment.nulls", "benchmark")
FACES = {
    f"{package}.{name}": function
    for package in PACKAGES
    for module in (importlib.import_module(f"mechvit.{package}"),)
    for name in module.__all__
    if inspect.isfunction(function := getattr(module, name))
}
LOOKED_AT = {
    "HookedViT",
    "SAE",
    "datasets.Dataset",
    "ImageBatch",
    "pd.DataFrame",
    "Condition",
    "Corruption",
    "int",
    "float",
    "Path",
    "os.PathLike",
    "Patching",
    "Attribution",
    "FeatureSets",
    "LatentChange",
    "TunedLens",
    "CachedActivations",
}


MIXTURE = Mixture.parse("fog_3+snow_2")


class Given:
    """Objects that a user may hold, made once."""

    def __init__(self, model, hf_model, processor, images, batch):
        self.model, self.hf_model, self.images, self.batch = model, hf_model, images, batch
        self.picture = Image.fromarray(np.zeros((32, 32, 3), np.uint8))
        self.wrong = {
            "HookedViT": [
                "runs/base",
                Path("runs/base"),
                hf_model,
                torch.nn.DataParallel(model),
                {"base": model},
                [model],
                torch.compile(model),
                torch.nn.Linear(2, 2),
                None,
                3,
            ],
            "SAE": ["saes/base", Path("saes/base"), {"mine": 1}, model, None, torch.zeros(3)],
            "datasets.Dataset": [
                "photos",
                Path("photos"),
                self.picture,
                [self.picture],
                np.zeros((3, 32, 32)),
                torch.zeros(3, 32, 32),
                torch.zeros(2, 3, 32, 32),
                datasets.DatasetDict(test=images),
                images.to_iterable_dataset(),
                torch.utils.data.TensorDataset(torch.zeros(3)),
                model,
                {"image": [1]},
                5,
            ],
            **{key: [["gaussian_blur_4"], MIXTURE, 4, torch.zeros(3), model] for key in ("Condition", "Corruption")},
            "pd.DataFrame": ["tables/lens.parquet", Path("tables/lens.parquet"), {"model": ["base"]}, [1, 2], None],
            "int": ["32", 2.5, True, [3], torch.zeros(3)],
            "float": ["0.5", True, [0.5]],
            "path": [3, model, ["a", "b"], b"bytes"],
            "Mapping": [model, [model], "runs/base", None, torch.nn.DataParallel(model)],
            "list": [3, None, model, "blocks.0.hook_resid_post"],
            "result": ["tables/patching.parquet", pd.DataFrame(), {"k": 3}, 3],
        }

    def not_fitting(self, annotation):
        """The wrong things for an annotation."""
        names = [_name(choice) for choice in _choices(annotation)]
        if {"Path", "os.PathLike"} & set(names):
            found = self.wrong["path"]
        elif "Mapping" in names:
            found = self.wrong["Mapping"]
        elif {"Sequence", "Collection", "list"} & set(names):
            found = self.wrong["list"]
        else:
            kind = next((name for name in names if name in self.wrong), None)
            found = self.wrong[kind or "result"] if LOOKED_AT & set(names) else []
        fits = {"None": type(None), "Mixture": Mixture, "str": str}
        allowed = tuple(kind for name, kind in fits.items() if name in names)
        return [value for value in found if not isinstance(value, allowed)]


def held(tiny_hf, tiny_processor, tiny_images) -> Given:
    model = HookedViT.from_hf(tiny_hf, tiny_processor)
    batch = next(data.iter_batches(tiny_images, batch_size=4))
    return Given(model, tiny_hf, tiny_processor, tiny_images, batch)
